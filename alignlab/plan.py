"""Which stages a run needs, which of them exist already, and what each will cost: known before anything runs.

A stage is found again by its fingerprint, the hash of all that decides its weights: its settings, the model and
the data by content, the fingerprints of what it starts from, seed, precision, threads, the sources of the modules
that it imports, and the versions of the libraries. Tracking, evaluation and folders are not in it.
"""

import ast
import json
import math
import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import alignlab
from alignlab.config import Config, Method, PocketModel, PretrainedModel, Training
from alignlab.errors import Explained, mistake
from alignlab.files import cache_root, digest, digest_files

LIBRARIES = ("torch", "transformers", "trl", "peft")
NOT_IN_FINGERPRINT = {"push_to_hub", "hub_model_id", "logging_steps", "save_steps", "save_total_limit"}


class Source(NamedTuple):
    """Where a stage takes a model from: the base model, another stage, or a path or hub id as given."""

    name: str
    path: Path
    fingerprint: str


class Stage(NamedTuple):
    """One stage of a plan; `folder` is where it lies, or will lie, in the cache."""

    name: str
    settings: Method
    inputs: dict[str, Source]
    fingerprint: str
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the stage is finished: a folder under its final name is whole."""
        return self.folder.exists()

    @property
    def source(self) -> Source:
        """The model that this stage goes on from."""
        return self.inputs["policy"]

    def method(self) -> Any:
        """The module that trains it."""
        return method_module(self.settings.name)


class Plan(NamedTuple):
    """The base model and the stages, in the order in which they run; the last is the one that was asked for."""

    config: Config
    base: Source
    stages: tuple[Stage, ...]


def method_module(name: str) -> Any:
    """The module of a method: `VIEW`, `NEEDS`, `Config` and `train`."""
    return import_module(f"alignlab.methods.{name}")


def make(config: Config) -> Plan:
    """Work out the plan; raises `Mistake` where a stage needs a model that is not there."""
    base = base_model(config)
    stages: dict[str, Stage] = {}
    last = _stage(config, "method", config.method, base, stages)
    return Plan(config, base, (*(stage for stage in stages.values() if stage != last), last))


def base_model(config: Config) -> Source:
    """The model that the whole chain starts from; its folder is named after the hash of what it is made from."""
    if isinstance(config.model, PocketModel):
        from alignlab.pocket.base import base_folder

        folder = base_folder(config.model)
    elif isinstance(config.model, PretrainedModel):
        from alignlab.pretrained import base_folder as ready_folder

        folder = ready_folder(config.model)
    else:
        from alignlab.scratch import scratch_folder

        folder = scratch_folder(config.model, config.dataset)
    return Source("base", folder, folder.name)


def _stage(config: Config, place: str, settings: Method, base: Source, stages: dict[str, Stage]) -> Stage:
    module = method_module(settings.name)
    inputs: dict[str, Source] = {}
    for need in ("policy", *(name for name in module.NEEDS if name != "policy")):
        given = getattr(settings, need)
        if given == "base":
            inputs[need] = base
        elif given != "auto":
            inputs[need] = given_model(config, f"{place}.{need}", given)
        else:
            name = module.NEEDS[need]
            earlier = stages.get(name) or _stage(config, f"stages.{name}", config.stages[name], base, stages)
            inputs[need] = Source(name, earlier.folder / "model", earlier.fingerprint)
    mark = fingerprint(config, settings, inputs)
    stages[settings.name] = Stage(
        settings.name, settings, inputs, mark, cache_root() / "stages" / f"{settings.name}-{mark}"
    )
    return stages[settings.name]


def given_model(config: Config, place: str, given: str) -> Source:
    """A model named by its path, known by its content, or by its hub id, known by its commit."""
    path = find_model(place, given)
    if path.exists():
        return Source(given, path, digest_files([path]))
    from alignlab.pretrained import base_folder

    folder = base_folder(hub_model(config, given))
    return Source(given, folder, folder.name)


def hub_model(config: Config, given: str) -> PretrainedModel:
    """A model that a setting names by its hub id; it is read as the chain's base is."""
    base = config.model if isinstance(config.model, PretrainedModel) else None
    return PretrainedModel(
        kind="pretrained",
        path=given,
        revision="main",
        attn_implementation=base.attn_implementation if base else None,
        chat_template=base.chat_template if base else None,
    )


def pretrained_models(config: Config) -> Iterator[PretrainedModel]:
    """The models that others have trained and the config names: the chain's base, and hub ids elsewhere."""
    if isinstance(config.model, PretrainedModel):
        yield config.model
    for place, given in named_models(config):
        if not find_model(place, given).exists():
            yield hub_model(config, given)


def find_model(place: str, given: str) -> Path:
    """The folder of a model (or of the stage that holds it), or a hub id as it is; `Mistake` where it is neither."""
    path = Path(given).expanduser()
    for folder in (path / "model", path):
        if (folder / "config.json").exists():
            return folder.absolute()
    if path.exists():
        raise mistake(place, f"{given} holds no model", "give a folder with config.json in it, or auto, or base")
    if given.count("/") != 1 or path.parent.exists():
        raise mistake(place, f"{given} is not there", "give a model's folder, a hub id (owner/name), auto or base")
    return path


