"""Turn docstrings as alignlab writes them into reStructuredText, which Sphinx reads.

They are plain paragraphs; lines such as `total: the reward of each completion` describe fields.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

FIELD = re.compile(r"^(\w+): (.+)$")
CODE = re.compile(r"(`[^`]*`)")


def as_rst(lines: Sequence[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText; what Python says of a field of a tuple is left out."""
    if lines and lines[0].startswith("Alias for field number"):
        return []
    rst: list[str] = []
    for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            rst += [*items(list(paragraph)), ""]
    return rst


def items(paragraph: list[str]) -> Iterator[str]:
    """Yield a paragraph on one line, or each of its fields as an item of a list."""
    fields: list[str] = []
    text: list[str] = []
    for line in paragraph:
        if FIELD.match(line):
            fields.append(line)
        elif fields and line.startswith(" "):
            fields[-1] += f" {line.strip()}"
        else:
            text.append(line.strip())
    if text:
        yield escaped(" ".join(text))
    if text and fields:
        yield ""
    for name, meaning in (match.groups() for field in fields if (match := FIELD.match(field))):
        yield f"* ``{name}``: {escaped(meaning)}"


def escaped(text: str) -> str:
    """Return text without the marks of reStructuredText, but for code between backticks."""
    parts = CODE.split(text)
    return "".join(f"`{part}`" if part[:1] == "`" else re.sub(r"([*|\\]|_\b)", r"\\\1", part) for part in parts)
