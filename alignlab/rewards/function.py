"""A reward that is a Python function of the user's: (prompts, completions, finished) -> scores.

`prompts` holds conversations as lists of `{"role": …, "content": …}`, `completions` texts, `finished` whether each came
to an end by itself. What the function returns is checked, and its source decides the stage's fingerprint.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from alignlab import dotted
from alignlab.chat import Turn
from alignlab.errors import failure


class FunctionOf(NamedTuple):
    """A function, and the name that its reward goes by."""

    name: str
    function: Callable[[list[list[Turn]], list[str], list[bool]], list[float]]

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Hand everything to the function, as lists of its own."""
        return self.function([list(turns) for turns in prompts], list(completions), list(finished))


def load_function(where: str, name: str) -> FunctionOf:
    """Import the function by its dotted name."""
    try:
        function = dotted.load(where)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise failure(f"reward {name}", f"{where} cannot be imported ({what})") from error
    if not callable(function):
        raise failure(f"reward {name}", f"{where} is a {type(function).__name__} and cannot be called")
    return FunctionOf(name, function)
