"""The models that can be asked: a language model and a reward model in a folder (for a server, see `server_subject`).

A model in a folder is loaded when its first new question is asked, not before. Its fingerprint covers its files, the
precision and the code that computes replies, so that a changed weight reuses no reply.
"""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.hardware import Hardware
from alignlab.evaluation.replies import ChoiceScore, Item, ends_of, random_stream
from alignlab.models.load import device_type, load_policy, precision
from alignlab.models.sampling import Completion, Sampling
from alignlab.models.token_choice import LIKELIEST
from alignlab.runtime.distributed import free_gpu_cache
from alignlab.runtime.files import digest, digest_files
from alignlab.runtime.matmul import library
from alignlab.runtime.source_hash import hash_with_imports

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.rewards import RewardModel

CODE = ("alignlab.models.answers", "alignlab.models.choices", "alignlab.rewards.reward_model")  # computes replies
SETTING = "evaluation.max_new_tokens"


@cache
def code_hash() -> str:
    """Return the hash of the code that computes replies."""
    return digest([hash_with_imports(module) for module in CODE])


class InFolder:
    """A model in a folder; a subclass loads it as `loaded`, a cached property."""

    def __init__(self, folder: Path, hardware: Hardware) -> None:
        self.folder, self.hardware = folder, hardware

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of the model's files, of the precision, the device and the products, and of the code."""
        how = str(precision(self.hardware)), device_type(self.hardware), library(self.hardware.matmul)
        return digest(digest_files([self.folder]), *how, code_hash())

    def release(self) -> None:
        """Free the memory of the model, which is loaded again when it is asked again."""
        self.__dict__.pop("loaded", None)
        free_gpu_cache()


class LanguageModel(InFolder):
    """A language model in a folder: it samples completions, and scores choices by their log-probabilities."""

    scores_choices = True

    @cached_property
    def loaded(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Return the model and its tokenizer; they are loaded once."""
        return load_policy(self.folder, self.hardware)

    def sample(
        self, items: Sequence[Item], draws: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> Iterator[dict[int, list[Completion]]]:
        """Yield batch by batch, by the item's place, its completions of the numbers in `draws`; equally many each."""
        from alignlab.models.answers import draw_several
        from alignlab.models.truncation import encode_prompts, room_for_prompt

        model, tokenizer = self.loaded
        room = room_for_prompt(model, sampling.max_new_tokens, SETTING)
        count = len(draws[0])
        ids = [self.text_ids(item.prompt, room) if isinstance(item.prompt, str) else None for item in items]
        chats = iter(encode_prompts(tokenizer, [i.prompt for i in items if not isinstance(i.prompt, str)], room))
        how = sampling._replace(
            temperature=max(sampling.temperature, LIKELIEST), batch_size=max(1, sampling.batch_size // count)
        )
        yield from draw_several(
            model,
            tokenizer,
            [next(chats) if own is None else own for own in ids],
            count,
            how,
            lambda place, number: (seed, random_stream(items[place], draws[place][number])),
        )

    def text_ids(self, text: str, room: int | None) -> list[int]:
        """Return raw text as token ids, the last `room` of them; an empty text is the token that begins one."""
        from alignlab.models.choices import encode_text
        from alignlab.models.truncation import cut_prompt

        row = encode_text(self.loaded[1], text, "")
        return cut_prompt([*row.prompt, *row.completion], room)

    def score(self, items: Sequence[Item]) -> Iterator[dict[int, list[ChoiceScore]]]:
        """Yield batch by batch, by the item's place, the log-probabilities of its choices."""
        from alignlab.models.choices import score_choices

        questions = [(item.prompt, item.choices, ends_of(item)) for item in items]
        for batch in score_choices(*self.loaded, questions):
            yield {place: [ChoiceScore(*score) for score in scores] for place, scores in batch.items()}


class RewardModelSubject(InFolder):
    """A reward model in a folder: it scores choices by their rewards; it completes nothing."""

    BATCH = 64  # items
    scores_choices = True
    completes = False

    @cached_property
    def loaded(self) -> "RewardModel":
        """Return the reward model; it is loaded once."""
        from alignlab.rewards import load_reward_model

        return load_reward_model(self.folder, self.hardware)

    def sample(
        self, items: Sequence[Item], draws: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> Iterator[dict[int, list[Completion]]]:
        """Raise a `TypeError`: a reward model completes nothing."""
        raise TypeError("a reward model scores choices and completes no prompts")

    def score(self, items: Sequence[Item]) -> Iterator[dict[int, list[ChoiceScore]]]:
        """Yield batch by batch, by the item's place, the rewards of its choices; their tokens are not counted."""
        places = iter(range(len(items)))
        while batch := list(islice(places, self.BATCH)):
            prompts = [items[place].turns for place in batch for _ in items[place].choices]
            texts = [choice for place in batch for choice in items[place].choices]
            finished = [end for place in batch for end in ends_of(items[place])]
            totals = iter(self.loaded.score(prompts, texts, finished).total)
            yield {place: [ChoiceScore(float(next(totals)), 0) for _ in items[place].choices] for place in batch}
