"""Compare models on the same held-out prompts: `task=compare task.runs=[outputs/a,outputs/b]`."""

import time
from collections.abc import Iterator
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Compare
from alignlab.pipeline.language_models import check_language_model
from alignlab.pipeline.run_folder import CONFIG
from alignlab.runtime.files import write_text


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    first, *others = check(config).runs
    yield f"compare {', '.join(others)} with {first}: {', '.join(config.measure)}"


def run(config: Config, folder: Path) -> None:
    """Measure each model, and compare the others with the first; the last line printed is the page's path."""
    from alignlab.pipeline.compared_models import measure_models, short_names, write_comparison
    from alignlab.pipeline.prepare_inputs import locate_models
    from alignlab.pipeline.provenance import repeatable
    from alignlab.reports.comparison_page import table, write_page
    from alignlab.reports.written import try_to_write

    settings, started = check(config), time.monotonic()
    config = locate_models(config)
    write_text(folder / CONFIG, repeatable(config))
    models = measure_models(config, [("task.runs", name) for name in settings.runs], short_names(settings.runs))
    write_comparison(config, models, time.monotonic() - started, folder)
    print(table(folder))
    for path in try_to_write("the page", lambda: write_page(folder, settings.examples)):
        print(path)


def check(config: Config) -> Compare:
    """Return the task's settings; raises a `Mistake` where one of the runs holds no language model."""
    settings = config.task
    assert isinstance(settings, Compare)
    for name in settings.runs:
        check_language_model("task.runs", name)
    return settings
