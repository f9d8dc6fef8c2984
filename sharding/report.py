"""Static HTML pages: one file that opens from disk without a network, the same bytes for the same numbers.

Dataset reports, run curves and the demo's index are all made of these blocks, so that they look alike and so that
escaping, phone width and dark mode are settled in one place. Charts are inline SVG whose ink follows the page's
text colour. Nothing here writes a date, a version or a host name.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header><h1>{{ title }}</h1>{% if subtitle %}<p class="subtitle">{{ subtitle }}</p>{% endif %}</header>
<main>
{% for part in sections %}{{ part }}
{% endfor %}</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5d6872; --paper: #fbfbf9; --card: #ffffff; --line: #e2e4e1;
  --link: #1f5f99; --stripe: #f4f5f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa5af; --paper: #14181c; --card: #1b2026;
  --line: #2e353c; --link: #7fb6ea; --stripe: #20262d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 0.75rem; }
p { margin: 0 0 0.75rem; max-width: 46rem; }
.subtitle { color: var(--soft); margin: 0.4rem 0 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem 1.4rem;
  margin-top: 1.25rem; }
section > :last-child { margin-bottom: 0; }
a { color: var(--link); }
.scroll { overflow-x: auto; margin: 0 0 0.9rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); white-space: nowrap; }
th, td { padding: 0.3rem 1.1rem 0.3rem 0; vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
tbody tr + tr td { border-top: 1px solid var(--line); }
td { overflow-wrap: break-word; max-width: 34rem; }
details { margin: 0 0 0.9rem; } summary { cursor: pointer; color: var(--link); margin-bottom: 0.5rem; }
figure { margin: 0 0 0.9rem; }
figure.chart svg { width: 100%; max-width: 40rem; height: auto; display: block; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.9rem; margin: 0 0 0.9rem; }
.photos figure { margin: 0; min-width: 0; }
.photos img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 6px; display: block; background: var(--stripe); }
.photos figcaption { font-size: 0.8rem; line-height: 1.35; color: var(--soft); margin-top: 0.3rem; overflow-wrap: anywhere; }
ul.links { list-style: none; padding: 0; margin: 0 0 0.9rem; display: flex; flex-wrap: wrap; gap: 0.4rem 1.4rem; }
"""

_SECTION = """<section>
<h2>{{ title }}</h2>
{% for block in blocks %}{{ block }}
{% endfor %}</section>"""

_TABLE = """<div class="scroll"><table>
<thead><tr>{% for name in header %}<th{% if numeric[loop.index0] %} class="number"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td{% if numeric[loop.index0] %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>"""

_PHOTOS = """<div class="photos">
{% for uri, caption in photos %}<figure><img src="{{ uri }}" alt="{{ caption }}" loading="lazy"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}</div>"""

_LINKS = (
    """<ul class="links">{% for words, href in items %}<li><a href="{{ href }}">{{ words }}</a></li>{% endfor %}</ul>"""
)

# Matplotlib draws in these two stand-in colours; the page swaps them for its own ink, so that charts follow dark mode.
_INK, _GRID = "#010203", "#010204"
_COLOURS = ("#3b82c4", "#d9822b", "#3f9b6c", "#c2527f", "#8b6fc9", "#8a8f45", "#2fa4a8", "#b5653f")


def page(title: str, *sections: Markup, subtitle: str = "") -> str:
    """A whole self-contained page: `title` and `subtitle` are escaped, sections stand one below the other."""
    from markupsafe import Markup

    return str(_render(_PAGE, title=title, subtitle=subtitle, sections=sections, style=Markup(_STYLE)))


def section(title: str, *blocks: Markup) -> Markup:
    """A titled card holding the blocks in order."""
    return _render(_SECTION, title=title, blocks=blocks)


def text(words: str) -> Markup:
    """One paragraph of plain words."""
    return _render("<p>{{ words }}</p>", words=words)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table; columns that hold only numbers are right-aligned. A cell made by `links` or `text` stays markup."""
    body = [list(row) for row in rows]
    numeric = [
        bool(body) and all(isinstance(row[i], int | float) and not isinstance(row[i], bool) for row in body)
        for i in range(len(header))
    ]
    shown = [[_number(cell) for cell in row] for row in body]
    return _render(_TABLE, header=header, rows=shown, numeric=numeric)


def fold(summary: str, *blocks: Markup) -> Markup:
    """Blocks that stay closed until the reader opens them: for long tables."""
    template = "<details><summary>{{ summary }}</summary>\n{% for block in blocks %}{{ block }}\n{% endfor %}</details>"
    return _render(template, summary=summary, blocks=blocks)


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
) -> Markup:
    """Lines named by `series` (name -> x values, y values) with axis titles `x` and `y`; inline SVG."""
    figure, axes = _axes(x, y)
    for index, (name, (xs, ys)) in enumerate(series.items()):
        marker = "o" if len(xs) <= 30 else None
        axes.plot(
            xs,
            ys,
            label=_plain(name),
            color=_COLOURS[index % len(_COLOURS)],
            linewidth=1.8,
            marker=marker,
            markersize=3.5,
        )
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure, f"{y} against {x}: {', '.join(series)}")


def bar_chart(bars: Mapping[str, float], *, x: str, y: str, errors: Mapping[str, float] | None = None) -> Markup:
    """One bar per name, with an error bar of +-`errors[name]` where given; inline SVG."""
    figure, axes = _axes(x, y)
    names = [_plain(name) for name in bars]
    deviations = [errors.get(name, 0.0) for name in bars] if errors else None
    axes.bar(
        range(len(names)), list(bars.values()), color=_COLOURS[0], width=0.7, yerr=deviations, ecolor=_INK, capsize=4
    )
    crowded = sum(map(len, names)) > 60
    axes.set_xticks(range(len(names)), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.grid(False, axis="x")
    return _svg(figure, f"{y} for each {x}")


def photo_grid(photos: Iterable[tuple[bytes, str]]) -> Markup:
    """JPEG bytes with captions, embedded in the page; the caption is the alternative text as well."""
    uris = [("data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"), caption) for jpeg, caption in photos]
    return _render(_PHOTOS, photos=uris)


def links(items: Mapping[str, str]) -> Markup:
    """Words -> relative address, as a row of links."""
    return _render(_LINKS, items=list(items.items()))


def _render(template: str, **values: object) -> Markup:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return Markup(environment.from_string(template).render(**values))


def _number(cell: object) -> object:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.4g}" if abs(cell) < 10_000 else f"{cell:,.0f}"


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.tick_params(which="both", colors=_INK)
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    return figure, axes


def _plain(name: str) -> str:
    """A name from the user's data, in which a dollar is no formula."""
    return name.replace("$", r"\$")


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an <svg> element that scales with the page and takes the page's ink."""
    import matplotlib
    from markupsafe import Markup, escape

    drawn = io.StringIO()
    # Ids hashed with a fixed salt, and no metadata block: the same numbers give the same bytes.
    # Letters stay text, so that the reader's own fonts show the scripts that matplotlib's font lacks.
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {"svg.hashsalt": "omnishard", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 10}
        ),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">',
        svg,
        count=1,
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # groups of two charts on one page would share their ids
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    return Markup('<figure class="chart">' + svg + "</figure>")
