"""Quote the values of a command line that Hydra's grammar cannot read: paths and texts with `(`, `é`, `#`, `=` or `~`.

A comma outside brackets separates the values of a sweep, as in Hydra, unless the whole value is an existing file.
"""

import re
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z_./+-][\w./+-]*", re.ASCII)  # Hydra reads these as they stand
NUMBER = re.compile(r"[+-]?[\d_.]+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
OPENING, CLOSING = "([{", ")]}"


def quote_value(argument: str) -> str:
    """Return a `key=value` argument with its value quoted where Hydra would refuse or misread it."""
    key, separator, value = argument.partition("=")
    if not separator or not value or PLAIN.fullmatch(value) or not readable(f"{key}=0"):
        return argument
    if names_file(value) and (key.endswith("path") or not NUMBER.fullmatch(value)):
        return f"{key}={in_quotes(value.replace('${', chr(92) + '${'))}"
    if readable(argument):
        return argument
    return f"{key}={','.join(map(quote_element, split_values(value)))}"


def quote_element(value: str) -> str:
    """Return one value of a sweep in Hydra's grammar; the elements of a list are quoted one by one."""
    if readable(f"key={value}"):
        return value
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(quote_element, split_values(value[1:-1])))}]"
    return in_quotes(value)


def readable(argument: str) -> bool:
    """Return whether an argument follows Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def in_quotes(text: str) -> str:
    """Return a text as a quoted value of Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double).with_quotes()


def names_file(value: str) -> bool:
    """Return whether a value, taken literally, is the path of an existing file or folder."""
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user after ~, a null character
        return False


def split_values(text: str) -> list[str]:
    """Split a text at the commas outside brackets and quotes; an unclosed bracket holds no comma back."""
    values, depth, quote = [""], 0, ""
    balanced = all(text.count(a) == text.count(b) for a, b in zip(OPENING, CLOSING, strict=True))
    for position, character in enumerate(text):
        if character == "," and not quote and (depth <= 0 or not balanced):
            values.append("")
            continue
        values[-1] += character
        if character == quote:
            quote = ""
        elif not quote and character in "'\"" and not values[-1].strip(" [{'\"") and character in text[position + 1 :]:
            quote = character
        elif not quote:
            depth += (character in OPENING) - (character in CLOSING)
    return values
