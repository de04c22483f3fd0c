"""Check the laws of dropout, packed pairs and packed documents on every decoder that transformers names.

    .venv/bin/python benchmarks/evidence.py decoder_laws  # two minutes on an idle core

The laws are those of `tests/test_architectures.py`, on a tiny model of each type. A type is refused where its config
cannot be shrunk, or where its class does not take what a law gives it; the reason is the error's own text.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

LAWS = {
    "dropout": "dropout 0 means none: two passes in train mode are equal",
    "pooled": "packed pairs, pooled head: scores equal plain ones to 1e-5, a completion's does not depend on the other",
    "last": "packed pairs, transformers' own head: the same law",
    "packing": "packed documents: logits equal those of each alone",
}
REFUSED = "refused: "
OUTCOMES = {"none": "equal", "refused": "refused (below)", "documents are not packed": "not packed"}


def decoder_laws() -> Iterator[str]:
    """Yield the outcomes of each law, then the types that are refused by their reasons."""
    from test_architectures import NAMES, laws_of

    table = {name: laws_of(name) for name in NAMES}
    broken = [name for name, laws in table.items() if "AssertionError" in str(laws)]
    yield f"{len(NAMES)} decoder types that transformers names, a tiny model of each (`benchmarks/decoder_laws.py`)."
    yield ""
    yield "| law | outcomes, in types |"
    yield "|---|---|"
    for law, words in LAWS.items():
        counts = Counter(outcome_of(laws[law]) for laws in table.values())
        yield f"| {words} | {', '.join(f'{count} {outcome}' for outcome, count in counts.most_common())} |"
    yield ""
    yield "In a plain layout pairs are not packed, and a run says so. Types that a law could not be tried on, by the"
    yield "first reason:"
    yield ""
    for reason, names in refused(table).items():
        yield f"- {reason}: {', '.join(names)}"
    yield ""
    end = f"**not met**: {', '.join(broken)}" if broken else "met: no law is broken by a type that is built"
    yield f"- {end}"


def outcome_of(text: str) -> str:
    """Return the outcome of a law without the number of tokens or the reason."""
    outcome = text.partition(": ")[0]
    if outcome.startswith("packed within"):
        return "packed within its window"
    return OUTCOMES.get(outcome, outcome)


def refused(table: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the types that some law refuses, by the first reason of each."""
    reasons: dict[str, list[str]] = {}
    for name, laws in table.items():
        if reason := next((text for text in laws.values() if text.startswith(REFUSED)), None):
            reasons.setdefault(reason.removeprefix(REFUSED)[:100], []).append(name)
    return reasons
