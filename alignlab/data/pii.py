"""Mask personal data: what can be told by its form is replaced by the name of what it was.

Patterns are strict where a loose one would hit innocent numbers: cards must pass Luhn's check, IBANs the one of
ISO 7064, IPv4 numbers stay below 256, and a phone number needs a country's prefix or the usual separators.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from alignlab.config.dataset import Masking
from alignlab.data.ledger import Row, Step, Tally


class Kind(NamedTuple):
    """One kind of personal data: how it looks, and a check that a find has to pass."""

    pattern: re.Pattern[str]
    holds: Callable[[str], bool]


def luhn(number: str) -> bool:
    """Luhn's check, which every payment card passes (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in number if letter.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod_97(number: str) -> bool:
    """The check of ISO 7064 that every IBAN passes."""
    plain = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _always(_: str) -> bool:
    return True


PHONE = r"(?<![\w+.])(?:\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?!\d)"
BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
KINDS = {
    "email": Kind(re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?<![.-])"), _always),
    "iban": Kind(re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), mod_97),
    "card": Kind(re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d|\d)"), luhn),
    "ip": Kind(
        re.compile(rf"(?<![\d.])(?:{BYTE}\.){{3}}{BYTE}(?!\.?\d)|\b(?:[0-9a-fA-F]{{1,4}}:){{7}}[0-9a-fA-F]{{1,4}}\b"),
        _always,
    ),
    "ssn": Kind(re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _always),
    "phone": Kind(re.compile(PHONE), _always),
}


def masked(text: str, kinds: Iterable[str]) -> str:
    """Replace what is found by its kind in brackets: `[email]`."""
    for name in kinds:
        kind = KINDS[name]
        text = kind.pattern.sub(lambda found: f"[{name}]" if kind.holds(found[0]) else found[0], text)  # noqa: B023
    return text


def mask(settings: Masking) -> Step | None:
    """The step that masks what the settings name; None where that is nothing."""
    kinds = [name for name in KINDS if name in settings.kinds]
    if not kinds:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            done = row.mapped(lambda text: masked(text, kinds))
            for name in kinds:
                mark = f"[{name}]"
                tally.changed[name] += sum(t.count(mark) for t in done.texts()) > sum(
                    t.count(mark) for t in row.texts()
                )
            if settings.truth is not None:
                tally.notes[outcome(row, done)] += 1
            yield done

    return step


def outcome(row: Row, done: Row) -> str:
    """What masking made of a row of which the truth is known."""
    if not row.truth.strip():
        return "false alarm" if done != row else "left alone, rightly"
    return "missed" if any(row.truth in text for text in done.texts()) or done == row else "found"
