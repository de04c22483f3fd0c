"""A reward that is a Python function of the user's: (prompts, completions, finished) -> scores.

`prompts` holds conversations as lists of `{"role": …, "content": …}`, `completions` texts, `finished` whether each came
to an end by itself. A function with a fourth parameter, `references`, gets the data set's own answers too, where it
has them (else empty text). What the function returns is checked, and its source decides the stage's fingerprint.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config import user_function
from alignlab.config.dataset import DataSet
from alignlab.errors import failure


class FunctionOf(NamedTuple):
    """A function, the name that its reward goes by, and the answers that it compares with, by their prompts."""

    name: str
    function: Callable[..., list[float]]
    references: Mapping[str, str] | None = None

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Hand everything to the function, as lists of its own."""
        given: list[Any] = [[list(turns) for turns in prompts], list(completions), list(finished)]
        if self.references is not None:
            given.append([self.references.get(key(turns), "") for turns in prompts])
        return self.function(*given)


def load_function(where: str, name: str, dataset: DataSet | None = None) -> FunctionOf:
    """Import the function by its dotted name."""
    try:
        function = user_function.load(where)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise failure(f"reward {name}", f"{where} cannot be imported ({what})") from error
    if not callable(function):
        raise failure(f"reward {name}", f"{where} is a {type(function).__name__} and cannot be called")
    return FunctionOf(name, function, references(dataset) if compares(function) else None)


def compares(function: Callable[..., Any]) -> bool:
    """Whether a function asks for reference answers."""
    try:
        return "references" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def references(dataset: DataSet | None) -> dict[str, str]:
    """The answers of the training rows, by their prompts."""
    from alignlab.data import view

    rows = view(dataset, "demonstrations", "train").to_list() if dataset else []
    return {key(row["prompt"]): row["completion"] for row in rows}


def key(turns: Sequence[Turn]) -> str:
    """A conversation as text, to find it again."""
    return json.dumps([[turn["role"], turn["content"]] for turn in turns])
