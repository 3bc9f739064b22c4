import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pages import Page
from pictures import READABLE_CONTRAST, contrast

from cpnas_tf.reports import html

HOSTILE = "</td><script>alert('&amp;')</script><!-- \"x\" onload=1 ]]>"


def small_figure():
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], marker="o")
    axes.set_xlabel("epochs < steps", parse_math=False)
    return figure


def test_elements_take_texts_and_elements_in_order():
    made = html.element("p", "a", html.element("b", "c"), "d", "e", class_="f", aria_label="g")
    assert made.attrib == {"class": "f", "aria-label": "g"}
    assert "".join(made.itertext()) == "acde"
    assert made[0].tail == "de"


def test_any_text_stays_text():
    page = Page(
        html.page(
            HOSTILE,
            html.facts({HOSTILE: HOSTILE}),
            html.table("a table", ("name", HOSTILE), [(HOSTILE, html.heat("1", 1, HOSTILE))]),
            html.figure(small_figure(), name="a", title=HOSTILE, caption=HOSTILE),
        )
    )
    assert page.headings == [HOSTILE]
    assert page.tables == {"a table": [["name", HOSTILE], [HOSTILE, "1"]]}
    assert page.pictures == page.notes == [HOSTILE]
    assert page.words.count(HOSTILE) == 6


def test_characters_that_utf_8_has_not_do_not_stop_a_report():
    assert b"<h1>a&#55296;b</h1>" in html.page("a\ud800b")


def test_pictures_do_not_share_their_parts():
    names = ("one", "other")
    figures = [
        html.figure(small_figure(), name=name, title=name, caption="", narrow=name == "one")
        for name in names
    ]
    page = Page(html.page("two of a kind", *figures))
    assert page.pictures == list(names)


def test_a_picture_is_inlined_with_its_text_and_without_the_file_s_size():
    svg = html.figure(small_figure(), name="a", title="what it shows", caption="below")[0]
    assert [child.tag for child in svg][0] == "title"
    assert svg[0].text == "what it shows"
    assert "epochs < steps" in list(svg.itertext())
    assert not {"width", "height"} & set(svg.attrib)
    assert svg.get("viewBox") == "0 0 216 144"
    assert svg.get("style") == "max-width: 403px"


def test_heat_is_a_share_of_a_colour():
    styles = [html.heat("1", share, "").get("style") for share in (0, 0.5, 1)]
    assert styles == ["--heat: 0.00", "--heat: 0.35", "--heat: 0.70"]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("share", [0, 0.7])
def test_text_can_be_read_on_heat(scheme, share):
    paper, ink = (
        np.array(to_rgb(re.findall(rf"--{name}: (#\w+)", html.STYLE)[scheme]))
        for name in ("paper", "ink")
    )
    colour = re.search(r"--heat-colour: (\d+) (\d+) (\d+)", html.STYLE).groups()
    cell = share * np.array(colour, float) / 255 + (1 - share) * paper
    assert contrast(ink, cell) >= READABLE_CONTRAST


def test_the_page_may_load_and_run_nothing():
    content = html.page("title").decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in content
