"""Settings of `conf/model/`: the base model."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.dataset import DataSettings
from alignlab.config.model_size import config_in
from alignlab.config.settings import Count, Names, Reference, Seed, Settings, Share, path_in_home
from alignlab.errors import Fault


class Adapter(Settings):
    """Low-rank adapters (Hu et al. 2021) instead of training every weight."""

    r: Count
    lora_alpha: Count
    lora_dropout: Share
    target_modules: str | Names
    load_in_4bit: bool = False


class ModelSettings(Settings):
    """Base class of the settings of every kind of model."""

    kind: str

    @property
    def is_encoder_decoder(self) -> bool:
        """Return whether the model is an encoder-decoder; False where that is unknown, as before a download."""
        return False

    @property
    def origin(self) -> str:
        """Return a description of where the weights come from, for the plan."""
        return "made from its seed"

    @property
    def pretrained(self) -> "PretrainedModel | None":
        """Return these settings if others have trained the model, else None."""
        return None

    @property
    def stated_parameters(self) -> int | None:
        """Return the number of parameters that the YAML states, or None."""
        return None

    @property
    def stated_shape(self) -> "Widths | None":
        """Return the widths that the YAML states, or None."""
        return None

    @property
    def local_folders(self) -> tuple[Path, ...]:
        """Return the folder that holds the model's files, if there is one before it is made."""
        return ()

    @property
    def attention(self) -> str | None:
        """Return the chosen implementation of attention; None is transformers' default."""
        return None

    @property
    def runs_own_code(self) -> bool:
        """Return whether Python code of the model's folder runs."""
        return False

    def unfit_for(self, dataset: DataSettings) -> Iterator[Fault]:
        """Yield a fault for each reason why the model cannot read a data set."""
        yield from ()


class PocketModel(ModelSettings):
    """The embedded base model, trained on the pocket world's corpus on first use."""

    kind: Literal["pocket"]
    seed: Seed
    size: Literal["full", "small"]
    adapter: Adapter | None = None

    def unfit_for(self, dataset: DataSettings) -> Iterator[Fault]:
        world = dataset.pocket_world
        if world is None:
            what = f"pocket knows only the words of the pocket world, and dataset is {dataset.kind}"
            yield Fault("model", what, "add model=scratch")
        elif self.size != world.size:
            what = f"{self.size!r} does not fit dataset.size ({world.size!r})"
            yield Fault("model.size", what, f"add model.size={world.size}")


class PocketT5Model(ModelSettings):
    """The embedded base model of dialogues: a small T5, trained on the world's gossip on first use."""

    kind: Literal["pocket_t5"]
    seed: Seed
    adapter: Adapter | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        return True

    def unfit_for(self, dataset: DataSettings) -> Iterator[Fault]:
        if dataset.dialogue_world is None:
            yield Fault("model", "pocket_t5 knows only the words of pocket's dialogues", "add dataset=pocket_dialogues")


class ScratchModel(ModelSettings):
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

    @property
    def is_encoder_decoder(self) -> bool:
        return self.family == "t5"

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


TEMPLATES = ("chatml", "llama3", "mistral", "zephyr", "hh", "plain", "text")  # of alignlab.models.chat_templates
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name, or the bare name of an old model


class Widths(Settings):
    """The sizes of a transformer, under the keys of its config.json, for the plan of a model before its download."""

    model_type: str
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    vocab_size: Count


class PretrainedModel(ModelSettings):
    """A pretrained model on the Hugging Face hub, in a folder or in a GGUF file."""

    kind: Literal["pretrained"]
    path: Reference
    revision: str
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None
    chat_template: str | None
    trust_remote_code: bool = False
    parameters: Count | None = None
    shape: Widths | None = None
    encoder_decoder: bool = False  # as its YAML states, for the plan of a model before its download
    source: Literal["auto", "hub", "package"] = "auto"
    package_file: str | None = None
    adapter: Adapter | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        return self.encoder_decoder or bool(config_in(path_in_home(Path(self.path))).get("is_encoder_decoder"))

    @property
    def origin(self) -> str:
        return f"{self.path} made ready"

    @property
    def pretrained(self) -> "PretrainedModel":
        return self

    @property
    def stated_parameters(self) -> int | None:
        return self.parameters

    @property
    def stated_shape(self) -> Widths | None:
        return self.shape

    @property
    def local_folders(self) -> tuple[Path, ...]:
        folder = path_in_home(Path(self.path))
        return (folder,) if folder.is_dir() else ()

    @property
    def attention(self) -> str | None:
        return self.attn_implementation

    @property
    def runs_own_code(self) -> bool:
        return self.trust_remote_code

    @property
    def template_file(self) -> Path | None:
        """Return the file of the chat template; None where it is one of `TEMPLATES` or the tokenizer's."""
        return None if self.chat_template in {None, *TEMPLATES} else path_in_home(Path(str(self.chat_template)))

    def faults(self) -> Iterator[Fault]:
        if self.template_file and not self.template_file.is_file():
            what = f"{self.chat_template!r} is neither a template's name nor a file"
            yield Fault("chat_template", what, f"use {', '.join(TEMPLATES)}, null, or a file with a Jinja template")
        folder = path_in_home(Path(self.path))
        if folder.suffix == ".gguf" and folder.is_file():
            return
        if folder.exists() and not (folder / "config.json").exists():
            yield Fault("path", f"{self.path} holds no model", "give a folder with config.json in it, or a GGUF file")
        elif not folder.exists() and (
            not HUB_ID.fullmatch(self.path) or (folder.parent.name and folder.parent.exists())
        ):
            yield Fault("path", f"{self.path} is not there", "give a model's folder, or a hub id (owner/name)")
