"""The score of one class of a Hugging Face sequence classifier, chosen by the class's label.

By default the classifier reads the completion alone, so that a toxic prompt does not count against the answer. With
`include_prompt` it reads a pair of texts, the conversation and the completion, as its tokenizer joins them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alignlab.chat import Turn
from alignlab.config.hardware import Hardware
from alignlab.config.reward import ClassifierReward
from alignlab.errors import failure
from alignlab.models import model_folder
from alignlab.models.fitting import in_batches
from alignlab.models.load import device, load_whole, precision
from alignlab.models.truncation import context_length
from alignlab.rewards.protocol import Context, Scored
from alignlab.rewards.reward_model import batches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OFFSET = 2  # RoBERTa numbers its positions from 2
UNLIMITED = 100_000  # tokenizers without a length limit report a larger number
LONGEST = 512  # tokens, where neither the tokenizer nor the model has a limit


class Classifier(NamedTuple):
    """A classifier, the index of its class that is the reward, and how the score is read."""

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    label: int
    probability: bool
    include_prompt: bool
    max_length: int

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Return the range of a probability; a logit has none."""
        return (0.0, 1.0) if self.probability else None

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score each completion by the chosen class; `finished` is not used."""
        import torch

        texts = [text.strip() or " " for text in completions]
        before = ["\n".join(turn["content"] for turn in turns) or " " for turns in prompts]
        sizes = [len(text) + len(prompt) * self.include_prompt for text, prompt in zip(texts, before, strict=True)]
        order = sorted(range(len(texts)), key=sizes.__getitem__)
        total = [0.0] * len(texts)
        first = before if self.include_prompt else texts

        def score_rows(rows: list[int]) -> list[float]:
            pairs = [texts[i] for i in rows] if self.include_prompt else None
            values: list[float] = self.forward([first[i] for i in rows], pairs).tolist()
            return values

        with torch.inference_mode():
            for batch in batches(order, sizes):
                for rows, values in in_batches(batch, len(batch), score_rows, "classification"):
                    for i, value in zip(rows, values, strict=True):
                        total[i] = value
        return Scored(total)

    def forward(self, texts: list[str], pairs: list[str] | None) -> "Tensor":
        """Score one batch, [batch]."""
        encoded = self.tokenizer(
            texts, pairs, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        logits = self.model(**encoded).logits.float()
        if not self.probability:
            return logits[:, self.label]
        many = self.model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
        return (logits.sigmoid() if many else logits.softmax(-1))[:, self.label]


def load(settings: ClassifierReward, context: Context) -> Classifier:
    """Load the classifier that the settings name."""
    folder, name = context.folder(settings.path), context.name(settings.kind)
    return load_classifier(settings, folder, context.hardware, name)


def load_classifier(settings: ClassifierReward, path: Path, hardware: Hardware, name: str) -> Classifier:
    """Load a classifier; raises a `Failure` where the folder holds none, or none with this label."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    model_folder.check(path)
    with model_folder.explained_loading(f"reward {name}", f"{settings.path} cannot be read as a classifier", path):
        architectures = AutoConfig.from_pretrained(path, trust_remote_code=False).architectures
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    kind = (architectures or [""])[0]
    if not kind.endswith("ForSequenceClassification"):
        raise failure(
            f"reward {name}", f"{settings.path} is a {kind or 'model'} and no classifier", "give another path"
        )
    model = load_whole(AutoModelForSequenceClassification, path, dtype=precision(hardware))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    number = find_label(settings, model.config.id2label, name)
    longest = limit(model, tokenizer)
    ready = model.to(device(hardware)).eval()
    return Classifier(
        name, ready, tokenizer, number, settings.output == "probability", settings.include_prompt, longest
    )


def find_label(settings: ClassifierReward, labels: dict[int, str], name: str) -> int:
    """Return the index of a label; raises a `Failure` that lists the labels where it is not among them."""
    known = {label: number for number, label in labels.items()}
    if settings.label not in known:
        listed = ", ".join(label for _, label in sorted(labels.items()))
        raise failure(f"reward {name}", f"{settings.path} has no label {settings.label!r}", f"there is {listed}")
    return known[settings.label]


def limit(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the longest text in tokens that both the tokenizer and the model take."""
    positions = context_length(model.config)
    limits = [positions - OFFSET if positions else UNLIMITED, tokenizer.model_max_length]
    return min(limits) if min(limits) < UNLIMITED else LONGEST
