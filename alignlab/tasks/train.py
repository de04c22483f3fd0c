"""Run the stages of a plan, measure each against the model that it came from, and write the report.

A stage is trained in the cache, where every later command finds it. The run's folder holds one folder per stage with
its result, its samples, its curves and its model. A finished stage is reused; an interrupted one resumes from
its last checkpoint.
"""

from collections.abc import Iterator
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import Failure
from alignlab.models import four_bit
from alignlab.models.load import device
from alignlab.pipeline import input_checks
from alignlab.pipeline import plan as planning
from alignlab.pipeline.measure_stage import StageMeasurements
from alignlab.pipeline.prepare_inputs import count_contamination, locate_models, prepare_base, prepare_data
from alignlab.pipeline.provenance import repeatable
from alignlab.pipeline.publish import publish
from alignlab.pipeline.run_folder import CONFIG, PLAN_TEXT, PlannedStage, point_latest, write_plan
from alignlab.pipeline.sweep_folder import read_trial
from alignlab.pipeline.train_stage import clearing, copy_from_training, tracker, train_stage, watched
from alignlab.pipeline.trial_reporter import Pruned
from alignlab.runtime import terminal
from alignlab.runtime.files import partial_of, write_text
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import RESULT


def plan(config: Config) -> Iterator[str]:
    """Yield what would run, what is cached, and what each stage needs."""
    prepare_data(config)
    plan = planning.make(config)
    input_checks.check(plan)
    yield from planning.show(plan)


def run(config: Config, folder: Path) -> None:
    """Run the plan; the last line printed is the report's path."""
    from alignlab.reports.run_summary import summarise

    config = locate_models(config)
    prepare_data(config)
    plan = planning.make(config)
    trial = read_trial(folder)
    quiet = trial is not None and trial["number"] > 0  # a sweep prints the plan of its first run
    lines = list(planning.show(plan))
    write_text(folder / PLAN_TEXT, "\n".join([*lines, ""]))
    terminal.show([] if quiet else lines)
    device(config.hardware)  # raises a failure where cuda is set and there is no GPU
    four_bit.check(config)
    planning.check_memory(plan)
    input_checks.check(plan)
    from alignlab.pipeline.held_out_reward_model import with_held_out

    write_text(folder / CONFIG, repeatable(config))
    counted = count_contamination(config, folder)
    terminal.show([] if quiet else [f"  {split}" for split in counted])
    prepare_base(config)
    plan = plan._replace(config=with_held_out(config, folder))
    planned: list[PlannedStage] = [
        {"stage": stage.name, "action": "reused" if stage.done else "ran"} for stage in plan.stages
    ]
    try:
        train_and_measure(plan, folder)
    except Failure as error:
        report_stop(plan, folder, planned, error)
        raise
    write_plan(folder, planned)
    point_latest(folder)
    for line in summarise(folder, in_sweep=trial is not None):
        print(line)


def train_and_measure(plan: planning.Plan, folder: Path) -> None:
    """Train each stage, unless it is finished, and measure it."""
    from alignlab.reports import stage_end

    measurements = StageMeasurements(plan, folder)
    for number, stage in enumerate(plan.stages, 1):
        reused = stage.done
        if not reused and plan.stages[1:]:
            say(f"stage {number} of {len(plan.stages)}: {stage.name}")
        track = watched(tracker(stage, plan.config, folder), stage == plan.stages[-1], folder)
        try:
            with clearing(stage):
                train_stage(plan, stage, folder / stage.name, track)
            result = measurements.measure(stage, track)
            if not reused:
                track.end(stage_end.finished(folder / stage.name))
        except Failure:
            track.end(stage_end.stopped(partial_of(stage.folder)))
            raise
        finally:
            track.close()
        if getattr(stage.settings, "push_to_hub", False):
            publish(plan, stage, result, folder / stage.name)


def report_stop(plan: planning.Plan, folder: Path, planned: list[PlannedStage], error: Failure) -> None:
    """Write the report of a run that an error has stopped: its finished stages, and the curves of the stopped one."""
    from alignlab.reports.run_report import write_report
    from alignlab.reports.written import try_to_write

    finished = [entry for entry in planned if (folder / entry["stage"] / RESULT).exists()]
    stage = plan.stages[len(finished)] if len(finished) < len(plan.stages) else None
    if stage is None or isinstance(error, Pruned):
        return
    copy_from_training(partial_of(stage.folder), folder / stage.name)
    write_plan(folder, [*finished, {"stage": stage.name, "action": "stopped", "why": str(error)}])
    for path in try_to_write("the report", lambda: write_report(folder)):
        print(path)
