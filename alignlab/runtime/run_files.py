"""Names and records of the files in a run's folder that code below `alignlab.pipeline` writes or reads.

`alignlab.pipeline.run_folder` owns the folder as a whole: it adds the files of a run and reads them all.
"""

from pathlib import Path
from typing import Any, TypedDict

from alignlab.chat import Turn
from alignlab.runtime.files import read_lines

RESULT = "result.json"  # of a run and of each of its stages; the run's is that of its last stage
METRICS = "metrics.jsonl"  # per logged step: `step`, and the value of each metric; null where it was not finite
TABLES = "tables.jsonl"  # one object per logged table
ROW_COUNTS = "rows.json"  # the number of training rows by author
PRECISION = "precision.json"  # a `PrecisionRecord`
GATES = "gates.jsonl"  # one `TriggeredGate` per line
REVISIONS = "revisions.jsonl"  # one `RevisionRecord` per red-team prompt
LABELS = "labels.jsonl"  # of cai_rm and cai: one `LabelRecord` per pair; of task=preferences: one per prompt
PAIR_SCORES = "pair_scores.jsonl"  # one `PairScore` per held-out pair
ANSWERS = "answers.jsonl"  # of task=preferences: one line per prompt with its sampled completions
PREFERENCES = "preferences.json"  # of task=preferences: the facts of its report
SWEEP = "sweep.yaml"  # of a sweep: what it is; its runs lie in folders beside this file
BEST_OF_N = "best_of_n.json"  # one `BestOfN` per n
REJECTS = "rejects.jsonl"  # rows that could not be read, and why
ROLLOUT_TOKENS = "rollouts.jsonl"  # of ppo: one `RolloutTokens` per completion that is kept
CARD = "README.md"  # of a model or a data set, as the hub shows it


class TriggeredGate(TypedDict):
    """A gate that triggered; `step` is the rollout, or 0 before training."""

    step: int
    gate: str
    stage: str
    what: str
    number: float
    bound: str
    remedy: str


class RolloutTokens(TypedDict):
    """A completion that PPO sampled, its reward, and per token: text, log-ratio, KL in nats, and advantage."""

    rollout: int
    prompt: str
    reward: float
    tokens: list[str]
    log_ratio: list[float]
    kl: list[float]
    advantage: list[float]


class PrecisionRecord(TypedDict):
    """The dtypes of a stage as measured at its first optimizer step; each maps a dtype to a number of elements.

    `weights` are those that are trained, `frozen` the others of the same model. `master_weights` are what the optimizer
    steps on, and `moments` its running means. `matmuls` are the multiply-adds of linear layers by the dtype of their
    output, in each phase: update, rollout, measuring, reference, reward.
    """

    weights: dict[str, int]
    frozen: dict[str, int]
    gradients: dict[str, int]
    master_weights: dict[str, int]
    moments: dict[str, int]
    matmuls: dict[str, dict[str, int]]


class RevisionStep(TypedDict):
    """One round of critique and revision; `praised` means that the critique found nothing wrong."""

    principle: str
    critique: str
    praised: bool
    revision: str
    finished: bool
    accepted: bool


class RevisionRecord(TypedDict):
    """A red-team prompt, the first answer, and its rounds; `dropped` names the filter that left it out."""

    prompt: list[Turn]
    answer: str
    finished: bool
    steps: list[RevisionStep]
    dropped: str | None


class VerdictRecord(TypedDict):
    """The probability that the first completion is better: on average, and as read in each order."""

    label: float
    first: float
    second: float


class LabelRecord(TypedDict):
    """An AI label of a pair.

    `finished` says of both completions whether they ended by themselves. `likelier` is the log-probability of the first
    completion minus that of the second under the judge's model, in nats. `kept` means that training uses the label.
    """

    prompt: list[Turn]
    first: str
    second: str
    finished: list[bool]
    principle: str
    verdict: VerdictRecord
    likelier: float
    kept: bool


class PairScore(TypedDict):
    """A held-out pair with a reward model's rewards of both completions."""

    kind: str
    id: str
    prompt: list[Turn]
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float


def read_pair_scores(stage: Path) -> list[PairScore]:
    """Read the held-out pairs that a reward model scored; none where there is no file."""
    pairs: list[Any] = read_lines(stage / PAIR_SCORES)
    return pairs


def read_revisions(stage: Path) -> list[RevisionRecord]:
    """Read the critiques and revisions of a stage; none where it has none."""
    revisions: list[Any] = read_lines(stage / REVISIONS)
    return revisions


def read_rollout_tokens(stage: Path) -> list[RolloutTokens]:
    """Read the completions that PPO kept of a stage; none where it has none."""
    rows: list[Any] = read_lines(stage / ROLLOUT_TOKENS)
    return rows


def read_labels(stage: Path) -> list[LabelRecord]:
    """Read the AI labels of a stage; none where it has none."""
    labels: list[Any] = read_lines(stage / LABELS)
    return labels
