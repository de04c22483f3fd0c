"""The shapes of `conf/`: what settings there are, and what values they may have.

Values live in YAML, types live here, each once. A method's own shape stands in its own file
(`alignlab/methods/<name>.py`). `alignlab.bind` turns a composed tree into a `Config`.
"""

import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from alignlab.errors import Fault
from alignlab.hardware_settings import Hardware as Hardware
from alignlab.reward_settings import AnyReward
from alignlab.shape import Count as Count
from alignlab.shape import NotNegative as NotNegative
from alignlab.shape import Positive as Positive
from alignlab.shape import Shape as Shape
from alignlab.shape import Share as Share
from alignlab.sweep_settings import Sweep

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
File = Annotated[Path, Field(strict=False)]
Files = Annotated[
    tuple[File, ...],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(strict=False, min_length=1),
]


class Adapter(Shape):
    """Low-rank adapters (Hu et al. 2021) instead of training every weight."""

    r: Count
    lora_alpha: Count
    lora_dropout: Share
    target_modules: str | Names


class PocketModel(Shape):
    """The embedded base model, trained on the pocket world's corpus on first use."""

    kind: Literal["pocket"]
    seed: Seed
    size: Literal["full", "small"]
    adapter: Adapter | None = None


class PocketT5Model(Shape):
    """The embedded base model of dialogues: a small T5, trained on the world's gossip on first use."""

    kind: Literal["pocket_t5"]
    seed: Seed
    adapter: Adapter | None = None


class ScratchModel(Shape):
    """A model of any shape with random weights, and a BPE tokenizer trained on the data set's training rows."""

    kind: Literal["scratch"]
    family: Literal["llama", "qwen2", "gpt_neox", "t5"]
    seed: Seed
    vocab_size: Annotated[int, Field(ge=300)]
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    max_position_embeddings: Count
    adapter: Adapter | None = None

    def faults(self) -> Iterator[Fault]:
        if self.hidden_size % (2 * self.num_attention_heads):
            yield Fault(
                "hidden_size",
                f"{self.hidden_size} does not split into {self.num_attention_heads} heads of an even width",
                f"take a multiple of {2 * self.num_attention_heads}",
            )
        if self.family in {"gpt_neox", "t5"} and self.num_key_value_heads != self.num_attention_heads:
            yield Fault(
                "num_key_value_heads",
                f"{self.family} shares no heads, and {self.num_key_value_heads} is not num_attention_heads",
                f"use {self.num_attention_heads}",
            )
        elif self.num_attention_heads % self.num_key_value_heads:
            yield Fault(
                "num_key_value_heads",
                f"{self.num_key_value_heads} does not divide num_attention_heads ({self.num_attention_heads})",
            )


HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name, or the bare name of an old model


class Widths(Shape):
    """The shape of a transformer, under the names of its own settings, for a plan of a model that is not at hand."""

    model_type: str
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    vocab_size: Count


class PretrainedModel(Shape):
    """A model that others have trained, on the Hugging Face hub or in a folder."""

    kind: Literal["pretrained"]
    path: str
    revision: str
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None
    chat_template: Literal["chatml", "llama3", "mistral", "zephyr", "hh", "plain", "text"] | None
    parameters: Count | None = None
    shape: Widths | None = None
    adapter: Adapter | None = None

    def faults(self) -> Iterator[Fault]:
        folder = Path(self.path).expanduser()
        if folder.exists() and not (folder / "config.json").exists():
            yield Fault("path", f"{self.path} holds no model", "give a folder with config.json in it")
        elif not folder.exists() and (
            not HUB_ID.fullmatch(self.path) or (folder.parent.name and folder.parent.exists())
        ):
            yield Fault("path", f"{self.path} is not there", "give a model's folder, or a hub id (owner/name)")


