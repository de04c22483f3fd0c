"""A reward model that method=rm has trained, or any sequence classifier with one label.

It reads text and tokenises it with its own chat template and tokenizer. The score is read at the last token that the
template writes, as transformers reads it, whether or not the completion ended by itself.
"""

from collections.abc import Sequence
from math import tanh
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alignlab.chat import Turn
from alignlab.config.hardware import Hardware
from alignlab.config.reward import ModelReward
from alignlab.errors import failure
from alignlab.models.fitting import in_batches
from alignlab.models.load import device, load_whole, precision, set_dropout
from alignlab.models.model_folder import reason
from alignlab.models.truncation import context_length
from alignlab.rewards.protocol import Context, Scored

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 16384  # in one batch on a GPU, padding included
CPU_TOKENS = 2048


class RewardModel(NamedTuple):
    """A model with one output, and the tokenizer that it was trained with."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    name: str = "model"
    pad: int | None = None  # of the model's config, which may be another than the tokenizer's

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool] | None = None
    ) -> Scored:
        """Score each completion after its prompt, by a cost model with its calibrated cost; `finished` is not used."""
        import torch

        from alignlab.models.truncation import PROMPT_SHARE, cut_before_end, encode_within

        rows = []
        limits = self.max_length, getattr(self.model.config, "prompt_share", PROMPT_SHARE)
        for prompt, completion in zip(prompts, completions, strict=True):
            _, (encoded,) = encode_within(self.tokenizer, prompt, [completion], *limits, tail=True)
            rows.append(cut_before_end(encoded.prompt, [encoded.completion], *limits))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1][0]))
        total = [0.0] * len(rows)
        tokens = CPU_TOKENS if self.model.device.type == "cpu" else TOKENS
        with torch.inference_mode():
            for batch in batches(order, [len(prompt) + len(ids[0]) for prompt, ids in rows], tokens):
                for part, values in in_batches(
                    batch, len(batch), lambda part: self.forward([rows[i] for i in part]).tolist(), "scoring"
                ):
                    for i, value in zip(part, values, strict=True):
                        total[i] = value
        calibration = getattr(self.model.config, "cost_calibration", None)
        return Scored([cost(value, **calibration) for value in total] if calibration else total)

    def forward(self, rows: Sequence[tuple[list[int], list[list[int]]]]) -> "Tensor":
        """Score rows of token ids, [batch], as the model's own class computes them."""
        from alignlab.models.prompt_layout import pack
        from alignlab.models.reward_heads import DecoderReward, PooledReward

        settings = self.model.config.get_text_config()
        if self.pad is None:  # transformers finds the last token by this id, which no row may end with
            ends = {ids[0][-1] for _, ids in rows}
            settings.pad_token_id = next(i for i in range(len(ends) + 1) if i not in ends)
        packed = pack([prompt for prompt, _ in rows], [ids for _, ids in rows], settings.pad_token_id)
        ids, segments = (tensor.to(self.model.device) for tensor in packed)
        if isinstance(self.model, PooledReward | DecoderReward):
            return self.model(ids, segments).logits[:, 0].float()
        return self.model(input_ids=ids, attention_mask=(segments >= 0).long()).logits[:, 0].float()


def cost(output: float, scale: float, offset: float) -> float:
    """Return the calibrated cost of a cost model's output, sigmoid(scale * output + offset)."""
    return (1 + tanh((scale * output + offset) / 2)) / 2  # never overflows


def batches(order: Sequence[int], lengths: Sequence[int], tokens: int = TOKENS) -> list[list[int]]:
    """Split rows, shortest first, into batches of at most so many tokens, padding included."""
    rows: list[list[int]] = []
    for i in order:
        if not rows or (len(rows[-1]) + 1) * lengths[i] > tokens:
            rows.append([])
        rows[-1].append(i)
    return rows


def load(settings: ModelReward, context: Context) -> RewardModel:
    """Load the reward model that the settings name."""
    model = load_reward_model(context.folder(settings.path), context.hardware)
    return model._replace(name=context.name(settings.kind))


def load_reward_model(path: Path, hardware: Hardware) -> RewardModel:
    """Load the folder of a `method=rm` stage, or a sequence classifier with one label.

    Raises a `Failure` where the folder holds no reward model, or its tokenizer no chat template.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from alignlab.models import model_folder, prompt_layout, reward_heads, template_repair

    folder = path / "model" if (path / "model" / "config.json").exists() else path
    model_folder.check(folder)
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise no_head(path, reason(error)) from error
    kind = (settings.architectures or [""])[0]
    if not kind.endswith(("ForSequenceClassification", "PooledReward", "DecoderReward")):
        raise no_head(path, f"{kind or 'the model'} has no reward head")
    if settings.num_labels != 1:
        raise no_head(path, f"its head has {settings.num_labels} outputs, not one")
    options = {"dtype": precision(hardware), "config": set_dropout(settings, 0.0)}
    model = load_whole(AutoModelForSequenceClassification, folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.chat_template is None:
        why = "its tokenizer has no chat template to write a conversation with"
        raise failure(str(path), why, "use it as a classifier: reward=classifier reward.include_prompt=true")
    template_repair.repair_words(tokenizer)
    longest = min(tokenizer.model_max_length, context_length(settings) or tokenizer.model_max_length)
    model = model.to(device(hardware)).eval()
    if isinstance(model, reward_heads.PooledReward):
        prompt_layout.choose_layout(model, reward_heads.scores)
    return RewardModel(model, tokenizer, longest, pad=getattr(model.config.get_text_config(), "pad_token_id", None))


def no_head(path: Path, why: str) -> Exception:
    """Build the failure of a folder that holds no reward model."""
    return failure(str(path), why, "give the folder of a method=rm run")
