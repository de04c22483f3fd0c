"""Mend what collecting breaks: encodings read wrongly, markup, stray blanks, placeholders for missing values.

Each mending is a function from text to text that leaves clean text as it is, so that a change is a find.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from alignlab.config.dataset import Cleaning
from alignlab.data.ledger import Row, Step, Tally

TAGS = (
    "a|abbr|b|blockquote|body|br|center|code|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|li|link|meta|ol|p|pre|"
    "script|small|span|strong|style|sub|sup|table|tbody|td|th|thead|tr|u|ul"
)
HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.{0,20000}?</\1\s*>", re.IGNORECASE | re.DOTALL)
BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]*>(?=.)", re.IGNORECASE | re.DOTALL)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")


def _as_bytes() -> dict[str, int]:
    """What each byte looks like when it is read as if it were Windows' Western encoding."""
    return {bytes([value]).decode("cp1252", "ignore") or chr(value): value for value in range(0x80, 0x100)}


BYTES = _as_bytes()
MISREAD = re.compile(
    "(?:[{two}][{rest}]|[{three}][{rest}]{{2}}|[{four}][{rest}]{{3}})+".format(
        two="".join(re.escape(c) for c, byte in BYTES.items() if 0xC2 <= byte < 0xE0),
        three="".join(re.escape(c) for c, byte in BYTES.items() if 0xE0 <= byte < 0xF0),
        four="".join(re.escape(c) for c, byte in BYTES.items() if 0xF0 <= byte < 0xF5),
        rest="".join(re.escape(c) for c, byte in BYTES.items() if 0x80 <= byte < 0xC0),
    )
)


def encoding(text: str) -> str:
    """Read again, as UTF-8, what was UTF-8 and was read as Windows-1252 (`â€œ` for a curly quote)."""
    return MISREAD.sub(_reread, text)


def _reread(found: "re.Match[str]") -> str:
    try:
        return bytes(BYTES[letter] for letter in found[0]).decode("utf-8")
    except UnicodeDecodeError:
        return found[0]


def markup(text: str) -> str:
    """Take out HTML tags, scripts and entities; `x < y` and `<stdio.h>` are no tags and stay."""
    bare = TAG.sub("", BREAK.sub("\n", HIDDEN.sub("", text)))
    bare = ENTITY.sub(lambda found: html.unescape(found[0]), bare)
    return text if bare == text else bare.strip()


def spaces(text: str) -> str:
    """Compose letters (NFC), drop what cannot be seen, make runs of blanks one and of empty lines one."""
    plain = INVISIBLE.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")))
    return BLANK_LINES.sub("\n\n", BLANKS.sub(" ", plain)).strip()


MENDINGS: dict[str, Callable[[str], str]] = {"encoding": encoding, "markup": markup, "spaces": spaces}


def clean(settings: Cleaning) -> Step | None:
    """The step that does what the settings turn on; None where that is nothing."""
    on = {name: mend for name, mend in MENDINGS.items() if getattr(settings, name)}
    absent = {word.casefold() for word in settings.missing}
    if not on and not absent:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if lost := missing(row, absent):
                tally.dropped[f"missing: {lost}"] += 1
                continue
            for name, mend in on.items():
                mended = row.mapped(mend)
                tally.changed[name] += mended != row
                row = mended
            yield row

    return step


def missing(row: Row, absent: set[str]) -> str:
    """Which part of a row is nothing but a placeholder for a missing value, or nothing."""
    if row.prompt and row.prompt[-1]["content"].strip().casefold() in absent:
        return "prompt"
    return "completion" if any(text.strip().casefold() in absent for text in row.completions) else ""
