"""A self-contained HTML page, built as a tree of elements.

Text is escaped when the tree is written, so that no value can become markup. The page loads
nothing, runs nothing and says so to the browser; it adapts to a phone, a dark screen and paper.
"""

from importlib import resources
from xml.etree import ElementTree

from cpnas_tf.plots.figures import render

STYLE = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
# The browser is to load nothing, and to run nothing, whatever the page may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def element(tag, *content, **attributes):
    """An element of the page.

    Args:
        tag: its name.
        content: texts and elements, in order.
        attributes: `class_` stands for `class`, and `aria_label` for `aria-label`.

    Returns:
        An `ElementTree.Element`.
    """
    names = {name.strip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    made = ElementTree.Element(tag, names)
    for part in content:
        if _is_element(part):
            made.append(part)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + part
        else:
            made.text = (made.text or "") + part
    return made


def section(title, *content):
    """A part of the page with a heading."""
    return element("section", element("h2", title), *content)


def pair(*content):
    """Things side by side where there is room."""
    return element("div", *content, class_="pair")


def facts(values):
    """A few short facts, `{name: text}`, side by side."""
    pairs = [(element("dt", name), element("dd", text)) for name, text in values.items()]
    return element("dl", *(element("div", *pair) for pair in pairs), class_="facts")


def table(caption, columns, rows, *, kind="numbers"):
    """A table that scrolls sideways where it is wider than the screen.

    Args:
        caption: what it shows.
        columns: the columns' headers, each a text or a `th` element.
        rows: the values of each, texts or `td` elements; the first is the header of its row.
        kind: of the values: "numbers", "names", "words", which are broken to fit, or "heat".
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


def vertical_header(name):
    """A column's header that is written upwards, for narrow columns."""
    return element("th", element("div", name, class_="vertical-header"), scope="col")


def heat(text, share, meaning):
    """A cell of a heat map.

    Args:
        text: what stands in it.
        share: how strong its colour is, in [0, 1]. Text is readable on each.
        meaning: what text and colour say, in words.
    """
    return element("td", text, style=f"--heat: {0.7 * share:.2f}", title=meaning)


def figure(picture, *, name, title, caption, narrow=True):
    """A picture as a part of the page.

    Args:
        picture: a `matplotlib.figure.Figure`.
        name: a word of its own among the page's figures.
        title: what the picture shows, for those who cannot see it.
        caption: what stands below it.
        narrow: whether it fits a phone; otherwise it scrolls sideways there.
    """
    svg = inline_svg(render(picture, "svg"), name=name, title=title)
    width = float(svg.get("viewBox").split()[2]) * 4 / 3  # CSS pixels: a point is 4/3
    if narrow:
        svg.set("style", f"max-width: {1.4 * width:.0f}px")
        return element("figure", svg, element("figcaption", caption))
    svg.set("style", f"min-width: {0.9 * width:.0f}px; max-width: {width:.0f}px")
    scroll = {"class_": "scroll", "role": "region", "tabindex": "0", "aria_label": title}
    return element("figure", element("div", svg, **scroll), element("figcaption", caption))


def inline_svg(svg, *, name, title):
    """Makes a file of matplotlib's an element that can stand beside others of its kind.

    Args:
        svg: the file's bytes.
        name: what all ids in it begin with from now on.
        title: what it shows, in words.
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
    """An attribute's value with `name` before each id in it."""
    if key == "id":
        return f"{name}-{value}"
    mark = "#" if key.endswith("href") else "url(#"
    return value.replace(mark, f"{mark}{name}-")


def page(title, *content):
    """The whole page.

    Returns:
        Its bytes, UTF-8.
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
