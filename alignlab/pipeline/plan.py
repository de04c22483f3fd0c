"""Plan the stages of a run: which it needs, which are in the cache, and the cost of each.

A stage is found in the cache by its fingerprint (`alignlab.pipeline.fingerprint`). For one that is not, the plan says
what differs from the nearest finished stage.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.method import Method, Training
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.data.view_sizes import view_size
from alignlab.errors import Failure, Mistake, mistake
from alignlab.models import kinds
from alignlab.models.references import Source, model_source, scorer_source
from alignlab.pipeline import data_fit, fingerprint, memory_advice, memory_fit, setting_origins, time_estimate
from alignlab.pipeline.model_references import REWARD, named_rewards, uses_reward_stage
from alignlab.runtime import rendezvous
from alignlab.runtime.cache import is_intact
from alignlab.runtime.files import cache_root


class Stage(NamedTuple):
    """One stage of a plan; `folder` is its folder in the cache, which exists once the stage is finished."""

    name: str
    settings: Method
    inputs: dict[str, Source]
    fingerprint: str
    folder: Path

    @property
    def done(self) -> bool:
        """Return whether the stage is finished, and its files are what was written."""
        return is_intact(self.folder)

    @property
    def source(self) -> Source:
        """Return the model that this stage starts from."""
        return self.inputs["policy"]

    def method(self) -> Any:
        """Return the method that trains the stage."""
        return load_method(self.settings.name)


class Plan(NamedTuple):
    """The base model and the stages, in the order in which they run; the last is the one that was asked for."""

    config: Config
    base: Source
    stages: tuple[Stage, ...]


def make(config: Config) -> Plan:
    """Build the plan; raises a `Mistake` where a stage needs a model that does not exist."""
    base = base_model(config)
    stages: dict[str, Stage] = {}
    last = _stage(config, "method", config.method, base, stages)
    return Plan(config, base, (*(stage for stage in stages.values() if stage != last), last))


def base_model(config: Config) -> Source:
    """Return the base model; its folder is named after the hash of its settings."""
    folder = kinds.base_folder(config.model, config.dataset)
    return Source("base", folder, folder.name)


def _stage(config: Config, place: str, settings: Method, base: Source, stages: dict[str, Stage]) -> Stage:
    module = load_method(settings.name)
    inputs: dict[str, Source] = {}
    for need in needs(config, module):
        name = getattr(settings, need)
        if name == "base":
            inputs[need] = base
        elif name != "auto":
            find = scorer_source if need == REWARD else model_source
            inputs[need] = find(config, f"{place}.{need}", name)
        else:
            stage = needed_stage(config, module, f"{place}.{need}", need)
            earlier = stages.get(stage) or _stage(config, f"stages.{stage}", config.stages[stage], base, stages)
            inputs[need] = Source(stage, earlier.folder / "model", earlier.fingerprint)
    if REWARD in module.needs:
        inputs |= {name: scorer_source(config, f"{name}.path", path) for name, path in named_rewards(config)}
    key = fingerprint.of_stage(config, settings, inputs)
    stages[settings.name] = Stage(
        settings.name, settings, inputs, key, cache_root() / "stages" / f"{settings.name}-{key}"
    )
    return stages[settings.name]


def needed_stage(config: Config, method: Any, place: str, need: str) -> str:
    """Return the stage that `auto` stands for; raises a `Mistake` where there is none, or none with settings."""
    stage = method.needs.get(need, "")
    if not stage:
        raise mistake(
            place, f"no stage makes a model for {method.name}", "use base, a folder, or a hub id (owner/name)"
        )
    if stage not in config.stages:
        now = f"add '- /method@_global_.stages.{stage}: {stage}' to the defaults of conf/method/{method.name}.yaml"
        raise mistake(f"stages.{stage}", f"has no settings, and {method.name} needs that stage", now)
    return str(stage)


def needs(config: Config, module: Any) -> list[str]:
    """Return the names of a stage's input models; the reward model only where the config's reward uses it.

    The reward model comes first, so that the policy's stages can be measured with it.
    """
    others = [name for name in module.needs if name != "policy"]
    return [*(name for name in others if name != REWARD or uses_reward_stage(config)), "policy"]


class Cost(NamedTuple):
    """The rows, optimizer steps and approximate tokens of a stage; tokens are estimated from characters."""

    rows: int
    steps: int
    tokens: int | None


def cost(config: Config, stage: Stage) -> Cost | None:
    """Compute the cost of a stage from its rows and settings; None where the rows are not available yet.

    A method that generates its rows declares how many they can be.
    """
    settings = stage.settings
    assert isinstance(settings, Training)
    try:
        size = view_size(config.dataset, stage.method().view, "train")
    except (Mistake, Failure):
        if not (config.dry_run and config.dataset.is_remote):
            raise
        return stated_cost(config, settings)
    most_rows = getattr(stage.method(), "most_rows", None)
    number = most_rows(config, settings) if most_rows else size.rows
    return Cost(number, settings.steps(number), int(size.characters / CHARACTERS_PER_TOKEN * settings.reads(number)))


def stated_cost(config: Config, settings: Training) -> Cost | None:
    """Return the cost of a stage on a data set before its download, where its YAML states the size."""
    rows, length = config.dataset.stated_rows, config.dataset.stated_tokens
    if rows is None:
        return None
    tokens = None if length is None else min(length, settings.max_length) * settings.reads(rows)
    return Cost(rows, settings.steps(rows), tokens)


CHARACTERS_PER_TOKEN = 4.5


def show(plan: Plan) -> Iterator[str]:
    """Yield the plan as lines: one per model, and the needs of each stage that will run."""
    config = plan.config
    yield f"plan: {config.method.name} on {config.dataset.kind}, model {config.model.kind}, seed {config.seed}"
    yield _line("base", is_intact(plan.base.path), kinds.origin(config.model), plan.base.path)
    yield from (f"  {'':<6} {note}" for note in kinds.readiness(config.model))
    yield from (f"  {'data':<6} {line}" for line in data_lines(config))
    yield from (f"  {'ports':<6} {line}" for line in rendezvous.open_ports(config.hardware))
    for stage in plan.stages:
        read = cost(config, stage)
        what = in_words(read) + learned_turns(config, stage)
        if (partial := stage.folder.with_name(stage.folder.name + ".partial")).exists():
            what += ", resumes from its last checkpoint" if any(partial.glob("checkpoints/*/whole.json")) else ""
        yield _line(stage.name, stage.done, f"{what}, from {stage.source.name}", stage.folder)
        if not stage.done:
            yield from (f"{'':17}{line}" for line in needed(plan, stage, read))


def data_lines(config: Config) -> Iterator[str]:
    """Yield what the plan says of the rows, and of what can be measured on them."""
    from alignlab.data import plan_lines
    from alignlab.evaluation.held_out import describe

    yield from plan_lines(config.dataset)
    if not (config.dry_run and config.dataset.is_remote):
        yield from describe(config)


def learned_turns(config: Config, stage: Stage) -> str:
    """Return which turns of a conversation the stage learns, where the data set has a setting for it."""
    learn = getattr(config.dataset, "learn", None)
    if learn is None or load_method(stage.name).view != "demonstrations":
        return ""
    return ", every assistant turn is learned" if learn == "all" else ", the last assistant turn is learned"


def in_words(read: Cost | None) -> str:
    """Describe the rows, steps and tokens of a stage."""
    if read is None:
        return "rows, steps and tokens unknown until the data is downloaded"
    tokens = "tokens unknown" if read.tokens is None else f"about {_short(read.tokens)} tokens"
    return f"{read.rows:,} rows, {read.steps:,} steps, {tokens}"


def needed(plan: Plan, stage: Stage, read: Cost | None) -> Iterator[str]:
    """Yield the settings of a stage and their origin, and what it needs: devices, memory and time."""
    config, settings = plan.config, stage.settings
    assert isinstance(settings, Training)
    place = "method" if stage == plan.stages[-1] else f"stages.{stage.name}"
    yield from fingerprint.describe_change(config, settings, stage.inputs)
    yield from setting_origins.describe(config, settings, place)
    if read and (lines := stage.method().plan_lines):
        yield from lines(config, settings)
    yield from data_fit.warnings(config, settings, place, plan.base, read.rows if read else None)
    yield from memory_fit.describe(memory_fit.memory_fit(config, settings, stage.inputs, plan.base))
    if advice := memory_advice.advice(config, settings, stage.inputs, plan.base):
        yield advice
    yield time_estimate.describe(config, settings, read.tokens if read else None)


def check_memory(plan: Plan) -> None:
    """Raise a failure where a stage that is to be trained cannot fit, whatever its rows are."""
    for stage in plan.stages:
        settings = stage.settings
        assert isinstance(settings, Training)
        if not stage.done and (failed := memory_advice.check(plan.config, settings, stage.inputs, plan.base)):
            raise failed


def _line(name: str, done: bool, what: str, path: Path) -> str:
    home = str(Path.home())
    place = str(path).replace(home, "~", 1) if str(path).startswith(home) else str(path)
    return f"  {name:<6} " + (f"reuse   {place}" if done else f"run     {what}")


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k" if number >= 1e3 else str(number)
