"""Suggest settings with which a stage fits into memory, and refuse a stage whose states alone do not fit."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from alignlab.config import strategies
from alignlab.config.contradictions import four_bits, value_adapter
from alignlab.config.groups import conf_folder
from alignlab.config.hardware import DeepSpeed, OffloadOptimizer, OffloadParam, Zero
from alignlab.config.method import Training
from alignlab.config.model import Adapter
from alignlab.config.schema import Config
from alignlab.errors import Failure, failure
from alignlab.models.references import Source
from alignlab.pipeline.memory_fit import memory_fit, step
from alignlab.pipeline.memory_per_role import in_bytes


def advice(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> str:
    """Return a suggestion for a stage that does not fit; an empty text where it fits or that is unknown."""
    if memory_fit(config, settings, inputs, base).fits is not False:
        return ""

    def fits(change: Change) -> bool:
        refused = [*four_bits(change.config), *value_adapter(change.config)]
        return not refused and bool(memory_fit(change.config, change.settings, inputs, base).fits)

    first_fits = [next(filter(fits, kind), None) for kind in changes(config, settings)]
    overrides = [change.overrides for change in first_fits if change]
    if not overrides:
        overrides = [change.overrides for change in all_changes(config, settings) if fits(change)][:1]
    return f"does not fit; try {', or '.join(overrides) or LAST}"


LAST = "more devices with hardware=zero3, or a smaller model; smaller micro-batches and checkpointing are not enough"


class Change(NamedTuple):
    """Settings under which a stage may fit, and the overrides that set them."""

    overrides: str
    config: Config
    settings: Training


def changes(config: Config, settings: Training) -> Iterator[list[Change]]:
    """Yield the kinds of changes that may make a stage fit; within a kind, the smallest change comes first."""
    now = step(config, settings)
    share = settings.step_size // now.devices
    smaller = [] if now.is_halved else [size for size in range(now.rows - 1, 0, -1) if share % size == 0]
    yield [Change(f"{ROWS}={size}", with_hardware(config, {"micro_batch_size": size}), settings) for size in smaller]
    checkpointed = with_checkpointing(Change("", config, settings))
    yield [checkpointed] if checkpointed.overrides else []
    if now.devices > 1 and not config.hardware.strategy_record.shards_weights:
        yield [Change("hardware=zero3", with_hardware(config, SHARDED), settings)]
    if config.model.adapter is None:
        yield with_each_adapter(Change("", config, settings))
    if now.devices > 1:
        yield [Change("hardware=zero3_offload", with_hardware(config, OFFLOADED), settings)]


def all_changes(config: Config, settings: Training) -> Iterator[Change]:
    """Yield all changes at once, for each adapter: one row per micro-batch, checkpointing, offload to main memory."""
    several = step(config, settings).devices > 1
    least = with_hardware(config, {"micro_batch_size": 1} | (OFFLOADED if several else {}))
    overrides = f"{ROWS}=1" + (" hardware=zero3_offload" if several else "")
    change = Change(overrides, least, settings)
    adapted = with_each_adapter(change) if config.model.adapter is None else [change]
    yield from map(with_checkpointing, adapted)


ROWS, CHECKPOINTING = "hardware.micro_batch_size", "activation_checkpointing"
PARTITIONED = Zero(stage=3, stage3_max_live_parameters=10**9)
IN_MAIN_MEMORY = PARTITIONED.model_copy(
    update={"offload_optimizer": OffloadOptimizer(device="cpu"), "offload_param": OffloadParam(device="cpu")}
)
SHARDED, OFFLOADED = (  # hardware=zero3 and hardware=zero3_offload
    {"strategy": strategies.DEEPSPEED_SHARDED, "deepspeed": DeepSpeed(zero_optimization=zero)}
    for zero in (PARTITIONED, IN_MAIN_MEMORY)
)


def with_each_adapter(change: Change) -> list[Change]:
    """Add LoRA to a change, and QLoRA, which needs less memory, where the hardware allows it."""
    changes = [with_adapter(change, name) for name in ("lora", "qlora")]
    return [change for change in changes if not [*four_bits(change.config)]]


def place_of(config: Config, settings: Training) -> str:
    """Return the place of a stage's settings."""
    return "method" if settings == config.method else f"stages.{settings.name}"


def with_checkpointing(change: Change) -> Change:
    """Add activation checkpointing to a change, unless it is on or the stage's settings rule it out."""
    override = f"{place_of(change.config, change.settings)}.{CHECKPOINTING}=true"
    settings = change.settings.model_copy(update={CHECKPOINTING: True})
    if change.settings.activation_checkpointing or list(settings.faults()):
        return change
    return Change(f"{change.overrides} {override}".strip(), replaced(change, settings), settings)


def with_adapter(change: Change, name: str) -> Change:
    """Add an adapter of conf/model/adapter/ to a change, and the value function that `value=auto` then stands for."""
    import yaml

    file = conf_folder() / "model" / "adapter" / f"{name}.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = change.config.model.model_copy(update={"adapter": Adapter(**values)})
    config, settings = change.config.model_copy(update={"model": model}), change.settings
    is_automatic = f"{place_of(change.config, settings)}.value" in config.origins
    if is_automatic and not (config.hardware.strategy_record.shards_optimizer or model.is_encoder_decoder):
        settings = settings.model_copy(update={"value": "adapter"})
    overrides = f"{change.overrides} model/adapter={name}".strip()
    return Change(overrides, replaced(change._replace(config=config), settings), settings)


def replaced(change: Change, settings: Training) -> Config:
    """Return the config of a change with other settings of its stage."""
    config = change.config
    if change.settings == config.method:
        return config.model_copy(update={"method": settings})
    return config.model_copy(update={"stages": {**config.stages, settings.name: settings}})


def with_hardware(config: Config, changed: Mapping[str, Any]) -> Config:
    """Return the config with other hardware settings."""
    return config.model_copy(update={"hardware": config.hardware.model_copy(update=dict(changed))})


def check(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> Failure | None:
    """Return the failure to raise where the states alone exceed the memory of a device, else None."""
    memory = memory_fit(config, settings, inputs, base)
    if memory.states is None or memory.available is None or memory.states <= memory.available:
        return None
    what = f"{settings.name} needs {in_bytes(memory.states)} on each device, which has {in_bytes(memory.available)}"
    return failure("hardware", what, advice(config, settings, inputs, base))
