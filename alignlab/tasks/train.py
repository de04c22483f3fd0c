"""Run the stages of a plan, measure each against the model it came from, and write it all down.

A stage is trained in the cache, where every later command finds it; the run's folder holds a folder for each stage
with its result, its samples and links to its model and curves. What is there already is used; what was cut short
goes on from its last checkpoint.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab import named
from alignlab import plan as planning
from alignlab.config import (
    Config,
    HubData,
    PocketModel,
    PocketT5Model,
    PretrainedModel,
    dialogue_world,
    pocket_world,
)
from alignlab.errors import failure
from alignlab.files import building, partial_of, write_text
from alignlab.named import REWARD
from alignlab.plan import Plan, Stage
from alignlab.tasks.publish import publish
from alignlab.tasks.record import provenance, repeatable

if TYPE_CHECKING:
    from alignlab.evaluation import Evaluated
    from alignlab.tracking import Tracker
    from alignlab.workers import Job


def run(config: Config, folder: Path, choices: Mapping[str, str]) -> None:
    """Do what the plan says; the last line printed is the report's path."""
    from alignlab.evaluation.report import table, write_report

    if not config.dry_run:
        config = locate_models(config)
    prepare_data(config)
    plan = planning.make(config)
    print("\n".join(planning.show(plan)), flush=True)
    if config.dry_run:
        return
    planning.check_room(plan)
    from alignlab.tasks.held_out import with_held_out

    write_text(folder / "config.yaml", repeatable(config, choices))
    tell_leaks(config, folder)
    prepare_base(config)
    plan = plan._replace(config=with_held_out(config, folder))
    done = [{"stage": stage.name, "action": "reused" if stage.done else "ran"} for stage in plan.stages]
    story = Story(plan, folder)
    for stage in plan.stages:
        track = watched(tracker(stage, config, folder), stage == plan.stages[-1], folder)
        try:
            with clearing(stage):
                train_stage(plan, stage, folder / stage.name, track)
            result = story.tell(stage, track)
        finally:
            track.close()
        if getattr(stage.settings, "push_to_hub", False):
            publish(plan, stage, result, folder / stage.name)
    write_text(folder / "plan.json", json.dumps(done, indent=1))
    report = write_report(folder)
    point_latest(folder)
    print(table(folder))
    print(report)


def prepare_data(config: Config) -> None:
    """Write the pocket world's rows, or fetch those of the hub, where they are not there yet."""
    if isinstance(config.dataset, HubData) and not config.dry_run:
        from alignlab.data import hub

        hub.fetch(config.dataset)
    if world := pocket_world(config.dataset):
        from alignlab.pocket.annotators import prepare

        prepare(world)
    if dialogues := dialogue_world(config.dataset):
        from alignlab.pocket.dialogues import prepare as write_dialogues

        write_dialogues(dialogues)


def locate_models(config: Config) -> Config:
    """Make sure that every model is at hand or can be fetched; gives the config with the commits that were found."""
    from alignlab import pretrained

    for model in (*named.pretrained_models(config), *named.published_models(config)):
        pretrained.locate(model)
    return pretrained.pinned(config)


def tell_leaks(config: Config, folder: Path) -> None:
    """Say which rows that will be measured on stand among those that any stage trains on; keep it in leaks.json."""
    from alignlab.data.leaks import leaks
    from alignlab.tasks.prepare import prepared

    found = leaks(prepared(config.dataset).splits)
    write_text(folder / "leaks.json", json.dumps([{**leak._asdict(), "said": str(leak)} for leak in found], indent=1))
    print("\n".join(f"  {leak}" for leak in found), flush=True)


def prepare_base(config: Config) -> None:
    """Make the model that the chain starts from where it is not there yet, and every other that the config names."""
    for model in named.pretrained_models(config):
        from alignlab.pretrained import pretrained_model

        pretrained_model(model)
    for model in named.published_models(config):
        from alignlab.pretrained import published_model

        published_model(model)
    if any(given == named.POCKET for _, given in named.named_scorers(config)):
        from alignlab.pocket.detector import detector

        detector()
    named.check_labels(config, fetched=True)
    if isinstance(config.model, PretrainedModel):
        return
    if isinstance(config.model, PocketModel):
        from alignlab.pocket.base import base_model

        base_model(config.model)
    elif isinstance(config.model, PocketT5Model):
        from alignlab.pocket.t5 import base_model as t5

        t5(config.model)
    else:
        from alignlab.scratch import scratch_model

        scratch_model(config.model, config.dataset)


