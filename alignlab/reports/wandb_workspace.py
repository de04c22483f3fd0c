"""A saved view of a W&B project, by `wandb-workspaces`: reward against KL, losses, preferences, completions."""

from typing import TYPE_CHECKING

from alignlab.errors import failure
from alignlab.reports.figures import KL, REWARDS

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "alignlab"
CURVES = {  # the metrics of each plot, by section
    "Losses": (("train/loss", "eval/loss"), ("train/grad_norm",), ("train/learning_rate",)),
    "Preferences": (("reward/accuracy", "eval/reward_accuracy"), ("reward/margin", "eval/reward_margin")),
}
TABLE, PICTURES = "completions", ("plots/measures", "plots/reward_against_kl")


def workspace(entity: str, project: str) -> "Workspace":
    """Build a view of the runs of a project; its `save()` writes it to the server, which needs a key.

    Runs are grouped by group and job type: by run or sweep, and by stage. Raises a `Failure` where the package is
    missing.
    """
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as views
        from wandb_workspaces.reports import v2 as panels
    except ModuleNotFoundError as error:
        raise failure("W&B", "wandb-workspaces is missing", "run pip install 'alignlab[workspaces]'") from error

    against_kl = [
        panels.LinePlot(title="reward against KL", x=KL, y=list(REWARDS)),
        panels.LinePlot(title="reward", y=list(REWARDS)),
        panels.LinePlot(title="KL to the reference", y=[KL]),
    ]
    curves = [
        views.Section(section, [panels.LinePlot(title=names[0], y=list(names)) for names in plots], is_open=True)
        for section, plots in CURVES.items()
    ]
    evaluation = [
        panels.WeavePanelSummaryTable(table_name=TABLE, layout=panels.Layout(w=24, h=12)),
        panels.MediaBrowser(title="plots", media_keys=list(PICTURES)),
    ]
    return views.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            views.Section("Reward against KL", against_kl, is_open=True),
            *curves,
            views.Section("Evaluation", evaluation, is_open=True),
        ],
        runset_settings=views.RunsetSettings(groupby=[expr.Metric("Group"), expr.Metric("JobType")]),
    )
