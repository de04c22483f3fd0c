"""Prove on a model that it keeps the documents of a packed row apart, before it is trained on such rows.

Some models attend across documents or carry a state from one to the next (ALiBi, recurrent layers, positions of their
own). No list of architectures stays complete, so two documents are read packed and alone, as TRL's collator packs them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.errors import failure
from alignlab.runtime import sharding
from alignlab.runtime.worker_errors import is_out_of_memory

EXACT, ROUNDED = 1e-4, 0.1  # the largest distance by rounding in float32 and in bfloat16; SmolLM2 has 2e-6 and 0.02
FIRST, SECOND = 7, 11  # tokens of the probe's documents; each is longer than the convolutions of recurrent layers


def check_packing(model: Any) -> None:
    """Raise a `Failure` where the logits of a packed document are not those of the document alone."""
    training = model.training
    model.eval()
    try:
        with sharding.gather_weights(model), torch.random.fork_rng(), torch.no_grad():
            apart = isolates(model)
    finally:
        model.train(training)
    if not apart:
        what = f"{model.config.model_type} does not keep the documents of a packed row apart"
        raise failure("method.packing", what, "use method.packing=false")


def isolates(model: Any) -> bool:
    """Return whether two packed documents have the logits that each has alone, and the second ignores the first."""
    size = model.config.get_text_config().vocab_size
    first, second, other = (
        [3 + 5 * (place + start) % (size - 5) for place in range(length)]
        for start, length in ((0, FIRST), (FIRST, SECOND), (FIRST + SECOND, FIRST))
    )
    try:
        packed, changed = (logits(model, documents) for documents in ([first, second], [other, second]))
        alone = torch.cat([logits(model, [first]), logits(model, [second])])
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return False  # its class cannot read such rows
    same = distance(packed, alone) < (EXACT if packed.dtype == torch.float32 else ROUNDED)
    return same and torch.allclose(packed[FIRST:], changed[FIRST:], rtol=1e-5, atol=1e-5)


def distance(logits: Tensor, others: Tensor) -> float:
    """Return how far logits are from others, relative to these; softmax ignores the mean of each token's logits."""
    first, second = (each.float() - each.float().mean(-1, keepdim=True) for each in (logits, others))
    return float(((first - second).norm() / second.norm()).item())


def logits(model: Any, documents: Sequence[Sequence[int]]) -> Tensor:  # [tokens, vocabulary]
    """Return the logits of documents in one row."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    ids = [token for document in documents for token in document]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": ids, "seq_lengths": [len(document) for document in documents]}])
    inputs = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }
    scores: Tensor = model(**inputs, use_cache=False).logits[0]
    return scores
