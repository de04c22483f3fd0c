"""Fill in the settings that are `auto` because their value depends on the model: the rows of conf/by_model.yaml.

It works on the composed tree, before `bind`. A value that a command, an experiment or a user's YAML sets is not `auto`,
so it stays. The filled-in values are numbers like any other: a run's config.yaml contains them.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alignlab.config.groups import Groups, conf_folder
from alignlab.config.model_size import config_in, parameters_in
from alignlab.config.settings import Names, Positive, Settings, path_in_home
from alignlab.errors import mistake

AUTO, TABLE = "auto", "by_model.yaml"
CONSTITUTION = "constitution"
UNKNOWN_SIZE = 7e9  # parameters
LENGTHS = {"max_length": 1, "max_new_tokens": 2}  # lengths that are `auto`, and the share of the context, 1/n, at most


class Row(Settings):
    """A row of the table: the settings of a kind of model, with their source."""

    methods: Names
    models: Literal["embedded", "pretrained"] | None = None
    adapter: Literal["full", "lora"] | None = None
    up_to: Positive | None = None
    strategies: Names | None = None
    encoder_decoder: bool | None = None
    settings: dict[str, float | int | str]
    source: str


class ModelKind(NamedTuple):
    """The properties of a model by which rows are chosen; `parameters` is None where the size is unknown."""

    models: str
    adapter: str
    parameters: int | None
    strategy: str
    encoder_decoder: bool = False
    context: int | None = None  # positions of a decoder in a folder

    def fits(self, row: Row) -> bool:
        """Return whether a row is for this kind of model."""
        return (
            row.models in (None, self.models)
            and row.adapter in (None, self.adapter)
            and (row.up_to is None or (self.parameters or UNKNOWN_SIZE) <= row.up_to)
            and row.encoder_decoder in (None, self.encoder_decoder)
            and (row.strategies is None or self.strategy in row.strategies)
        )

    def __str__(self) -> str:
        if self.models == "embedded":
            return "the embedded model"
        size = "a model of unknown size" if self.parameters is None else f"{in_words(self.parameters)} parameters"
        return f"{size}, {'LoRA' if self.adapter == 'lora' else 'all weights'}"


def in_words(parameters: int) -> str:
    """Return a number of parameters in billions or millions: 7B, 135M."""
    return f"{parameters / 1e9:.2g}B" if parameters >= 1e9 else f"{parameters / 1e6:.3g}M"


class Filled(NamedTuple):
    """A tree without `auto`, and where each filled-in value comes from, by place: `method.beta`."""

    tree: dict[str, Any]
    origins: dict[str, str]


def fill_in(tree: Mapping[str, Any], chains: Mapping[str, list[str]], groups: Groups) -> Filled:
    """Fill in every setting of a tree that is `auto` and that the table knows.

    `chains` gives the names of a place's method and of those that it extends: `{"method": ["cai", "dpo"]}`.
    """
    filled = deepcopy(dict(tree))
    kind = kind_of(tree)
    origins: dict[str, str] = {}
    groups_with_auto = {name: [name] for name in ("evaluation", "preferences", "measure.win_rate")}
    groups_with_auto["task"] = task_name(tree)
    for place, names in {**chains, **groups_with_auto}.items():
        node = node_at(filled, place)
        for name, value in node.items() if isinstance(node, dict) else ():
            if name == CONSTITUTION and isinstance(value, dict) and AUTO in value.values():
                node[name] = constitution(value, kind, groups)
            elif value == AUTO and name in known_settings():
                if row := row_for(names, name, kind):
                    node[name], origins[f"{place}.{name}"] = value_and_origin(row, name, kind)
                else:
                    node[name] = "???"  # which `bind` reports as missing
    return Filled(filled, origins)


def value_and_origin(row: Row, name: str, kind: ModelKind) -> tuple[Any, str]:
    """Return the value that a row gives a setting, at most what fits into the model's context, and its origin."""
    value: Any = row.settings[name]
    if kind.context and name in LENGTHS and value > (most := kind.context // LENGTHS[name]):
        return most, f"the model's context has {kind.context} tokens"
    return value, describe_origin(row, kind)


def task_name(tree: Mapping[str, Any]) -> list[str]:
    """Return the name of a tree's task, as rows of the table name it."""
    task = tree.get("task")
    return [str(task.get("name"))] if isinstance(task, Mapping) else []


def describe_origin(row: Row, kind: ModelKind) -> str:
    """Describe the origin of a value for the plan."""
    text = f"conf/{TABLE} for {kind}"
    return text if kind.models == "embedded" else f"{text}: {row.source}"


def row_for(methods: list[str], setting: str, kind: ModelKind) -> Row | None:
    """Return the first row that gives a setting; None where no row does."""
    rows = (row for row in table() if setting in row.settings and kind.fits(row))
    return next((row for row in rows if set(methods) & set(row.methods)), None)


@cache
def table() -> list[Row]:
    """Read the table."""
    import yaml

    return [Row.model_validate(row) for row in yaml.safe_load((conf_folder() / TABLE).read_text(encoding="utf-8"))]


@cache
def known_settings() -> set[str]:
    """Return the names of all settings in the table."""
    return {name for row in table() for name in row.settings}


def kind_of(tree: Mapping[str, Any]) -> ModelKind:
    """Return the kind of the model of a composed tree, which may have faults."""
    model = tree.get("model")
    model = model if isinstance(model, Mapping) else {}
    hardware = tree.get("hardware")
    strategy = str(hardware.get("strategy")) if isinstance(hardware, Mapping) else ""
    models = "pretrained" if model.get("kind") == "pretrained" else "embedded"
    adapter = "lora" if model.get("adapter") else "full"
    encoder_decoder = is_encoder_decoder(model)
    context = None if encoder_decoder else context_of(model)
    return ModelKind(models, adapter, size_of(model), strategy, encoder_decoder, context)


def context_of(model: Mapping[str, Any]) -> int | None:
    """Return the positions of a model in a folder; None where they are unknown."""
    folder = folder_of(model)
    settings = config_in(folder) if folder else {}
    settings = settings.get("text_config") or settings
    found = (settings.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((size for size in found if isinstance(size, int)), None)


def is_encoder_decoder(model: Mapping[str, Any]) -> bool:
    """Return whether a model is an encoder-decoder; False where that is unknown."""
    if model.get("kind") == "pocket_t5" or model.get("family") == "t5" or model.get("encoder_decoder"):
        return True
    folder = folder_of(model)
    return bool(folder and config_in(folder).get("is_encoder_decoder"))


def size_of(model: Mapping[str, Any]) -> int | None:
    """Return the parameters that a model's YAML states, else those of its folder, else None."""
    stated = model.get("parameters")
    if isinstance(stated, int):
        return stated
    folder = folder_of(model)
    return parameters_in(folder) if folder else None


def folder_of(model: Mapping[str, Any]) -> Path | None:
    """Return the folder of a model that is on this machine."""
    path = model.get("path")
    folder = path_in_home(Path(path)) if isinstance(path, str) else None
    return folder if folder and folder.is_dir() else None


def constitution(node: Mapping[str, Any], kind: ModelKind, groups: Groups) -> dict[str, Any]:
    """Return a constitution whose `auto` fields come from the file that the table names."""
    from omegaconf import OmegaConf

    row = row_for([CONSTITUTION], CONSTITUTION, kind)
    file = groups.file(CONSTITUTION, str(row.settings[CONSTITUTION])) if row else None
    if file is None:
        raise mistake(CONSTITUTION, "auto has no file", f"add a row to conf/{TABLE}, or use constitution=assistant")
    values: Any = OmegaConf.to_container(OmegaConf.load(file))
    return {name: values[name] if value == AUTO else value for name, value in node.items()}


def node_at(tree: Any, place: str) -> Any:
    """Return the node at a place; None where there is none."""
    for name in place.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
