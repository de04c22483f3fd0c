"""Decide for CI whether a candidate may ship: exit code 0 if it may, 3 if not."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.pipeline.candidates import check, judge, write_decision


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    bounds = ", ".join(name for name, bound in settings.bounds.items() if bound)
    yield f"compare {settings.model} with {settings.baseline}; bounds: {bounds}"


def run(config: Config, folder: Path) -> None:
    """Compare the candidate with the baseline and decide; raises `Refused` where a check does not pass."""
    from alignlab.reports.comparison_page import report

    settings = check(config)
    outcome = judge(config, folder, settings.baseline)
    report(write_decision(outcome, "gate", folder), folder, settings.examples)