def tracker(stage: Stage, config: Config, folder: Path) -> "Tracker":
    """What a stage's numbers go to; a stage that is there already was tracked when it was trained."""
    from alignlab.tracking import JsonlTracker, open_tracker

    (folder / stage.name).mkdir(parents=True, exist_ok=True)
    if stage.done:
        return JsonlTracker(folder / stage.name / "metrics.jsonl")
    return open_tracker(config, stage.name, folder)


@contextmanager
def clearing(stage: Stage) -> Iterator[None]:
    """Where a search stops a run early, keep nothing of its stage: nobody will go on with it."""
    from alignlab.search import Pruned

    try:
        yield
    except Pruned:
        shutil.rmtree(partial_of(stage.folder), ignore_errors=True)
        raise


def watched(track: "Tracker", last: bool, folder: Path) -> "Tracker":
    """Let a search see the curves of a run's last stage, where the run is one of a search's."""
    from alignlab.search import reporter
    from alignlab.tracking import Trackers

    found = reporter(folder) if last else None
    return Trackers([track, found]) if found else track


def train_stage(plan: Plan, stage: Stage, folder: Path, track: "Tracker") -> None:
    """Train a stage in the cache, unless it is there, and link it into the run's folder."""
    from alignlab import stopping, workers
    from alignlab.tracking import JsonlTracker, Trackers

    with ExitStack() as ended, building(stage.folder, keep_partial=True) as partial:
        if partial is not None:
            started = time.monotonic()
            read = None if any(partial.iterdir()) else planning.cost(plan.config, stage)  # a part was learned before
            both = Trackers([track, JsonlTracker(partial / "metrics.jsonl")])
            workers.train(job(plan, stage, partial), both)
            ended.enter_context(stopping.saving())  # what was trained is put away first
            facts = provenance(plan, stage) | {"seconds": round(time.monotonic() - started, 1)}
            facts |= {"tokens": read and read.tokens}
            write_text(partial / "provenance.json", json.dumps(facts, indent=1, default=str))
    shutil.rmtree(stage.folder / "checkpoints", ignore_errors=True)
    for name in ("model", "adapter"):
        if (stage.folder / name).exists() and not (folder / name).is_symlink():
            (folder / name).symlink_to(stage.folder / name)
    for name in ("metrics.jsonl", "provenance.json", "rows.json", "gates.jsonl", *RECORDS):
        if (stage.folder / name).exists():
            shutil.copyfile(stage.folder / name, folder / name)
    if stopping.asked():
        raise stopping.stopped()


RECORDS = ("revisions.jsonl", "labels.jsonl")


def job(plan: Plan, stage: Stage, partial: Path) -> "Job":
    """What is handed to those that train a stage."""
    from alignlab.workers import Job

    inputs = {need: source.path for need, source in stage.inputs.items()}
    return Job(plan.config, stage.settings, inputs, partial, stage.fingerprint, planning.threads(plan.config))


def follow(config: Config) -> None:
    """Train with machine 0 what is not there yet; it plans, prepares, measures and reports."""
    from alignlab import rendezvous, workers
    from alignlab.tasks import held_out

    config = locate_models(config)
    prepare_data(config)
    for plan in filter(None, (held_out.plan(config), planning.make(config))):
        for stage in plan.stages:
            if not stage.done:
                rendezvous.wait_for_host(rendezvous.meeting(config.hardware).place)
                workers.launch(job(plan, stage, partial_of(stage.folder)), workers.Wire(None))


