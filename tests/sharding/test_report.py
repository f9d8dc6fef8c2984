"""Pages parse as HTML, escape what comes from outside, need no network, and are the same bytes every time."""

import base64
import html
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sharding import report

EVIL = '<script>alert("x")</script>&'


class Reader(HTMLParser):
    """Collects tags and text, and holds that every element is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def whole_page():
    return report.page(
        f"Title {EVIL}",
        report.section(
            f"Section {EVIL}",
            report.text(EVIL),
            report.table(["name", EVIL], [["a", 1_234_567], [EVIL, 2]]),
            report.line_chart(
                {EVIL: ([1, 10, 100], [1, 2, 3]), "b": ([1, 10], [3, 4])}, x="step", y="loss", log_x=True, log_y=True
            ),
            report.bar_chart({"cat": 3, EVIL: 4.5}, x="label", y="photos", errors={"cat": 0.5}),
            report.photo_grid([(b"\xff\xd8 jpeg", EVIL)]),
            report.fold(EVIL, report.text("inside")),
            report.links({EVIL: "a b.html?x=1&y=2", "next": "other/report.html"}),
        ),
        subtitle=EVIL,
    )


def test_a_page_is_closed_escaped_and_needs_no_network():
    html = whole_page()
    reader = Reader(html)
    assert "script" not in reader.tags
    assert "".join(reader.words).count(EVIL) >= 7
    # Namespaces are names, not addresses; anything else that is fetched must be in the page.
    fetched = [value for name, value in reader.attributes if name in ("src", "href", "xlink:href") and value]
    assert all(re.match(r"data:|#|[a-z]", value) and "//" not in value for value in fetched)
    assert ("alt", EVIL) in reader.attributes
    assert ("href", "a b.html?x=1&y=2") in reader.attributes
    assert base64.b64encode(b"\xff\xd8 jpeg").decode() in html
    assert "url(http" not in html
    assert "@import" not in html


def test_numbers_are_grouped_and_right_aligned():
    html = str(report.table(["a", "b", "c"], [["x", 1_234_567, 0.123456], ["y", 5, 12_345.6]]))
    cells = re.findall(r"<td( class=\"number\")?>([^<]*)</td>", html)
    assert cells == [("", "x"), (' class="number"', "1,234,567"), (' class="number"', "0.1235"), ("", "y"),
                     (' class="number"', "5"), (' class="number"', "12,346")]  # fmt: skip


@pytest.mark.parametrize(
    "chart",
    [
        lambda: report.line_chart({"a": ([1, 2, 3], [1, 4, 9])}, x="x", y="y"),
        lambda: report.bar_chart({"a": 1, "b": 2}, x="x", y="y"),
    ],
)
def test_charts_are_well_formed_svg_in_the_ink_of_the_page(chart):
    svg = str(chart()).removeprefix('<figure class="chart">').removesuffix("</figure>")
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "currentColor" in svg
    assert "#000000" not in svg  # black ink would vanish in dark mode
    assert "atplotlib" not in svg


def test_bars_have_the_heights_of_their_numbers():
    svg = str(report.bar_chart({"a": 1, "b": 3}, x="x", y="y"))
    paths = re.findall(r'<path d="([^"]+)"\s+clip-path="[^"]+" style="fill: #3b82c4', svg)
    heights = []
    for path in paths:
        ys = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        heights.append(max(ys) - min(ys))
    assert heights[1] == pytest.approx(3 * heights[0], rel=1e-3)


def test_the_same_page_in_another_process_is_the_same_bytes():
    code = (
        "from tests.sharding.test_report import whole_page; import sys; sys.stdout.buffer.write(whole_page().encode())"
    )
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True).stdout
    assert other == whole_page().encode()


def test_names_from_the_data_are_neither_formulas_nor_markup_and_keep_their_script() -> None:
    names = ["$\\frac{$", "a$b$", "<script>alert(1)</script>", "青"]
    for chart in (
        report.bar_chart(dict.fromkeys(names, 1.0), x="label", y="value", errors=dict.fromkeys(names, 0.5)),
        report.line_chart({name: ([1.0, 2.0], [2.0, 1.0]) for name in names}, x="step", y="value"),
    ):
        shown = html.unescape(str(chart))
        assert "<script>" not in str(chart)
        assert all(name in shown for name in names)
