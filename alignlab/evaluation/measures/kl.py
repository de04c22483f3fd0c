"""How far a stage has moved its model: the KL to the model that it started from, over the model's own answers.

At each token of an answer the divergence is summed over the whole vocabulary, so that nothing but the choice of
prompts and the answers' luck is left to chance; an answer's value is the sum over its tokens, in nats. It is what
best of n, PPO and DPO are compared at. Both distributions are those of sampling: at its temperature, without the
tokens that are never drawn.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.chat import Encoded, encode
from alignlab.config.schema import Config
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    import torch

    from alignlab.evaluation import Sample

TOKENS = 8192  # in one forward pass


def distance(policy: Path, reference: Path, samples: "Sequence[Sample]", config: Config) -> Scores:
    """The KL of a policy to a reference on the policy's own answers, nats an answer, [samples]."""
    import torch

    from alignlab import losses
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import never_sampled, special_tokens

    (ours, tokenizer), (theirs, _) = (load_policy(path, config.hardware) for path in (policy, reference))
    never = never_sampled(tokenizer, special_tokens(ours, tokenizer)[1])
    rows = [written(tokenizer, sample) for sample in samples]
    found = np.zeros(len(rows))
    for part in batches(rows):
        with torch.inference_mode():
            read, other = (
                logits(model, [rows[row] for row in part], config.evaluation.temperature, never)
                for model in (ours, theirs)
            )
            each = torch.split(losses.exact_kl(read, other), [len(rows[row].completion) for row in part])
        found[part] = [float(tokens.sum()) for tokens in each]
    return Scores("eval/kl", found, tuple(sample.id for sample in samples), False, "neither")


def written(tokenizer: Any, sample: "Sample") -> Encoded:
    """A prompt and an answer as token ids; an answer that was cut off has no end."""
    row = encode(tokenizer, sample.prompt, sample.completion)
    return row if sample.finished else row._replace(completion=row.completion[:-1])


def batches(rows: Sequence[Encoded]) -> Iterator[list[int]]:
    """The places of rows of like length, as many as one forward pass takes; rows without an answer are left out."""
    sizes = [len(row.prompt) + len(row.completion) for row in rows]
    order = sorted((row for row in range(len(rows)) if rows[row].completion), key=lambda row: sizes[row])
    while order:
        count = max(1, TOKENS // sizes[order[-1]])
        yield order[-count:]
        order = order[:-count]


def logits(model: Any, rows: Sequence[Encoded], temperature: float, never: Sequence[int]) -> "torch.Tensor":
    """What a model says of the answers' tokens, one row after the other, [tokens, vocabulary]."""
    import torch

    pad = torch.nn.utils.rnn.pad_sequence
    if model.config.is_encoder_decoder:
        prompts = [torch.tensor(row.prompt) for row in rows]
        begin = [model.config.decoder_start_token_id]
        read = [torch.tensor([*begin, *row.completion[:-1]]) for row in rows]
        mask = pad([torch.ones_like(prompt) for prompt in prompts], batch_first=True)
        inputs = {"input_ids": pad(prompts, batch_first=True), "attention_mask": mask}
        inputs["decoder_input_ids"] = pad(read, batch_first=True)
        starts = [0] * len(rows)
    else:
        both = [torch.tensor([*row.prompt, *row.completion[:-1]]) for row in rows]
        inputs = {"input_ids": pad(both, batch_first=True)}  # padding on the right is seen by no token before it
        starts = [len(row.prompt) - 1 for row in rows]
    whole = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
    kept = [
        whole[at, start : start + len(row.completion)] for at, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]
    found = torch.cat(kept).float() / temperature
    found[:, list(never)] = -torch.inf
    return found
