"""Suggest the name that a mistyped one may mean."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from alignlab.config.groups import Groups


def close_to(word: str, known: list[str]) -> str:
    """Return a suggestion for a mistyped or abbreviated word, or an empty text."""
    match = nearest(word, known)
    return f"did you mean {match!r}?" if match else ""


def nearest(word: str, known: list[str]) -> str:
    """Return the known word that a mistyped or abbreviated one (`lr`, `epochs`) may mean, or an empty text."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    matches += [name for name in known if len(word) > 2 and word in name]
    matches += [name for name in known if word == "".join(part[0] for part in name.split("_"))]
    return matches[0] if matches else ""


def suggestion(key: str, known: list[str], tree: Mapping[str, Any], where: str, groups: Groups) -> str:
    """Return a hint for an unknown key: an option that has it, a similar key, the same key elsewhere, or all keys."""
    group = where.rpartition(".")[0]
    others = groups.options_with(group) if group else {}
    if key in others:
        return f"{_named(group, others[key], 'and')} {'has' if len(others[key]) == 1 else 'have'} it"
    if hint := close_to(key, known):
        return hint
    if match := nearest(key, list(others)):
        return f"did you mean {match!r}, of {_named(group, others[match], 'or')}?"
    elsewhere = [place for place in _places(tree, ()) if place.split(".")[-1] == key and place != where]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    if not group and key in (others := groups.options_with("method")):
        return f"did you mean 'method.{key}', of {_named('method', others[key], 'or')}?"
    return f"there is {', '.join(known)}" if known else ""


def _named(group: str, options: list[str], word: str) -> str:
    return f" {word} ".join(f"{group}={option}" for option in options)


def _places(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    for key, value in tree.items():
        yield ".".join((*above, key))
        if isinstance(value, Mapping):
            yield from _places(value, (*above, key))
