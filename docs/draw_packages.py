"""Draw the packages of alignlab, a row per layer: `python docs/draw_packages.py` writes docs/packages.svg.

The layers are import-linter's in pyproject.toml, the descriptions those of the tree in README.md. Inside a page the
drawing takes the page's colour; as an image of its own it follows the reader's light or dark scheme.
"""

import re
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIDTH, GAP, MARGIN = 680, 8, 40
LOW, HIGH = 32, 56  # heights of a row with one box, and with several
STYLE = """<style>
:root.packages { color: #24292f }
@media (prefers-color-scheme: dark) { :root.packages { color: #e6edf3 } }
.packages rect { fill: currentColor; fill-opacity: .05; stroke: currentColor; stroke-opacity: .45 }
.packages path { fill: none; stroke: currentColor; stroke-opacity: .6 }
.packages text { fill: currentColor; font: 11px system-ui, sans-serif }
.packages .name { font-size: 13px; font-weight: 600 }
</style>"""


def layers() -> list[list[str]]:
    """Return the modules and packages of alignlab, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return [re.split(r" [|:] ", layer) for layer in contracts[0]["layers"]]


def descriptions() -> dict[str, str]:
    """Return what each module or package holds, by its name, from the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^  (\w+)(?:/|\.py) +(.+)$", readme, re.MULTILINE))


def drawing() -> str:
    """Return the drawing as SVG."""
    rows, texts = layers(), descriptions()
    tops = [GAP + sum(height(above) + GAP for above in rows[:place]) for place in range(len(rows) + 1)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tops[-1]}" class="packages" role="img"',
        '  aria-label="The packages of alignlab in layers; a package imports only from layers below it">',
        STYLE,
        f'<path d="M 26 {GAP} V {tops[-1] - GAP} m -5 -8 l 5 8 l 5 -8"/>',
        f'<text transform="translate(16 {tops[-1] // 2}) rotate(-90)" text-anchor="middle">imports</text>',
    ]
    for row, top in zip(rows, tops, strict=False):
        lines += boxes(row, texts, top)
    return "\n".join([*lines, "</svg>"]) + "\n"


def height(row: list[str]) -> int:
    """Return the height of a layer."""
    return LOW if len(row) == 1 else HIGH


def boxes(row: list[str], texts: dict[str, str], top: int) -> Iterator[str]:
    """Yield the boxes of one layer, side by side; a box that stands alone has its text on one line."""
    width = (WIDTH - MARGIN - 1 - GAP * (len(row) - 1)) // len(row)
    for place, name in enumerate(row):
        left = MARGIN + place * (width + GAP)
        yield f'<rect x="{left}" y="{top}" width="{width}" height="{height(row)}" rx="6"/>'
        yield f'<text x="{left + 10}" y="{top + 20}" class="name">{name}</text>'
        if len(row) == 1:
            yield f'<text x="{left + 120}" y="{top + 20}">{escape(texts[name])}</text>'
            continue
        for line, text in enumerate(textwrap.wrap(texts[name], (width - 20) // 6)):
            yield f'<text x="{left + 10}" y="{top + 35 + 13 * line}">{escape(text)}</text>'


if __name__ == "__main__":
    (ROOT / "docs" / "packages.svg").write_text(drawing(), encoding="utf-8")