class Story:
    """The measurements of a chain, from the base model to the last stage; each model is measured once."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.measured: dict[Path, Evaluated] = {}

    def tell(self, stage: Stage, track: "Tracker") -> dict[str, Any]:
        """Write a stage's result (and, for the last stage, the run's) and track its figures."""
        place = self.folder / stage.name
        method = stage.method()
        rows = self.own(stage, place) if hasattr(method, "measure") else self.compared(stage, place, track)
        if hasattr(method, "measure_data") and self.plan.config.evaluation.enabled:
            rows = [*rows, *method.measure_data(stage.folder, self.plan.config)]
        result = {
            "stage": stage.name,
            "seed": self.plan.config.seed,
            "measurements": rows,
            "seconds": json.loads((stage.folder / "provenance.json").read_text(encoding="utf-8"))["seconds"],
            "model": str(place / "model"),
            "report": str(self.folder / "report.html"),
        }
        write_text(place / "result.json", json.dumps(result, indent=1))
        track.summary({row["name"]: row["value"] for row in rows})
        self.best_of_n(stage, place)
        if stage == self.plan.stages[-1]:
            write_text(self.folder / "result.json", json.dumps(result, indent=1))
        return result

    def best_of_n(self, stage: Stage, place: Path) -> None:
        """Write what the best of n answers is worth, where the config asks for it and the stage has a reward model."""
        config, reward = self.plan.config, stage.inputs.get(REWARD)
        if not config.evaluation.best_of_n or reward is None or pocket_world(config.dataset) is None:
            return
        from alignlab.evaluation.best_of_n import best_of_n
        from alignlab.rollouts import Sampling

        settings: Any = stage.settings
        drawn = Sampling(settings.temperature, 1.0, settings.max_new_tokens, config.evaluation.batch_size)
        found = best_of_n(stage.source, reward, config, drawn)
        write_text(place / "best_of_n.json", json.dumps([one._asdict() for one in found], indent=1))

    def own(self, stage: Stage, place: Path) -> list[dict[str, Any]]:
        """The measurements of a method that has its own, such as a reward model."""
        rows: list[dict[str, Any]] = stage.method().measure(stage.folder, self.plan.config, place)
        return rows

    def compared(self, stage: Stage, place: Path, track: "Tracker") -> list[dict[str, Any]]:
        """Measure a policy beside the model that it started from and the one that the chain started from."""
        from alignlab.evaluation import measurements
        from alignlab.evaluation.distance import distance
        from alignlab.evaluation.scores import completions, scored

        settings = self.plan.config.evaluation
        if not settings.enabled:
            return []
        now, before, previous = map(self.measure, (stage.folder / "model", self.plan.base.path, stage.source.path))
        moved = distance(stage.folder / "model", stage.source.path, now.samples, self.plan.config)
        scores = now.scores | {moved.name: moved}
        samples = [
            {**first._asdict(), "before": first.completion, "previous": second.completion, "after": last.completion}
            | {"scores": scored(scores, last.id)}
            for first, second, last in zip(before.samples, previous.samples, now.samples, strict=True)
        ]
        write_text(place / "samples.jsonl", "".join(json.dumps(sample) + "\n" for sample in samples))
        track.table("completions", *completions(samples, settings.samples))
        return measurements(scores, before.scores, previous.scores, settings)

    def measure(self, model: Path) -> "Evaluated":
        """Measure one model, or recall it."""
        from alignlab.evaluation import evaluate

        if model not in self.measured:
            config = self.plan.config
            self.measured[model] = evaluate(model, config, self.reward_model(), config.seed)
        return self.measured[model]

    def reward_model(self) -> Path | None:
        """The reward model to score with: the chain's own, else the one that the config names."""
        own = next((stage.folder / "model" for stage in self.plan.stages if stage.name == "rm"), None)
        given = self.plan.config.evaluation.reward_model
        if own or not given:
            return own
        return named.given_reward(self.plan.config, "evaluation.reward_model", given).path


DAY = re.compile(r"\d{4}-\d\d-\d\d")  # a run lies in a folder of its day


def point_latest(folder: Path) -> None:
    """Let `outputs/latest` point to this run."""
    latest = folder.absolute().parent.parent / "latest"
    if not DAY.fullmatch(folder.absolute().parent.name):
        return  # a sweep's job, or a folder that the user has named
    aside = latest.with_name(f".latest.{folder.name}")
    try:
        aside.symlink_to(folder.absolute())
        aside.replace(latest)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise failure(str(latest), f"cannot point to the run ({error.strerror})", "remove it") from error
