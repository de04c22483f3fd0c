"""Integrated gradients of a score over the tokens of a completion (Sundararajan et al. 2017), by Captum.

The score is a function of the completion's token embeddings; those of the prompt and of control tokens stay as they
are. The path leads from a baseline embedding at every other token to the token's own. The attributions of a completion
add up to its score minus the baseline's (completeness), within the error of the numerical integral.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from alignlab.chat import Turn
from alignlab.errors import failure
from alignlab.explanations.record import Explanation, token_texts

if TYPE_CHECKING:
    from alignlab.rewards.classifier import Classifier
    from alignlab.rewards.reward_model import RewardModel

FIRST_STEPS, MOST_STEPS = 32, 2048
TOLERANCE = 0.01
ROWS = 16  # points of the path in one forward pass
SHOWS = (
    "How much each token of the completion adds to the score, against a completion whose tokens are all the mean "
    "embedding. The values add up to the score minus that of this baseline."
)
CANNOT_SHOW = (
    "They depend on the baseline, share the effect of words that act together in one of many possible ways, and say "
    "nothing of words that could have been written instead. The prompt is held fixed."
)


class Attribution(NamedTuple):
    """Attributions [tokens], the scores at both ends of the path, the steps of the integral, and its error.

    The error is relative to the difference of the two scores.
    """

    values: Tensor
    score: float
    baseline: float
    steps: int
    error: float


def attribute(
    score: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, tolerance: float = TOLERANCE
) -> Attribution:
    """Return integrated gradients of `score`, [rows], over embeddings [1, tokens, width].

    The steps are doubled until the completeness error is at most `tolerance`, or `MOST_STEPS` are reached.
    """
    from captum.attr import IntegratedGradients

    method, steps = IntegratedGradients(score), FIRST_STEPS
    with torch.no_grad():
        high, low = score(inputs).item(), score(baseline).item()
    while True:
        values = method.attribute(
            inputs, baselines=baseline, n_steps=steps, method="gausslegendre", internal_batch_size=ROWS
        ).sum(-1)[0]
        error = abs(values.sum().item() - (high - low)) / max(abs(high - low), 1e-12)
        if error <= tolerance or steps >= MOST_STEPS:
            return Attribution(values.detach(), high, low, steps, error)
        steps *= 2


@contextmanager
def replaced_embeddings(model: Any, completion: Sequence[int], embeddings: Tensor) -> Iterator[None]:
    """Give the completion's tokens other embeddings [rows, tokens, width] wherever a call's ids end with them."""
    suffix = torch.tensor(completion)

    def hook(_: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        ids, size = arguments[0], len(suffix)
        if ids.shape[1] < size or not torch.equal(ids[0, -size:].cpu(), suffix):
            return output
        return torch.cat([output[:, :-size], embeddings.to(output.dtype)], dim=1)

    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def over_tokens(
    model: Any, completion: Sequence[int], fixed: Sequence[int], score: Callable[[int], Tensor]
) -> Attribution:
    """Attribute a score to a completion's tokens; `score` computes it for a number of equal rows, `fixed` stay.

    Raises a `Failure` where the model's embeddings cannot be replaced.
    """
    layer = model.get_input_embeddings()
    with torch.no_grad():
        inputs = layer(torch.tensor([list(completion)], device=model.device)).float()
        mean = layer.weight.float().mean(0)
        kept = torch.tensor([token in set(fixed) for token in completion], device=model.device)
        baseline = torch.where(kept[None, :, None], inputs, mean)
        plain = score(1).item()

    def of_embeddings(embeddings: Tensor) -> Tensor:
        with replaced_embeddings(model, completion, embeddings):
            return score(len(embeddings))

    with torch.no_grad():
        replaced, moved = of_embeddings(inputs).item(), of_embeddings(baseline).item()
    if abs(plain - replaced) > 1e-3 * max(1.0, abs(plain)) or (plain == moved and not bool(kept.all())):
        what = f"{type(model).__name__} does not read its completion's embeddings from its embedding layer"
        raise failure("integrated gradients", what, "explain another model")
    for weight in model.parameters():
        weight.requires_grad_(False)
    return attribute(of_embeddings, inputs, baseline)


def of_reward_model(judge: "RewardModel", prompt: Sequence[Turn], completion: str) -> Explanation:
    """Explain the reward of a completion by its tokens."""
    from alignlab.models.truncation import PROMPT_SHARE, cut_before_end, encode_within

    limits = judge.max_length, getattr(judge.model.config, "prompt_share", PROMPT_SHARE)
    _, (encoded,) = encode_within(judge.tokenizer, prompt, [completion], *limits, tail=True)
    before, (ids,) = cut_before_end(encoded.prompt, [encoded.completion], *limits)
    special = judge.tokenizer.all_special_ids
    found = over_tokens(judge.model, ids, special, lambda rows: judge.forward([(before, [ids])] * rows))
    return explanation("reward", token_texts(judge.tokenizer, ids), found)


def of_classifier(judge: "Classifier", prompt: Sequence[Turn], completion: str) -> Explanation:
    """Explain the score of a classifier, such as Detoxify, by the tokens of the text that it reads."""
    text = completion.strip() or " "
    before = "\n".join(turn["content"] for turn in prompt) or " "
    pair = [before, text] if judge.include_prompt else [text, None]
    ids = judge.tokenizer(*pair, truncation=True, max_length=judge.max_length)["input_ids"]
    read = judge.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = next((at for at in range(len(ids) - 1, -1, -1) if ids[at : at + len(read)] == read), 0)
    tail = ids[start:]

    def score(rows: int) -> Tensor:
        texts, pairs = ([before] * rows, [text] * rows) if judge.include_prompt else ([text] * rows, None)
        return judge.forward(texts, pairs)

    found = over_tokens(judge.model, tail, judge.tokenizer.all_special_ids, score)
    return explanation("score", token_texts(judge.tokenizer, tail), found)


def explanation(name: str, tokens: list[str], found: Attribution) -> Explanation:
    """Return the record of an attribution."""
    return {
        "method": f"integrated gradients of the {name} (Captum)",
        "shows": SHOWS,
        "cannot_show": CANNOT_SHOW,
        "figures": {
            name: found.score,
            "of the baseline": found.baseline,
            "steps": found.steps,
            "completeness error": found.error,
        },
        "tokens": tokens,
        "tracks": [{"name": "attribution", "unit": f"share of the {name}", "values": found.values.tolist()}],
    }
