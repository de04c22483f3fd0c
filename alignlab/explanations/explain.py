"""Explain one prompt by all methods that its models allow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from alignlab.chat import Turn
from alignlab.explanations import integrated_gradients, log_ratio, nearest
from alignlab.explanations.nearest import Embedded, Row
from alignlab.explanations.record import Explanation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignlab.rewards.classifier import Classifier
    from alignlab.rewards.reward_model import RewardModel

MOST_TOKENS = 48  # of a completion that is written to be explained


class Models(NamedTuple):
    """What explanations read: a policy, its reference, what scores completions, and training rows.

    `embedded` are the policy's embeddings of the rows' prompts. The reference and the judge are None where there are
    none.
    """

    policy: Any
    tokenizer: "PreTrainedTokenizerBase"
    reference: Any | None
    judge: "RewardModel | Classifier | None"
    rows: Sequence[Row]
    embedded: Embedded | None
    neighbours: int


class Explained(TypedDict):
    """A prompt, its completion, and what each method says."""

    prompt: list[Turn]
    completion: str
    explanations: list[Explanation]


def explain(models: Models, prompt: Sequence[Turn], completion: str | None) -> Explained:
    """Explain a completion, by default the policy's likeliest one."""
    from alignlab.rewards.classifier import Classifier

    policy, tokenizer = models.policy, models.tokenizer
    answer = likeliest(policy, tokenizer, prompt) if completion is None else completion
    explanations = []
    if models.judge is not None and answer.strip():
        attribute: Any = integrated_gradients.of_reward_model
        if isinstance(models.judge, Classifier):
            attribute = integrated_gradients.of_classifier
        explanations.append(attribute(models.judge, prompt, answer))
    if models.reference is not None:
        explanations.append(log_ratio.explain(policy, models.reference, tokenizer, prompt, answer))
    if models.embedded is not None:
        near = models.rows, models.embedded, models.neighbours
        explanations.append(nearest.by_embeddings(policy, tokenizer, prompt, *near))
        explanations.append(nearest.by_words(prompt, models.rows, models.neighbours))
    return {"prompt": list(prompt), "completion": answer, "explanations": explanations}


def likeliest(policy: Any, tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Turn]) -> str:
    """Return the completion that takes the likeliest token each time."""
    from alignlab.models.sampling import Sampling, sample
    from alignlab.models.token_choice import LIKELIEST

    (completion,) = sample(policy, tokenizer, [prompt], Sampling(LIKELIEST, 1.0, MOST_TOKENS, 1), 0)
    return completion.text
