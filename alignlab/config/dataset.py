"""Settings of `conf/dataset/`: the rows that are read, and their preparation."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from alignlab.config.settings import (
    Count,
    Files,
    Names,
    NotNegative,
    OptionName,
    Reference,
    Regex,
    Seed,
    Settings,
    Share,
)
from alignlab.errors import Fault


class DataSettings(Settings):
    """Base class of the settings of every kind of data set."""

    kind: str

    @property
    def pocket_world(self) -> "PocketData | None":
        """Return the pocket world that the rows are drawn from, or None."""
        return None

    @property
    def dialogue_world(self) -> "DialogueData | None":
        """Return the world of dialogues that the rows are drawn from, or None."""
        return None

    @property
    def input_paths(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the user's files and folders that are read, by setting."""
        return {}

    @property
    def world_files(self) -> tuple[Path, ...]:
        """Return the files that are read in the folder of a world."""
        return ()

    @property
    def is_remote(self) -> bool:
        """Return whether the rows are downloaded; the settings identify them before that."""
        return False

    @property
    def stated_rows(self) -> int | None:
        """Return the number of training rows that the YAML states, or None."""
        return None

    @property
    def stated_tokens(self) -> int | None:
        """Return the number of tokens per row that the YAML states, or None."""
        return None

    @property
    def feedback_from(self) -> str:
        """Return who gave the feedback that the rows hold; empty for other rows."""
        return ""

    def redrawn(self, seed: int) -> Self:
        """Return settings that draw other rows, by a seed that is added; rows that are not drawn stay as they are."""
        return self


class PocketData(DataSettings):
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

    @property
    def pocket_world(self) -> "PocketData":
        return self

    def redrawn(self, seed: int) -> Self:
        return self.model_copy(update={"seed": self.seed + seed})


class DialogueData(DataSettings):
    """Dialogues of the pocket world with summaries, which a file data set reads."""

    kind: Literal["dialogues"]
    seed: Seed
    rows: Count
    test_rows: Count
    repeated: Share

    @property
    def dialogue_world(self) -> "DialogueData":
        return self


Learn = Literal["all", "last"]


class HhRlhfData(DataSettings):
    """Transcripts in the format of Anthropic's HH-RLHF: `chosen` and `rejected`, as files or folders."""

    kind: Literal["hh_rlhf"]
    train: Files
    test: Files
    learn: Learn
    label_pairs: bool
    max_rows: Count | None
    validation: Share
    on_broken: Literal["reject", "stop"]
    max_rejects: Share

    @property
    def input_paths(self) -> Mapping[str, tuple[Path, ...]]:
        return {"train": self.train, "test": self.test}


class Cleaning(Settings):
    """Repairs of the text; each is off by default."""

    encoding: bool
    markup: bool
    spaces: bool
    missing: Names


class Masking(Settings):
    """The kinds of personal data that are replaced by their names, and the column with the true values, if any."""

    kinds: Annotated[tuple[Literal["email", "phone", "ip", "card", "iban", "ssn"], ...], Field(strict=False)]
    truth: str | None


class Augmentation(Settings):
    """The share of training rows that get a changed copy, for each kind of change."""

    seed: Seed
    paraphrase: Share
    wrap: Share
    swap: Share
    typos: Share


Deduplication = Literal["none", "exact", "near"]

FORMATS = (  # the names of `alignlab.data.row_formats.FORMATS`
    "messages_preference", "preference", "sharegpt_preference", "preference_context", "hh_rlhf", "rejected_response",
    "messages_rejected", "compared", "ranking", "summaries", "eli5", "message_tree", "messages", "sharegpt",
    "self_instruct", "dialogsum", "alpaca", "prompt_completion", "transcript", "text", "prompts",
)  # fmt: skip


class Preparation(DataSettings):
    """Settings of reading and preparing rows of any supported format."""

    format: Annotated[str, OptionName("formats", FORMATS)] | None
    ignore: Names
    train_split: str
    test_split: str
    learn: Learn
    label_pairs: bool
    max_rows: Count | None
    validation: Share
    on_broken: Literal["reject", "stop"]
    max_rejects: Share
    clean: Cleaning
    deduplicate: Deduplication
    mask: Masking
    augment: Augmentation


class Selection(Settings):
    """The rows to keep: regular expressions that the last question and the answers match, and the most questions."""

    prompt: Regex | None = None
    chosen: Regex | None = None
    rejected: Regex | None = None
    turns: Count | None = None


class FileData(Preparation):
    """Rows from files."""

    kind: Literal["file"]
    path: Files
    weights: Annotated[tuple[NotNegative, ...] | None, Field(strict=False)]
    select: Annotated[tuple[Selection | None, ...] | None, Field(strict=False)]
    test_path: Annotated[Files | None, Field(strict=False)]
    world: Annotated[PocketData | DialogueData, Field(discriminator="kind")] | None
    test: Share

    @property
    def pocket_world(self) -> PocketData | None:
        return self.world.pocket_world if self.world else None

    @property
    def dialogue_world(self) -> DialogueData | None:
        return self.world.dialogue_world if self.world else None

    @property
    def input_paths(self) -> Mapping[str, tuple[Path, ...]]:
        return {} if self.world else {"path": self.path, "test_path": self.test_path or ()}

    @property
    def world_files(self) -> tuple[Path, ...]:
        return self.path if self.world else ()

    def faults(self) -> Iterator[Fault]:
        for name, by_path in (("weights", self.weights), ("select", self.select)):
            if by_path is not None and len(by_path) != len(self.path):
                what = f"{len(by_path)} {'weights' if name == 'weights' else 'selections'} for {len(self.path)} paths"
                yield Fault(name, what, "give one for each path, in order")


class HubData(Preparation):
    """Rows of a data set on the Hugging Face hub."""

    kind: Literal["hub"]
    path: Reference
    name: str | None
    revision: str
    rows: Count | None
    tokens: Count | None

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def stated_rows(self) -> int | None:
        return None if self.rows is None else int((self.max_rows or self.rows) * (1 - self.validation))

    @property
    def stated_tokens(self) -> int | None:
        return self.tokens


class FeedbackData(DataSettings):
    """Feedback of people on served answers, from the server's store."""

    kind: Literal["feedback"]
    store: Reference
    store_env: str | None
    snapshot: str | None
    consensus: Literal["majority", "dawid_skene"]
    max_share: Share
    outliers: bool
    held_out_users: Share
    validation: Share
    test: Share
    label_pairs: bool
    world: PocketData | None

    @property
    def pocket_world(self) -> PocketData | None:
        return self.world

    @property
    def feedback_from(self) -> str:
        return "simulated annotators of the pocket world" if self.world else "the users of a server (`task=serve`)"

    def faults(self) -> Iterator[Fault]:
        if self.store_env and self.store_env not in os.environ:
            what = f"the environment variable {self.store_env} is not set"
            yield Fault("store_env", what, "set it to a database URL")
        if not self.max_share:
            yield Fault("max_share", "0 leaves no feedback", "use a share above 0, such as 0.2")


DataSet = PocketData | HhRlhfData | FileData | HubData | FeedbackData
