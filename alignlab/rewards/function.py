"""A reward that is a Python function of the user's: (prompts, completions, finished) -> scores.

`prompts` holds conversations as lists of `{"role": …, "content": …}`, `completions` texts, and `finished` whether each
text ended by itself. A function with a fourth parameter, `references`, receives the data set's answers too (an empty
text where it has none). A function whose scores cannot leave a range declares it: `name.score_range = (0.0, 1.0)`. The
function returns a list of numbers, or a `Scored` record with named terms. Its source
decides the stage's fingerprint.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from alignlab.chat import Turn
from alignlab.config import user_function
from alignlab.config.dataset import DataSet
from alignlab.config.reward import FunctionReward
from alignlab.errors import failure
from alignlab.rewards.protocol import Context, Scored
from alignlab.runtime.worker_errors import must_reach_run


class FunctionOf(NamedTuple):
    """A function, the name of its reward, and the data set's answers by their prompts, where it wants them."""

    name: str
    function: Callable[..., Any]
    references: Mapping[str, str] | None = None

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Return the range that the function declares in an attribute of this name."""
        return getattr(self.function, "score_range", None)

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Call the function with copies of the lists."""
        arguments: list[Any] = [[list(turns) for turns in prompts], list(completions), list(finished)]
        if self.references is not None:
            arguments.append([self.references.get(key(turns), "") for turns in prompts])
        scores = self.function(*arguments)
        return scores if isinstance(scores, Scored) else Scored(scores)


def load(settings: FunctionReward, context: Context) -> FunctionOf:
    """Return the function as a reward, with the data set's answers where it wants them."""
    function = import_function(settings, context)
    answers = references(context.dataset) if wants_references(function) else None
    return FunctionOf(context.name(settings.kind), function, answers)


def import_function(settings: FunctionReward, context: Context) -> Callable[..., Any]:
    """Import the function by its dotted name; raises a `Failure` where that fails."""
    where, name = settings.function, context.name(settings.kind)
    try:
        function = user_function.load(where)
    except Exception as error:
        if must_reach_run(error):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise failure(
            f"reward {name}", f"{where} cannot be imported ({what}){user_function.place_of(error)}"
        ) from error
    if not callable(function):
        raise failure(f"reward {name}", f"{where} is a {type(function).__name__} and cannot be called")
    return cast("Callable[..., Any]", function)


def check(settings: FunctionReward, context: Context) -> None:
    """Import the function and compare its parameters with the call; raises a `Failure` where they differ.

    The function is not called: it may take long, or cost something.
    """
    function = import_function(settings, context)
    try:
        parameters = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    try:
        parameters.bind(*([None] * (4 if wants_references(function) else 3)))
    except TypeError as error:
        what = f"{settings.function}{parameters} cannot be called as (prompts, completions, finished): {error}"
        raise failure(f"reward {context.name(settings.kind)}", what, "see docs/rewards-and-gates.md") from error


def wants_references(function: Callable[..., Any]) -> bool:
    """Return whether a function has a parameter `references`."""
    try:
        return "references" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def references(dataset: DataSet | None) -> dict[str, str]:
    """Return the answers of the training rows by their prompts' keys."""
    from alignlab.data import view

    rows = view(dataset, "demonstrations", "train").to_list() if dataset else []
    return {key(row["prompt"]): row["completion"] for row in rows}


def key(turns: Sequence[Turn]) -> str:
    """Return a conversation as text, to look it up by."""
    return json.dumps([[turn["role"], turn["content"]] for turn in turns])
