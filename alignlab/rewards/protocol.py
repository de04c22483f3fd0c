"""The protocol of rewards: conversation turns and text in, a record of scores out.

A reward receives conversations as turns, completions as text, and whether each completion ended by itself. It never
sees token ids or a chat template, so policy and reward may have any two tokenizers.

`Checked` wraps every reward. It stops the run where a reward raises, reports an error, returns a number that is not
finite, or returns too many or too few; the message names the reward and the text.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from alignlab.chat import Turn
from alignlab.config import user_function
from alignlab.config.dataset import DataSet
from alignlab.config.hardware import Hardware
from alignlab.config.settings import path_in_home
from alignlab.errors import failure
from alignlab.runtime import distributed
from alignlab.runtime.worker_errors import must_reach_run

MEND = "mend it and give the same command again: the run resumes from its last checkpoint"
LARGEST = 1e15  # of a score without its sign: float32 holds its square
SHOWN = 120  # characters of a text in a message


class Scored(NamedTuple):
    """The scores of a batch of completions, in their order.

    total: the reward of each completion, [completions]; what a policy is trained on
    terms: named summands, [completions] each; where there are any, they add up to the total
    parts: unweighted scores of the rewards that this one is made of, by name (`a`, `several/first`); an ensemble's
        `spread`; and of a constraint the cost as it is read and calibrated, and its weight
    errors: why a completion could not be scored, by its place in the batch; its total means nothing
    """

    total: list[float]
    terms: Mapping[str, list[float]] = {}
    parts: Mapping[str, list[float]] = {}
    errors: Mapping[int, str] = {}


class Reward(Protocol):
    """Scores completions.

    A reward whose scores cannot leave a range has it in `score_range`, as (lowest, highest): PPO maps it to [-1, 1] and
    does not standardise. A reward that is made of others has them in `parts`, by name. One that learns while it is used
    (running statistics) has `state_dict` and `load_state_dict`; nothing else of a call may stay in it.
    """

    @property
    def name(self) -> str:
        """Return the name for messages, curves and tables."""
        ...

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score each completion after its prompt."""
        ...


class Context(NamedTuple):
    """What a kind of reward is loaded with besides its settings.

    inputs: folders of models; `reward_model` is the rm stage's, which a path `auto` means, and a model that a setting
        names lies under the place of that reward
    hardware: where models run
    place: where the settings stand in the config, such as `reward` or `reward.parts.a.reward`
    dataset: where a function that compares with reference answers finds them
    """

    inputs: Mapping[str, Path]
    hardware: Hardware
    place: str = "reward"
    dataset: DataSet | None = None

    def at(self, place: str) -> "Context":
        """Return the context of a reward that stands in these settings at a place such as `parts.a.reward`."""
        return self._replace(place=f"{self.place}.{place}")

    def name(self, kind: str) -> str:
        """Return the reward's name: its own in an ensemble or a mixture, else its kind."""
        names = self.place.removesuffix(".reward").split(".")
        return names[-1] if len(names) > 1 else kind

    def folder(self, path: str) -> Path:
        """Return the folder of the model that a setting names; one that is no input is a folder already.

        Raises a `Failure` for `auto` in a run without a reward model.
        """
        if path != "auto":
            return self.inputs.get(self.place, path_in_home(Path(path)))
        if "reward_model" not in self.inputs:
            what = "auto is the rm stage, and this run has none"
            raise failure(f"{self.place}.path", what, "give a reward model's folder")
        return self.inputs["reward_model"]


