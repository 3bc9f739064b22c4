"""A self-contained HTML page, built as a tree of elements.

Text is escaped when the tree is written, so no value can become markup. The page loads and runs
nothing, and its policy makes the browser enforce that. It adapts to phones, dark mode and paper.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cpnas_tf.plots.figures import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
# The browser must not load or run anything, whatever the page holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def element(tag: str, *content: str | Element, **attributes: Any) -> Element:
    """An element of the page.

    Args:
        tag: the element's name.
        content: texts and elements, in order.
        attributes: of the element; write `class_` for `class` and `aria_label` for `aria-label`.

    Returns:
        An `ElementTree.Element`.
    """
    names = {name.strip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    made = ElementTree.Element(tag, names)
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + part
        else:
            made.text = (made.text or "") + part
    return made


def section(title: str, *content: str | Element) -> Element:
    """A section of the page with a heading."""
    return element("section", element("h2", title), *content)


def pair(*content: Element) -> Element:
    """Elements side by side, where the screen is wide enough."""
    return element("div", *content, class_="pair")


def facts(values: Mapping[str, str]) -> Element:
    """A grid of short facts, `{name: text}`."""
    pairs = [(element("dt", name), element("dd", text)) for name, text in values.items()]
    return element("dl", *(element("div", *pair) for pair in pairs), class_="facts")


def table(
    caption: str,
    columns: Sequence[str | Element],
    rows: Iterable[Sequence[str | Element]],
    *,
    kind: str = "numbers",
) -> Element:
    """A table that scrolls sideways where it is wider than the screen.

    Args:
        caption: what it shows.
        columns: the column headers, each a text or a `th` element.
        rows: the cells of each row, texts or `td` elements; the first cell is the row's header.
        kind: what the cells hold: "numbers", "names", "words" (wrapped to fit) or "heat".
    """
    head = [name if _is_element(name) else element("th", name, scope="col") for name in columns]
    body = [
        element("tr", element("th", first, scope="row"), *map(_cell, rest)) for first, *rest in rows
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_=kind,
    )
    return element("div", made, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _is_element(value):
    return isinstance(value, ElementTree.Element)


def _cell(value):
    return value if _is_element(value) else element("td", value)


def vertical_header(name: str) -> Element:
    """A column header with vertical text, for narrow columns."""
    return element("th", element("div", name, class_="vertical-header"), scope="col")


def heat(text: str, share: float, meaning: str) -> Element:
    """A cell of a heat map.

    Args:
        text: the cell's text.
        share: the strength of its colour, in [0, 1]. The text is readable on every strength.
        meaning: what text and colour mean, shown as a tooltip.
    """
    return element("td", text, style=f"--heat: {0.7 * share:.2f}", title=meaning)


def figure(picture: Figure, *, name: str, title: str, caption: str, narrow: bool = True) -> Element:
    """A picture with its caption.

    Args:
        picture: a `matplotlib.figure.Figure`.
        name: a word that no other figure of the page has; it prefixes the picture's ids.
        title: what the picture shows, for screen readers.
        caption: the text below it.
        narrow: whether the picture fits a phone; otherwise it scrolls sideways there.
    """
    svg = inline_svg(render(picture, "svg"), name=name, title=title)
    width = float(svg.get("viewBox", "").split()[2]) * 4 / 3  # CSS pixels: a point is 4/3
    if narrow:
        svg.set("style", f"max-width: {1.4 * width:.0f}px")
        return element("figure", svg, element("figcaption", caption))
    svg.set("style", f"min-width: {0.9 * width:.0f}px; max-width: {width:.0f}px")
    scroll = {"class_": "scroll", "role": "region", "tabindex": "0", "aria_label": title}
    return element("figure", element("div", svg, **scroll), element("figcaption", caption))


def picture(png: bytes, *, title: str, caption: str) -> Element:
    """A PNG file with its caption.

    Args:
        png: the file's bytes, which become a part of the page.
        title: what it shows, for screen readers.
        caption: the text below it.
    """
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return element("figure", element("img", src=source, alt=title), element("figcaption", caption))


def inline_svg(svg: bytes, *, name: str, title: str) -> Element:
    """Turns an SVG file of matplotlib into an element that can share a page with others.

    Args:
        svg: the file's bytes.
        name: the prefix of all its ids.
        title: what it shows, for screen readers.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for made in root.iter():
        made.tag = made.tag.rpartition("}")[2]  # HTML knows the names without their namespace
        made.attrib = {
            key.rpartition("}")[2]: _rename(key, value, name) for key, value in made.items()
        }
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-label": title, "style": ""}
    root.insert(0, element("title", title))
    return root


def _rename(key, value, name):
    """An attribute's value with each id prefixed by `name`."""
    if key == "id":
        return f"{name}-{value}"
    mark = "#" if key.endswith("href") else "url(#"
    return value.replace(mark, f"{mark}{name}-")


def page(title: str, *content: str | Element) -> bytes:
    """A whole page.

    Args:
        title: of the page, also its heading.
        content: texts and elements below the heading.

    Returns:
        The HTML file's bytes, in UTF-8.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", STYLE),
    )
    body = element("body", element("main", element("h1", title), *content))
    tree = element("html", head, body, lang="en")
    return b"<!DOCTYPE html>\n" + ElementTree.tostring(tree, encoding="utf-8", method="html")
