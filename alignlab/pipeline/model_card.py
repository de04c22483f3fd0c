"""Write the card of a model: its data, its settings, its evaluation, its limits, and where feedback came from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab import data
from alignlab.config.schema import Config
from alignlab.pipeline.candidates import DecisionRecord, lineage
from alignlab.pipeline.plan import Plan, Stage
from alignlab.pipeline.run_folder import Result

if TYPE_CHECKING:
    from alignlab.evaluation.scores import DifferenceRecord, IntervalRecord


def card(plan: Plan, stage: Stage, result: Result) -> str:
    """Build the card of a stage's model in Markdown, with the front matter that the hub reads."""
    return "\n".join([*head(plan.config, stage), *training(stage), *data_lines(plan.config), *evaluation(result), ""])


def promoted_card(name: str, config: Config, record: DecisionRecord, result: Result) -> str:
    """Build the card of a promoted model: its stages, the data that it was judged on, the decision, and the limits."""
    front = ["---", "library_name: transformers", "tags: [alignlab]", "---", f"# {name}", ""]
    decided = f"Version {record['version']}: promoted over `{record['baseline']}`; every check passed."
    checks = [
        f"- {check['part']}: `{check['measure']}` ({check['kind'].replace('_', ' ')})" for check in record["checks"]
    ]
    parts = (promoted_training(record["stages"]), data_lines(config), evaluation(result))
    return "\n".join([*front, decided, "", *checks, *(line for part in parts for line in part), ""])


def promoted_training(stages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the stages of a promoted model, the settings of the last one, and the origin of the feedback."""
    yield from stage_table(stages)
    for stage in stages[-1:]:
        yield from settings_lines(stage["settings"])
    for people in dict.fromkeys(stage["feedback_from"] for stage in stages):
        yield from feedback_lines(people)


def head(config: Config, stage: Stage) -> Iterator[str]:
    """Yield the front matter, the title, and the command."""
    base = config.model.pretrained
    on_hub = base and base.path.count("/") == 1 and not base.path.startswith((".", "/", "~"))
    name = stage.settings.model_dump()["hub_model_id"]
    yield from ["---", "library_name: transformers", f"tags: [alignlab, {stage.name}]"]
    yield from [f"base_model: {base.path}"] if base and on_hub else []
    yield from ["---", f"# {name}", ""]
    yield f"Trained by `python -m alignlab method={stage.settings.name}` on `{config.dataset.kind}` from "
    yield f"`{stage.source.name}` (`{config.model.kind}`), seed {config.seed}."


def training(stage: Stage) -> Iterator[str]:
    """Yield the stages that the model was made by, and the settings of the last one."""
    yield from stage_table(lineage(stage.folder / "model"))
    yield from settings_lines(stage.settings.model_dump(mode="json"))


def settings_lines(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings as a block of YAML."""
    import yaml

    yield from ["", "```yaml", yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).strip(), "```"]


def stage_table(stages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the stages that a model was made by, each with the hash of its data."""
    yield from ["", "## Training", "", "| stage | data | seed | fingerprint |", "|---|---|---|---|"]
    for stage in stages:
        yield f"| {stage['stage']} | `{stage['data']}` | {stage['seed']} | `{stage['fingerprint']}` |"


def data_lines(config: Config) -> Iterator[str]:
    """Yield what is known of the rows, and the origin of feedback."""
    yield from ["", "## Data", "", f"Data set `{config.dataset.kind}`, hash `{data.content(config.dataset)}`."]
    yield from (f"- {line.strip()}" for line in data.plan_lines(config.dataset))
    yield from feedback_lines(config.dataset.feedback_from)


def feedback_lines(people: str) -> Iterator[str]:
    """Yield who gave the feedback; nothing where there is none."""
    if people:
        yield from ["", f"The feedback was given by {people} on answers of the models that were in service."]


def evaluation(result: Result) -> Iterator[str]:
    """Yield the measurements with the change since the base model, and what they do not say."""
    rows = result["measurements"]
    yield from ["", "## Evaluation", ""]
    if rows:
        yield from ["| measure | value | 95% interval | change since the base model | n |", "|---|---|---|---|---|"]
    for row in rows:
        change = row["difference"].get("before")
        by = f" (by {row['scorer']})" if "scorer" in row else ""
        yield f"| {row['name']}{by} | {row['value']:.4g} | {ends(row)} | {changed(change)} | {row['n']:,} |"
    yield from ["", "## Limits", ""]
    if not rows:
        yield "- Nothing was measured."
        return
    yield "- Values are of held-out prompts of the data set above, and of the listed measures alone. What is not in the"
    yield "  table was not measured: other languages, other topics, attacks and fine-tuning by others among them."
    yield "- Intervals say how much the prompts matter, not how much another training seed would."
    yield "  They are not corrected for the number of measures."
    primary = [row for row in rows if row.get("primary", 0) is not None]
    unclear = [row["name"] for row in primary if (one := row["difference"].get("before")) and not one["not_worse"]]
    if unclear:
        yield f"- A loss beyond the margin is not excluded for {', '.join(unclear)}."


def ends(interval: "IntervalRecord") -> str:
    """Return an interval as text; one prompt has none."""
    low, high = interval["low"], interval["high"]
    return "none" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def changed(difference: "DifferenceRecord | None") -> str:
    """Return a change and its interval as text."""
    return f"{difference['value']:+.4g} ({ends(difference)})" if difference else ""
