"""The implicit reward of a policy on held-out pairs: beta times its log-ratio to the reference (Rafailov et al. 2023).

It says whether DPO's policy prefers the chosen completions of pairs that it has not learned from. Pairs are cut as in
training. The reference is the model that the stage started from, whose own accuracy would be a half.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.chat import Encoded
from alignlab.data import view
from alignlab.evaluation.protocol import FinishedStage
from alignlab.evaluation.reward_model import wins
from alignlab.evaluation.scores import Measurement, Scores, measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignlab.config.hardware import Hardware

    Floats = NDArray[np.float64]


def measure_policy(stage: FinishedStage) -> list[Measurement]:
    """Return the share of held-out pairs whose chosen completion has the larger implicit reward, and the mean margin.

    They are as many pairs of each kind as there are evaluation prompts.
    """
    from alignlab.evaluation import select_per_kind

    settings = stage.config.evaluation
    rows = select_per_kind(view(stage.config.dataset, "pairs", settings.split).to_list(), settings.prompts)
    margin = stage.method.beta * margins(stage, rows)
    ids = tuple(row["id"] for row in rows)
    scores = (
        Scores("pairs/accuracy", wins(margin), ids, True, "higher"),
        Scores("pairs/margin", margin, ids, False, "higher"),
    )
    return [measurement(score, None, None, settings) for score in scores]


def margins(stage: FinishedStage, rows: Sequence[dict[str, Any]]) -> "Floats":
    """Return the log-ratio of policy and reference of the chosen completions minus that of the rejected ones, [n]."""
    policy, reference = (
        log_probs(path, rows, stage.method, stage.config.hardware)
        for path in (stage.folder / "model", stage.inputs["policy"].path)
    )
    ratios = policy - reference
    difference: Floats = ratios[:, 0] - ratios[:, 1]
    return difference


def log_probs(path: Path, rows: Sequence[dict[str, Any]], method: Any, hardware: "Hardware") -> "Floats":
    """Return a model's log-probability of both completions of each pair, [n, 2]."""
    from alignlab.models.load import load_policy
    from alignlab.models.log_probs import batches_by_length, completion_log_probs
    from alignlab.models.truncation import encode_pair

    model, tokenizer = load_policy(path, hardware)
    pairs = (encode_pair(tokenizer, row, method.max_length, method.prompt_share) for row in rows)
    encoded = [Encoded(prompt, completion) for prompt, *both in pairs for completion in both]
    values = np.zeros(len(encoded))
    for batch in completion_log_probs(model, encoded, batches_by_length(encoded)):
        for place, logps in batch.items():
            values[place] = float(logps.double().sum())
    return values.reshape(-1, 2)
