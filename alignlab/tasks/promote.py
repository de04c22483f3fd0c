"""Put a model into service if it is better than the one in service, and nothing is worse: exit code 0, else 3."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.config.task import Promote
from alignlab.pipeline.candidates import Outcome, check, judge, lineage, write_decision
from alignlab.pipeline.export_promoted import check_exports, export
from alignlab.pipeline.registry import Registry, version_of
from alignlab.pipeline.run_folder import read_result


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    assert isinstance(settings, Promote)
    pointer = Registry(settings.registry).current()
    against = f"version {pointer['version']} of {settings.registry}" if pointer else settings.baseline
    yield f"compare {settings.model} with {against}, and put it into service if every check passes"


def run(config: Config, folder: Path) -> None:
    """Compare the candidate with the model in service, decide, and record it; raises `Refused` where it is not put in.

    As long as no model is in service, it is compared with `task.baseline`.
    """
    from alignlab.reports.comparison_page import report

    settings = check(config)
    assert isinstance(settings, Promote)
    check_exports(config, settings)
    registry = Registry(settings.registry)
    pointer = registry.current()
    if pointer:
        outcome = judge(config, folder, str(registry.model_folder(pointer)), f"version-{pointer['version']}")
    else:
        outcome = judge(config, folder, settings.baseline)
    facts, promoted = facts_of(outcome, folder), None
    if outcome.decision["accepted"]:
        promoted = registry.promote(outcome.candidate.source.path, facts, version_of(pointer))
    else:
        registry.refuse(facts)
    record = write_decision(outcome, "promote", folder, version_of(promoted))
    if promoted:
        result = read_result(folder / outcome.candidate.name)
        export(config, settings, registry.model_folder(promoted), promoted, record, result, folder)
    report(record, folder, settings.examples)


def facts_of(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Return what the registry records of a decision: the candidate, what it was made of, how it was measured."""
    source = outcome.candidate.source
    return {
        "candidate": {"path": str(source.path), "fingerprint": outcome.candidate.fingerprint},
        "baseline": {"path": str(outcome.baseline.source.path), "fingerprint": outcome.baseline.fingerprint},
        "stages": lineage(source.path),
        "evaluation": str(folder.absolute()),
        "decision": outcome.decision,
    }