class PocketData(Shape):
    """Rows drawn from the pocket world."""

    kind: Literal["pocket"]
    seed: Seed
    size: Literal["full", "small"]
    demonstrations: Count
    bad_demonstrations: Share
    pairs: Count
    annotators: Annotated[tuple[Share, ...], Field(strict=False, min_length=1)]
    shuffle_labels: bool
    longer_bias: Share
    validation: Share


class DialogueData(Shape):
    """Dialogues of the pocket world with summaries, which a file data set reads."""

    kind: Literal["dialogues"]
    seed: Seed
    rows: Count
    test_rows: Count
    repeated: Share


class HhRlhfData(Shape):
    """Transcripts in the format of Anthropic's HH-RLHF: `chosen` and `rejected`, as files or folders."""

    kind: Literal["hh_rlhf"]
    train: Files
    test: Files
    max_rows: Count | None
    validation: Share
    on_broken: Literal["reject", "stop"]
    max_rejects: Share


class Cleaning(Shape):
    """What collecting has broken and cleaning mends; everything is off until it is turned on."""

    encoding: bool
    markup: bool
    spaces: bool
    missing: Names


class Masking(Shape):
    """Which kinds of personal data are replaced by their names, and the column that holds the truth, if one does."""

    kinds: Annotated[tuple[Literal["email", "phone", "ip", "card", "iban", "ssn"], ...], Field(strict=False)]
    truth: str | None


class Augmentation(Shape):
    """The share of training rows that gets a changed copy, for each way of changing."""

    seed: Seed
    paraphrase: Share
    wrap: Share
    swap: Share
    typos: Share


Deduplication = Literal["none", "exact", "near"]
Format = Literal[
    "messages_preference", "sharegpt_preference", "preference", "hh_rlhf", "ranking", "messages", "sharegpt",
    "self_instruct", "dialogsum", "alpaca", "prompt_completion", "transcript", "text", "prompts",
]  # fmt: skip


class Steps(Shape):
    """How rows of any known shape are read, and the steps that make them ready."""

    format: Format | None
    train_split: str
    test_split: str
    max_rows: Count | None
    validation: Share
    on_broken: Literal["reject", "stop"]
    max_rejects: Share
    clean: Cleaning
    deduplicate: Deduplication
    mask: Masking
    augment: Augmentation


class FileData(Steps):
    """Rows from files."""

    kind: Literal["file"]
    path: Files
    weights: Annotated[tuple[NotNegative, ...] | None, Field(strict=False)]
    test_path: Annotated[Files | None, Field(strict=False)]
    world: Annotated[PocketData | DialogueData, Field(discriminator="kind")] | None
    test: Share

    def faults(self) -> Iterator[Fault]:
        if self.weights is not None and len(self.weights) != len(self.path):
            yield Fault(
                "weights", f"{len(self.weights)} weights for {len(self.path)} paths", "give one for each path, in order"
            )


class HubData(Steps):
    """Rows of a data set on the Hugging Face hub."""

    kind: Literal["hub"]
    path: str
    name: str | None
    revision: str
    rows: Count | None
    tokens: Count | None


DataSet = PocketData | HhRlhfData | FileData | HubData


def pocket_world(dataset: DataSet) -> PocketData | None:
    """The pocket world that a data set is drawn from, if it is."""
    world = dataset if isinstance(dataset, PocketData) else getattr(dataset, "world", None)
    return world if isinstance(world, PocketData) else None


def dialogue_world(dataset: DataSet) -> DialogueData | None:
    """The world of dialogues that a data set is drawn from, if it is."""
    world = getattr(dataset, "world", None)
    return world if isinstance(world, DialogueData) else None


Measure = Literal["gold", "toxicity", "reward", "rouge", "perplexity", "length"]


