"""Suggest what a mistyped name may stand for."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from alignlab.config.groups import Groups


def close_to(word: str, known: list[str]) -> str:
    """Return a suggestion for a mistyped or shortened word, or an empty text."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else ""


def nearest(word: str, known: list[str]) -> str:
    """Return the word that a mistyped or shortened one (`lr`, `epochs`) may stand for, or an empty text."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near += [name for name in known if len(word) > 2 and word in name]
    near += [name for name in known if word == "".join(part[0] for part in name.split("_"))]
    return near[0] if near else ""


def suggestion(key: str, known: list[str], tree: Mapping[str, Any], where: str, groups: Groups) -> str:
    """Return what an unknown key may mean: another option's, a near one, the same elsewhere, or what there is."""
    group = where.rpartition(".")[0]
    others = groups.options_with(group) if group else {}
    if key in others:
        return f"{_named(group, others[key], 'and')} {'has' if len(others[key]) == 1 else 'have'} it"
    if near := close_to(key, known):
        return near
    if near := nearest(key, list(others)):
        return f"did you mean {near!r}, of {_named(group, others[near], 'or')}?"
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
