"""The exact KL of a trained model to the model that it started from, on the trained model's own completions.

At each token the divergence is summed over the whole vocabulary, so it has less variance than an estimate from the
sampled tokens. The value of a completion is the sum over its tokens, in nats: best of n, PPO and DPO are compared by
it. Both distributions are those of sampling: at its temperature, without the tokens that are never sampled, after the
prompt that sampling saw, at the tokens that it drew.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.evaluation.metrics import Record, mean
from alignlab.evaluation.replies import draw_key, journal_of
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.chat import Encoded
    from alignlab.evaluation.protocol import Context, Of
    from alignlab.evaluation.replies import Reply
    from alignlab.evaluation.subjects import LanguageModel
    from alignlab.models.sampling import Sampling

VERSION = 1
OF: "Of" = "stage"
VIEW = "prompts"  # the held-out rows that it needs
METRICS = (mean("eval/kl"),)


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return the KL to the model that the stage started from; nothing for a reward model."""
    from alignlab.evaluation.subjects import LanguageModel

    if context.stage is None or context.stage.makes != "policy":
        return
    policy = context.subject
    assert isinstance(policy, LanguageModel)
    reference = LanguageModel(context.stage.inputs["policy"].path, context.config.hardware)
    values = distances(policy, reference, replies, context.sampling, context.config.seed)
    for reply, value in zip(replies, values, strict=True):
        yield reply.record({"eval/kl": value})


def distances(
    policy: "LanguageModel", reference: "LanguageModel", replies: "Sequence[Reply]", sampling: "Sampling", seed: int
) -> list[float]:
    """Return the KL of a policy to a reference on the policy's own completions, nats per completion; cached."""
    keys = [draw_key(reply.item, 0) for reply in replies]
    how = sampling._asdict() | {"batch_size": None}
    with journal_of(policy, digest("kl", reference.fingerprint, how, seed)) as journal:
        new = {key: reply for key, reply in zip(keys, replies, strict=True) if key not in journal.rows}
        # An empty completion has a KL of 0.
        journal.add({"id": key, "kl": 0.0} for key, reply in new.items() if not reply.completions[0].tokens)
        asked = [key for key in new if key not in journal.rows]
        for batch in batch_distances(policy, reference, [new[key] for key in asked], sampling) if asked else ():
            journal.add({"id": asked[place], "kl": value} for place, value in batch.items())
    return [journal.rows[key]["kl"] for key in keys]


def batch_distances(
    policy: "LanguageModel", reference: "LanguageModel", replies: "Sequence[Reply]", sampling: "Sampling"
) -> Iterator[dict[int, float]]:
    """Yield batch by batch, by the reply's place, the KL of its completion."""
    import torch

    from alignlab.models.choices import select
    from alignlab.models.log_probs import Distribution, batches_by_length, compare_completions, completion_states
    from alignlab.models.sampling import masked_tokens, special_tokens
    from alignlab.models.token_choice import LIKELIEST

    (ours, tokenizer), (theirs, _) = policy.loaded, reference.loaded
    masked = masked_tokens(tokenizer, special_tokens(ours, tokenizer)[1])
    rows = encode_replies(policy, replies, sampling.max_new_tokens)
    distribution = Distribution(max(sampling.temperature, LIKELIEST), masked)
    for batch in batches_by_length(rows):
        part = [rows[place] for place in batch]
        with torch.inference_mode():
            (hidden, tokens, mask), (of_reference, *_) = (completion_states(model, part) for model in (ours, theirs))
            real = mask.bool()
            states, drawn = (select(hidden, real), select(of_reference, real)), tokens[real][None]
            kl = compare_completions(*states, drawn, torch.ones_like(drawn), distribution).exact_kl[0]
        sums = [float(one.double().sum()) for one in torch.split(kl, real.sum(1).tolist())]
        yield dict(zip(batch, sums, strict=True))


def encode_replies(policy: "LanguageModel", replies: "Sequence[Reply]", max_new_tokens: int) -> "list[Encoded]":
    """Return the token ids that sampling read and drew."""
    from alignlab.chat import Encoded
    from alignlab.models.truncation import encode_prompts, room_for_prompt

    model, tokenizer = policy.loaded
    room = room_for_prompt(model, max_new_tokens, "evaluation.max_new_tokens")
    prompts = encode_prompts(tokenizer, [reply.item.turns for reply in replies], room)
    return [Encoded(prompt, list(reply.completions[0].tokens)) for prompt, reply in zip(prompts, replies, strict=True)]
