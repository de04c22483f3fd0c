"""What a policy changed against its reference, token by token: log-ratio and KL over a completion."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignlab.chat import Encoded, Turn, encode
from alignlab.explanations.record import Explanation, token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWS = (
    "The log-probability of each token under the policy minus that under the reference, in nats: above 0 the policy "
    "writes this token more often than its reference would here. KL is over all tokens that could have come here."
)
CANNOT_SHOW = (
    "They say what changed, not why. A log-ratio near 0 may hide a change that earlier tokens have made already, since "
    "both models read the same beginning."
)


def explain(
    policy: Any, reference: Any, tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Turn], completion: str
) -> Explanation:
    """Compare a policy with its reference on a completion; both have the same tokenizer."""
    import torch

    from alignlab.models.log_probs import PLAIN, compare_completions, completion_states

    row: Encoded = encode(tokenizer, prompt, completion)
    with torch.no_grad():
        ours, tokens, mask = completion_states(policy, [row])
        theirs, _, _ = completion_states(reference, [row])
        compared = compare_completions(ours, theirs, tokens, mask, PLAIN)
    real = mask[0].bool()
    ratio, kl = (compared.logps - compared.reference)[0][real], compared.exact_kl[0][real]
    return {
        "method": "log-ratio of policy and reference",
        "shows": SHOWS,
        "cannot_show": CANNOT_SHOW,
        "figures": {"log-ratio, sum": ratio.sum().item(), "KL, sum": kl.sum().item()},
        "tokens": token_texts(tokenizer, row.completion),
        "tracks": [
            {"name": "log-ratio", "unit": "nats", "values": ratio.tolist()},
            {"name": "KL", "unit": "nats", "values": kl.tolist()},
        ],
    }
