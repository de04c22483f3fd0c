"""The request to rank answers, the JSON schema of the reply, and the reading in it."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from alignlab.chat import Turn
from alignlab.config.judge import OpenaiJudge
from alignlab.judges.protocol import Item, Reading
from alignlab.models.chat_client import UnusableAnswer


def question(item: Item, shown: Sequence[int], settings: OpenaiJudge) -> list[Turn]:
    """Return the request to rank some answers, as a conversation."""
    talk = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
    letters = ascii_uppercase[: len(shown)]
    answers = "\n\n".join(
        f"<answer {letter}>\n{item.answers[place]}\n</answer {letter}>"
        for letter, place in zip(letters, shown, strict=True)
    )
    criteria = "\n".join(f"- {name}: {text}" for name, text in settings.criteria.items())
    request = "\n\n".join(
        [
            f"<conversation>\n{talk}\n</conversation>",
            answers,
            f"Rank the answers from 1 (best) to {len(shown)} by each criterion:\n{criteria}",
            f"Answer with one JSON object of this form, with every letter of {', '.join(letters)}:\n{form(settings)}",
        ]
    )
    return [{"role": "system", "content": settings.instructions}, {"role": "user", "content": request}]


def form(settings: OpenaiJudge) -> str:
    """Return the form of the reply in words."""
    reason = '"reason": "…", ' if settings.reasons else ""
    ranks = ", ".join(f'"{name}": {{{reason}"rank": 1}}' for name in settings.criteria)
    return f'{{"A": {{{ranks}}}, …}}'


def schema(size: int, settings: OpenaiJudge) -> dict[str, Any]:
    """Return the form of the reply as a JSON schema."""
    reason = {"reason": {"type": "string"}} if settings.reasons else {}
    rank = closed({**reason, "rank": {"type": "integer", "enum": list(range(1, size + 1))}})
    answer = closed(dict.fromkeys(settings.criteria, rank))
    return closed(dict.fromkeys(ascii_uppercase[:size], answer))


def closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def read(value: Any, shown: list[int], settings: OpenaiJudge) -> Reading:
    """Return a reply as a reading; raises `UnusableAnswer` unless every rank is between 1 and the number of answers."""
    ranks: dict[str, list[int]] = {name: [] for name in settings.criteria}
    reasons = []
    for letter in ascii_uppercase[: len(shown)]:
        answer = value.get(letter) if isinstance(value, dict) else None
        if not isinstance(answer, dict):
            raise UnusableAnswer(f"answer {letter} is not ranked")
        for name in settings.criteria:
            ranks[name].append(read_rank(answer.get(name), letter, name, len(shown)))
        cells = [cell for cell in answer.values() if isinstance(cell, dict) and "reason" in cell]
        reasons.append(" ".join(str(cell["reason"]) for cell in cells))
    return Reading(settings.model, list(shown), ranks, reasons)


def read_rank(cell: Any, letter: str, criterion: str, most: int) -> int:
    """Return the rank in `{"rank": 1}` or in a plain number; raises `UnusableAnswer` where there is none."""
    rank = cell.get("rank") if isinstance(cell, dict) else cell
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
        raise UnusableAnswer(f"the rank of answer {letter} for {criterion} is no whole number from 1 to {most}")
    return rank
