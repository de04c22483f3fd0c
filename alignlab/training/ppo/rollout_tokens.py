"""Keep some completions of some rollouts token by token, for explanations; nothing is learned from them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.explanations.record import token_texts
from alignlab.runtime.files import read_lines, write_text
from alignlab.runtime.run_files import ROLLOUT_TOKENS, RolloutTokens
from alignlab.training.ppo.experience import Experience

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ROLLOUTS = 50  # of a stage, at most
COMPLETIONS = 4  # of a rollout
DIGITS = 4


def keep(folder: Path, experience: Experience, tokenizer: "PreTrainedTokenizerBase", num_rollouts: int) -> None:
    """Write some completions of a rollout, unless it is one of those that are left out; a repeated one is replaced."""
    every = -(-num_rollouts // ROLLOUTS)
    if experience.number % every and experience.number != num_rollouts - 1:
        return
    file = folder / ROLLOUT_TOKENS
    earlier = [row for row in read_lines(file) if row["rollout"] < experience.number]
    rows = [*earlier, *completions(experience, tokenizer)]
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))


def completions(experience: Experience, tokenizer: "PreTrainedTokenizerBase") -> Iterator[RolloutTokens]:
    """Yield the first completions of a rollout."""
    measured = experience.measured
    for row, completion in enumerate(experience.completions[:COMPLETIONS]):
        size = len(completion.tokens)

        def values(tensor: "Tensor", row: int = row, size: int = size) -> list[float]:
            return [round(value, DIGITS) for value in tensor[row, :size].tolist()]

        yield {
            "rollout": experience.number,
            "prompt": tokenizer.decode(experience.prompts[row], skip_special_tokens=True).strip(),
            "reward": round(experience.scores[row].item(), DIGITS),
            "tokens": token_texts(tokenizer, completion.tokens),
            "log_ratio": values(measured.logps - measured.reference),
            "kl": values(measured.exact_kl),
            "advantage": values(experience.advantages),
        }
