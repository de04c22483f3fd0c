"""The exact KL of a trained model to the model that it started from, on the trained model's own completions.

At each token the divergence is summed over the whole vocabulary, so it has less variance than an estimate from the
sampled tokens. The value of a completion is the sum over its tokens, in nats: best of n, PPO and DPO are compared by
it. Both distributions are those of sampling: at its temperature, without the tokens that are never sampled, after the
prompt that sampling saw.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.chat import Encoded, encode
from alignlab.config.schema import Config
from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Sample

OF: Of = "stage"
VIEW = "prompts"  # the held-out rows that it needs


def measure(stage: FinishedStage) -> list[Scores]:
    """Measure a policy's KL to the model that the stage started from; a reward model has none."""
    if stage.makes != "policy":
        return []
    return [distance(stage.folder / "model", stage.inputs["policy"].path, stage.samples, stage.config)]


def distance(policy: Path, reference: Path, samples: "Sequence[Sample]", config: Config) -> Scores:
    """Return the KL of a policy to a reference on the policy's own completions, nats per completion, [samples]."""
    import torch

    from alignlab.models.load import load_policy
    from alignlab.models.log_probs import Distribution, batches_by_length, compare_completions, completion_states
    from alignlab.models.sampling import masked_tokens, special_tokens

    (ours, tokenizer), (theirs, _) = (load_policy(path, config.hardware) for path in (policy, reference))
    masked = masked_tokens(tokenizer, special_tokens(ours, tokenizer)[1])
    encoded = {k: encode_sample(ours, tokenizer, sample, config) for k, sample in enumerate(samples)}
    numbers = [k for k, row in encoded.items() if row.completion]  # an empty completion has a KL of 0
    rows = [encoded[k] for k in numbers]
    values = np.zeros(len(samples))
    distribution = Distribution(config.evaluation.temperature, masked)
    for batch in batches_by_length(rows):
        part = [rows[row] for row in batch]
        with torch.inference_mode():
            (hidden, tokens, mask), (of_reference, *_) = (completion_states(model, part) for model in (ours, theirs))
            kl = compare_completions(hidden, of_reference, tokens, mask, distribution).exact_kl
        values[[numbers[row] for row in batch]] = [float(of[real].sum()) for of, real in zip(kl, mask > 0, strict=True)]
    return Scores("eval/kl", values, tuple(sample.id for sample in samples), False, "neither")


def encode_sample(model: Any, tokenizer: Any, sample: "Sample", config: Config) -> Encoded:
    """Return a sample as token ids, cut as in sampling; an unfinished completion has no end-of-turn token."""
    from alignlab.models.truncation import context_length, cut_prompt, cut_row, cut_turns, room_for_prompt, without_end

    room = room_for_prompt(model, config.evaluation.max_new_tokens, "evaluation.max_new_tokens")
    row = encode(tokenizer, cut_turns(tokenizer, sample.prompt, room), sample.completion)
    row = row if sample.finished else without_end(row, tokenizer)
    return cut_row(Encoded(cut_prompt(row.prompt, room), row.completion), context_length(model.config))
