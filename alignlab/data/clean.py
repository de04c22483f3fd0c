"""Fix common faults of collected text: wrong encodings, markup, superfluous spaces, placeholders for missing values.

Each fix is a function from text to text that leaves clean text unchanged, so that every change is a fault.
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


def _windows_bytes() -> dict[str, int]:
    """Map the characters that Windows-1252 (Latin-1 where it has none) gives the bytes from 0x80 to those bytes."""
    return {bytes([value]).decode("cp1252", "ignore") or chr(value): value for value in range(0x80, 0x100)}


BYTES = _windows_bytes()
MISREAD = re.compile(
    "(?:[{two}][{rest}]|[{three}][{rest}]{{2}}|[{four}][{rest}]{{3}})+".format(
        two="".join(re.escape(c) for c, byte in BYTES.items() if 0xC2 <= byte < 0xE0),
        three="".join(re.escape(c) for c, byte in BYTES.items() if 0xE0 <= byte < 0xF0),
        four="".join(re.escape(c) for c, byte in BYTES.items() if 0xF0 <= byte < 0xF5),
        rest="".join(re.escape(c) for c, byte in BYTES.items() if 0x80 <= byte < 0xC0),
    )
)


def clean(settings: Cleaning) -> Step | None:
    """Return the step that applies the fixes that the settings turn on; None if there are none."""
    fixes = {name: fix for name, fix in FIXES.items() if getattr(settings, name)}
    placeholders = {word.casefold() for word in settings.missing}
    if not fixes and not placeholders:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if field := missing_field(row, placeholders):
                tally.dropped[f"missing: {field}"] += 1
                continue
            for name, fix in fixes.items():
                fixed = row.map_texts(fix)
                tally.changed[name] += fixed != row
                row = fixed
            yield row

    return step


def fix_encoding(text: str) -> str:
    """Decode UTF-8 that was decoded as Windows-1252 (`â€œ` for a curly quote)."""
    return MISREAD.sub(_decode_again, text)


def _decode_again(match: "re.Match[str]") -> str:
    try:
        return bytes(BYTES[letter] for letter in match[0]).decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def strip_markup(text: str) -> str:
    """Remove HTML tags, scripts and entities; `x < y` and `<stdio.h>` are not tags and stay."""
    plain = TAG.sub("", BREAK.sub("\n", HIDDEN.sub("", text)))
    plain = ENTITY.sub(lambda match: html.unescape(match[0]), plain)
    return text if plain == text else plain.strip()


def normalise_spaces(text: str) -> str:
    """Compose letters (NFC), drop invisible characters, and reduce runs of spaces and of empty lines to one."""
    plain = INVISIBLE.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")))
    return BLANK_LINES.sub("\n\n", BLANKS.sub(" ", plain)).strip()


FIXES: dict[str, Callable[[str], str]] = {
    "encoding": fix_encoding, "markup": strip_markup, "spaces": normalise_spaces,
}  # fmt: skip


def missing_field(row: Row, placeholders: set[str]) -> str:
    """Return the field of a row that is only a placeholder for a missing value; empty if there is none."""
    if row.prompt and row.prompt[-1]["content"].strip().casefold() in placeholders:
        return "prompt"
    return "completion" if any(text.strip().casefold() in placeholders for text in row.completions) else ""