class Checked:
    """A reward whose totals, terms and parts are finite numbers, one a completion."""

    def __init__(self, reward: Reward) -> None:
        self.reward = reward

    @property
    def name(self) -> str:
        return self.reward.name

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Return the lowest and the highest score that there can be, or None where the reward declares none."""
        return getattr(self.reward, "score_range", None)

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score, or raise a `Failure` that names the reward and the text.

        Each of several processes scores its share and all of them return all scores. A reward with parts does not
        divide the work, since its parts do; one with running statistics has to see every completion.
        """
        if parts_of(self.reward) or hasattr(self.reward, "state_dict"):
            return self.score_here(prompts, completions, finished)

        def share(rows: list[int]) -> list[Scored]:
            if not rows:
                return []
            asked, texts = [prompts[row] for row in rows], [completions[row] for row in rows]
            return split(self.score_here(asked, texts, [finished[row] for row in rows]))

        return join(distributed.map_rows(len(completions), share))

    def score_here(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> Scored:
        """Score and check in this process alone."""
        try:
            scored = self.reward.score(prompts, completions, finished)
        except Exception as error:
            if must_reach_run(error):
                raise
            text = self.first_that_raises(prompts, completions, finished)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise self.failed(f"raised {what}{user_function.place_of(error)}", text) from error
        for place, why in sorted(scored.errors.items()):
            raise self.failed(f"gave no score ({why})", completions[place])
        terms, parts = (
            {name: self.numbers(values, completions, f" for {name}") for name, values in named.items()}
            for named in (scored.terms, scored.parts)
        )
        return Scored(self.numbers(scored.total, completions), terms, parts)

    def numbers(self, values: Any, completions: Sequence[str], where: str = "") -> list[float]:
        """Return the values as floats; raise a `Failure` unless there is one finite number a completion."""
        try:
            scores = list(values)
        except TypeError:
            what = f"gave {type(values).__name__}{where}, which is no list of scores,"
            raise self.failed(what, *completions[:1]) from None
        if len(scores) != len(completions):
            what = f"gave {len(scores)} scores{where} for {len(completions)} completions"
            raise self.failed(what, *completions[:1])
        for text, value in zip(completions, scores, strict=True):
            if isinstance(value, bool) or not is_number(value):
                raise self.failed(f"gave {value!r}{where}, which is no finite number,", text)
            if abs(value) > LARGEST:
                raise self.failed(f"gave {value!r}{where}, which is beyond {LARGEST:g},", text)
        return [float(value) for value in scores]

    def first_that_raises(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> str:
        """Return the first completion that the reward raises on when it is scored alone; else the first one."""
        for prompt, text, end in zip(prompts, completions, finished, strict=True):
            try:
                self.reward.score([prompt], [text], [end])
            except Exception as error:
                if must_reach_run(error):
                    raise
                return text
        return completions[0] if completions else ""

    def failed(self, what: str, *texts: str) -> Exception:
        """Build the failure that stops the run."""
        shown = "".join(f" on the text {text[:SHOWN]!r}{'…' * (len(text) > SHOWN)}" for text in texts[:1])
        return failure(f"reward {self.name}", what + shown, MEND)

    def state_dict(self) -> dict[str, Any]:
        """Return the reward's running statistics; empty for one without any."""
        return dict(self.reward.state_dict()) if hasattr(self.reward, "state_dict") else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        if hasattr(self.reward, "load_state_dict"):
            self.reward.load_state_dict(state)


def parts_of(reward: Reward) -> Mapping[str, Reward]:
    """Return the rewards that a reward is made of, by name; empty for a single one."""
    parts: Mapping[str, Reward] = getattr(reward, "parts", {})
    return parts


def split(scored: Scored) -> list[Scored]:
    """Return one record a completion; errors are left out."""
    return [
        Scored(
            [total],
            {name: [values[place]] for name, values in scored.terms.items()},
            {name: [values[place]] for name, values in scored.parts.items()},
        )
        for place, total in enumerate(scored.total)
    ]


def join(rows: Sequence[Scored]) -> Scored:
    """Return one record for the completions of several; all of them have the same terms and parts."""
    if not rows:
        return Scored([])
    return Scored(
        [total for row in rows for total in row.total],
        {name: [value for row in rows for value in row.terms[name]] for name in rows[0].terms},
        {name: [value for row in rows for value in row.parts[name]] for name in rows[0].parts},
    )


def is_number(value: Any) -> bool:
    """Return whether a score is a finite number of Python, numpy or torch."""
    try:
        return not isinstance(value, str | bytes) and isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
