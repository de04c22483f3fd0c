"""Interpolate two finished policies, measure each point, and draw the front: `task=soup task.models=[a,b]`."""

import time
from collections.abc import Iterator
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Soup
from alignlab.pipeline.language_models import check_language_model
from alignlab.pipeline.run_folder import CONFIG
from alignlab.runtime.files import write_text


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    points = f"{' and '.join(settings.models)} at {', '.join(map(name_of, settings.weights))}"
    beside = f" beside {', '.join(settings.baselines)}" if settings.baselines else ""
    yield f"interpolate {points}, and measure{beside}"


def run(config: Config, folder: Path) -> None:
    """Write a model for each weight, and measure them and the baselines; the last line printed is the page's path."""
    from alignlab.models import soup
    from alignlab.pipeline.compared_models import measure_models, short_names, write_comparison
    from alignlab.pipeline.language_models import language_model
    from alignlab.pipeline.prepare_inputs import locate_models
    from alignlab.pipeline.provenance import repeatable
    from alignlab.reports.comparison_page import table, write_page
    from alignlab.reports.front_page import write_front
    from alignlab.reports.written import try_to_write

    settings, started = check(config), time.monotonic()
    config = locate_models(config)
    write_text(folder / CONFIG, repeatable(config))
    first, second = (language_model(config, "task.models", name).path for name in settings.models)
    mixed = {name_of(weight): folder / "models" / name_of(weight) for weight in settings.weights}
    for weight, place in zip(settings.weights, mixed.values(), strict=True):
        soup.write_interpolated(first, second, weight, place)
    points = [("task.models", str(place)) for place in mixed.values()]
    beside = [("task.baselines", name) for name in settings.baselines]
    names = [*mixed, *short_names([*mixed, *settings.baselines])[len(mixed) :]]
    models = measure_models(config, [*points, *beside], names)
    write_comparison(config, models, time.monotonic() - started, folder)
    print(table(folder))
    for path in try_to_write("the page", lambda: write_page(folder, settings.examples)):
        print(path)
    print(write_front(folder, settings.axes, names[len(mixed) :]))


def check(config: Config) -> Soup:
    """Return the task's settings; raises a `Mistake` where one of the models is no language model."""
    settings = config.task
    assert isinstance(settings, Soup)
    for setting, models in (("task.models", settings.models), ("task.baselines", settings.baselines)):
        for name in models:
            check_language_model(setting, name)
    return settings


def name_of(weight: float) -> str:
    """Return the name of a point, which is its weight."""
    return f"{weight:g}"
