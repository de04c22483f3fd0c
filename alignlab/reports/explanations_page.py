"""The page of explanations: tokens coloured by their values, and the nearest training rows."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from alignlab.explanations.explain import Explained
    from alignlab.explanations.record import Explanation

LEVELS = 5  # of colour, for values above 0 and for those below


def write_page(path: Path, title: str, items: "Sequence[Explained]", rollouts: "Sequence[Explanation]") -> Path:
    """Write the page; return its path."""
    write_text(path, render("explanations.html", title=title, items=items, rollouts=rollouts, numbered=numbered))
    return path


def numbered(tokens: Sequence[str], values: Sequence[float]) -> Iterator[tuple[str, float, str]]:
    """Yield each token with its value and the class of its colour, relative to the largest value of the row."""
    largest = max(map(abs, values), default=0.0)
    for text, value in zip(tokens, values, strict=True):
        yield text, value, level(value / largest if largest else 0.0)


def level(share: float) -> str:
    """Return the class of a value between -1 and 1: p1 to p5 above 0, n1 to n5 below; near 0 it is `zero`."""
    if abs(share) < 0.05:
        return "zero"
    return f"{'p' if share > 0 else 'n'}{min(LEVELS, math.ceil(abs(share) * LEVELS))}"