def check_models(config: Config) -> None:
    """Raise a `Mistake` where a setting names a model that is not there or does not fit; costs nothing."""
    for place, given in named_models(config):
        find_model(place, given)
    name = config.method.name
    if (
        config.task.name == "train"
        and encoder_decoder(config)
        and not getattr(method_module(name), "ENCODER_DECODERS", True)
    ):
        raise mistake("method", f"{name} does not train encoder-decoders", "use method=sft or method=rm")


def encoder_decoder(config: Config) -> bool:
    """Whether the chain's model is known to be an encoder-decoder; one on the hub is known once it is fetched."""
    model = config.model
    if isinstance(model, PretrainedModel):
        file = Path(model.path).expanduser() / "config.json"
        return file.exists() and bool(json.loads(file.read_text(encoding="utf-8")).get("is_encoder_decoder"))
    return getattr(model, "family", None) == "t5"


def named_models(config: Config) -> Iterator[tuple[str, str]]:
    """The settings of methods and evaluation that name a model, and what they name."""
    for place, settings in (("method", config.method), *((f"stages.{name}", s) for name, s in config.stages.items())):
        for need in dict.fromkeys(("policy", *method_module(settings.name).NEEDS)):
            if (given := getattr(settings, need)) not in {"auto", "base"}:
                yield f"{place}.{need}", given
    if given := config.evaluation.reward_model:
        yield "evaluation.reward_model", given


def fingerprint(config: Config, settings: Method, inputs: dict[str, Source]) -> str:
    """The hash of everything that decides a stage's weights."""
    from alignlab.data import content
    from alignlab.models import device, precision

    return digest(
        settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT),
        config.model.adapter.model_dump(mode="json") if config.model.adapter else None,
        getattr(config.model, "attn_implementation", None),
        content(config.dataset),
        {need: source.fingerprint for need, source in inputs.items()},
        config.seed,
        [str(device(config.hardware)), str(precision(config.hardware)), threads(config)],
        config.hardware.micro_batch_size,
        sources(f"alignlab.methods.{settings.name}"),
        versions(),
    )


def threads(config: Config) -> int:
    """CPU threads: as set, else OMP_NUM_THREADS, else every core that this process may use."""
    given = config.hardware.threads or os.environ.get("OMP_NUM_THREADS")
    return int(given) if given else len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Versions of the libraries whose numbers a stage's weights stand on."""
    from importlib.metadata import version

    return {name: version(name) for name in LIBRARIES}


@cache
def sources(module: str) -> str:
    """The hash of a module of this package and of every module of it that it imports, at any depth."""
    root = Path(alignlab.__file__).parent
    seen: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split(".")[1:])
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if name not in seen and file.exists():
            seen[name] = file
            waiting += _imports(file)
    return digest_files(seen[name] for name in sorted(seen))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("alignlab"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignlab"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class Cost(NamedTuple):
    """What a stage will read: rows, optimizer steps, and tokens (about: from characters, before tokenising)."""

    rows: int
    steps: int
    tokens: int


def cost(config: Config, stage: Stage) -> Cost | None:
    """Count what a stage will do, from its rows and settings; None where the rows are not at hand."""
    from alignlab.data import view

    settings = stage.settings
    assert isinstance(settings, Training)
    try:
        rows = view(config.dataset, stage.method().VIEW, "train")
    except Explained:
        if not config.dry_run:
            raise
        return None
    steps = settings.max_steps or math.ceil(math.ceil(len(rows) / settings.batch_size) * settings.num_train_epochs)
    sample = rows.select(range(min(200, len(rows))))
    letters = sum(_letters(value) for row in sample for value in row.values()) / max(1, len(sample))
    return Cost(len(rows), steps, int(letters / LETTERS_A_TOKEN * steps * settings.batch_size))


LETTERS_A_TOKEN = 4.5


def _letters(value: Any) -> int:
    if isinstance(value, list):
        return sum(_letters(turn["content"]) if isinstance(turn, dict) else 0 for turn in value)
    return len(value) if isinstance(value, str) else 0


def show(plan: Plan) -> Iterator[str]:
    """The plan in words, a line a model."""
    config = plan.config
    yield f"plan: {config.method.name} on {config.dataset.kind}, model {config.model.kind}, seed {config.seed}"
    yield _line("base", plan.base.path.exists(), origin(config), plan.base.path)
    for stage in plan.stages:
        read = cost(config, stage)
        what = f"{read.rows:,} rows, {read.steps:,} steps, about {_short(read.tokens)} tokens" if read else UNKNOWN
        if (partial := stage.folder.with_name(stage.folder.name + ".partial")).exists():
            what += ", goes on where it stopped" if any(partial.glob("checkpoints/*/trainer_state.json")) else ""
        yield _line(stage.name, stage.done, f"{what}, from {stage.source.name}", stage.folder)


UNKNOWN = "rows, steps and tokens unknown until the data is at hand"


def origin(config: Config) -> str:
    """Where the base model will come from."""
    model = config.model
    return f"{model.path} made ready" if isinstance(model, PretrainedModel) else "made from its seed"


def _line(name: str, done: bool, what: str, path: Path) -> str:
    home = str(Path.home())
    place = str(path).replace(home, "~", 1) if str(path).startswith(home) else str(path)
    return f"  {name:<6} " + (f"reuse   {place}" if done else f"run     {what}")


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
