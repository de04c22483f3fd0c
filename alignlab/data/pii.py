"""Mask personal data that has a recognisable form: replace it by its kind in brackets, such as `[email]`.

Patterns are strict, so that other numbers are not masked: a card must pass the Luhn check, an IBAN the check of ISO
7064, the parts of an IPv4 address are below 256, and a phone number has a country code or the usual separators.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from alignlab.config.dataset import Masking
from alignlab.data.ledger import Row, Step, Tally


class Kind(NamedTuple):
    """One kind of personal data: its pattern, and a check that every match must pass."""

    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]


def luhn(number: str) -> bool:
    """Return whether the digits of a card number pass the Luhn check (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in number if letter.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod_97(number: str) -> bool:
    """Return whether an IBAN passes the check of ISO 7064 (MOD 97-10)."""
    plain = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _any(_: str) -> bool:
    return True


PHONE = r"(?<![\w+.])(?:\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?!\d)"
BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
KINDS = {
    "email": Kind(re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?<![.-])"), _any),
    "iban": Kind(re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), mod_97),
    "card": Kind(re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d|\d)"), luhn),
    "ip": Kind(
        re.compile(rf"(?<![\d.])(?:{BYTE}\.){{3}}{BYTE}(?!\.?\d)|\b(?:[0-9a-fA-F]{{1,4}}:){{7}}[0-9a-fA-F]{{1,4}}\b"),
        _any,
    ),
    "ssn": Kind(re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _any),
    "phone": Kind(re.compile(PHONE), _any),
}


def mask(settings: Masking) -> Step | None:
    """Return the step that masks the kinds in the settings; None if there are none."""
    kinds = [name for name in KINDS if name in settings.kinds]
    if not kinds:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            masked = row.map_texts(lambda text: mask_text(text, kinds))
            for name in kinds:
                tally.changed[name] += count_in(masked, f"[{name}]") > count_in(row, f"[{name}]")
            if settings.truth is not None:
                tally.notes[outcome(row, masked)] += 1
            yield masked

    return step


def mask_text(text: str, kinds: Iterable[str]) -> str:
    """Replace personal data by its kind in brackets."""
    for name in kinds:
        kind = KINDS[name]
        text = kind.pattern.sub(
            lambda match: f"[{name}]" if kind.is_valid(match[0]) else match[0],  # noqa: B023 - called before the next kind
            text,
        )
    return text


def count_in(row: Row, part: str) -> int:
    """Count the occurrences of a string in the texts of a row."""
    return sum(text.count(part) for text in row.texts())


def outcome(row: Row, masked: Row) -> str:
    """Return the outcome of masking a row whose personal data is known."""
    if not row.truth.strip():
        return "false alarm" if masked != row else "nothing to mask"
    return "missed" if any(row.truth in text for text in masked.texts()) or masked == row else "found"