class Evaluation(Shape):
    """What is measured after each stage, on prompts that no stage has trained on."""

    enabled: bool
    split: Literal["validation", "test"]
    measures: Annotated[tuple[Measure, ...], Field(strict=False)] | None
    prompts: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    reward_model: str | None
    toxicity_model: str | None
    toxicity_label: str | None
    best_of_n: bool
    samples: Annotated[int, Field(ge=0)]

    def faults(self) -> Iterator[Fault]:
        if self.toxicity_model and self.toxicity_label is None:
            yield Fault("toxicity_label", "missing, though toxicity_model is set", "name the label that means toxic")


class Tracking(Shape):
    """Where curves and numbers go, besides the JSONL file that is always written."""

    to: Annotated[tuple[Literal["wandb", "tensorboard", "mlflow"], ...], Field(strict=False)]
    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None
    name: str | None
    tags: Names
    mlflow_uri: str | None


class Task(Shape):
    """What to do: train stages, prepare data, evaluate a model, write a report again, or make preference data."""

    name: Literal["train", "prepare", "evaluate", "report", "preferences"]
    model: str | None = None
    run: File | None = None


class Method(Shape):
    """What every method has; a method's own file adds its own settings."""

    name: str


class Training(Method):
    """What every method that runs on `transformers.Trainer` has; the names are transformers' own.

    `batch_size` is global: rows an optimizer step, whatever the hardware.
    """

    policy: str
    learning_rate: NotNegative
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: NotNegative
    num_train_epochs: Positive
    max_steps: Count | None
    batch_size: Count
    max_length: Count
    weight_decay: NotNegative
    max_grad_norm: Positive
    adam_beta1: Share
    adam_beta2: Share
    adam_epsilon: Positive
    dropout: Share
    activation_checkpointing: bool
    logging_steps: Count
    eval_steps: Count | Literal["epoch"] | None
    save_steps: Count | None
    save_total_limit: Count
    load_best_model_at_end: bool
    early_stopping_patience: Count | None
    push_to_hub: bool
    hub_model_id: str | None

    @property
    def step_size(self) -> int:
        """Rows an optimizer step."""
        return self.batch_size

    def steps(self, rows: int) -> int:
        """Optimizer steps in all, over so many training rows."""
        return self.max_steps or ceil(ceil(rows / self.batch_size) * self.num_train_epochs)

    def reads(self, rows: int) -> int:
        """Rows that are learned from in all, each as often as it is."""
        return self.steps(rows) * self.batch_size

    def faults(self) -> Iterator[Fault]:
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            yield Fault("warmup_steps", f"{self.warmup_steps:g} is more than max_steps ({self.max_steps})")
        if self.early_stopping_patience and not self.load_best_model_at_end:
            yield Fault(
                "early_stopping_patience",
                "stopping early without going back to the best checkpoint keeps a worse model",
                "set load_best_model_at_end=true",
            )
        if self.load_best_model_at_end:
            if not isinstance(self.eval_steps, int):
                yield Fault(
                    "load_best_model_at_end", "the best is unknown without evaluation", "set eval_steps to a number"
                )
            elif not self.save_steps or self.save_steps % self.eval_steps:
                now = f"{self.save_steps} is no multiple of eval_steps ({self.eval_steps})"
                yield Fault("save_steps", f"{now}, as load_best_model_at_end needs")
        if self.push_to_hub and not self.hub_model_id:
            yield Fault("hub_model_id", "missing, though push_to_hub is on", "give hub_model_id=owner/name")


class Config(Shape):
    """Everything that a run needs to know."""

    task: Task
    model: Annotated[PocketModel | PocketT5Model | ScratchModel | PretrainedModel, Field(discriminator="kind")]
    dataset: Annotated[DataSet, Field(discriminator="kind")]
    method: SerializeAsAny[Method]
    stages: dict[str, SerializeAsAny[Method]] = Field(default_factory=dict)
    reward: AnyReward
    hardware: Hardware
    evaluation: Evaluation
    tracking: Tracking
    sweep: Sweep
    preferences: SerializeAsAny[Shape] | None = None  # its shape is in alignlab.factory.settings
    seed: Seed
    dry_run: bool
