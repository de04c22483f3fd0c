"""Settings of `conf/dataset/`: which rows are read, and how they are prepared."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Count, Files, Names, NotNegative, Seed, Settings, Share
from alignlab.errors import Fault


class PocketData(Settings):
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


class DialogueData(Settings):
    """Dialogues of the pocket world with summaries, which a file data set reads."""

    kind: Literal["dialogues"]
    seed: Seed
    rows: Count
    test_rows: Count
    repeated: Share


class HhRlhfData(Settings):
    """Transcripts in the format of Anthropic's HH-RLHF: `chosen` and `rejected`, as files or folders."""

    kind: Literal["hh_rlhf"]
    train: Files
    test: Files
    max_rows: Count | None
    validation: Share
    on_broken: Literal["reject", "stop"]
    max_rejects: Share


class Cleaning(Settings):
    """What collecting has broken and cleaning mends; everything is off until it is turned on."""

    encoding: bool
    markup: bool
    spaces: bool
    missing: Names


class Masking(Settings):
    """Which kinds of personal data are replaced by their names, and the column that holds the truth, if one does."""

    kinds: Annotated[tuple[Literal["email", "phone", "ip", "card", "iban", "ssn"], ...], Field(strict=False)]
    truth: str | None


class Augmentation(Settings):
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


class Steps(Settings):
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
