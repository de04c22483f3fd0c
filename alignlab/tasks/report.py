"""Write the report and the table of a finished run, or of a sweep, again."""

from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.pipeline.run_folder import is_finished
from alignlab.pipeline.sweep_folder import is_sweep

COMPUTES = False


def run(config: Config, folder: Path) -> None:
    """Read `task.run` and write its report; the last line printed is the report's path."""
    from alignlab.reports.run_report import write_report
    from alignlab.reports.run_summary import table
    from alignlab.reports.sweep_summary import summarise

    place = config.task.run
    if place is None or not place.exists():
        raise mistake("task.run", f"{place} is not there", "give a run's folder, such as outputs/latest")
    if is_sweep(place):
        print("\n".join(summarise(place)))
        return
    if not is_finished(place):
        raise mistake("task.run", f"{place} holds no finished run", "give the folder of a finished run")
    report = write_report(place)
    print(table(place))
    print(report)
