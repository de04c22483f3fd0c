"""Load what explanations read from a run's folder: a stage's policy, its reference, the judge and training rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.hardware import Hardware
from alignlab.config.method_protocol import load_method
from alignlab.config.reward import ClassifierReward
from alignlab.config.schema import Config
from alignlab.errors import Mistake, failure, mistake
from alignlab.explanations.explain import Models
from alignlab.explanations.nearest import Row, embed_rows
from alignlab.models import references
from alignlab.pipeline.prepare_inputs import prepare_data
from alignlab.pipeline.run_folder import CONFIG, PROVENANCE, read_plan, read_provenance

if TYPE_CHECKING:
    from alignlab.explanations.explain import Explained
    from alignlab.explanations.gradients import Checkpoint
    from alignlab.explanations.record import Explanation
    from alignlab.rewards.classifier import Classifier
    from alignlab.rewards.reward_model import RewardModel


def policies(run: Path) -> list[str]:
    """Return the stages of a finished run that trained a policy, in their order."""
    trained = [entry["stage"] for entry in read_plan(run) if entry["action"] != "stopped"]
    return [name for name in trained if is_stage(run, name) and load_method(name).makes == "policy"]


def is_stage(run: Path, name: str) -> bool:
    """Return whether a run holds a model of a stage, whose name is no path."""
    return Path(name).name == name and (run / name / "model" / "config.json").exists()


def config_of(run: Path) -> Config:
    """Bind the config of a run again; raises a `Failure` where it has none."""
    from alignlab.config.compose import compose
    from alignlab.config.quoting import quote_value

    if not (run / CONFIG).exists():
        raise failure(str(run / CONFIG), "is not there", "give the folder of a run of task=train")
    config = compose(quote_value(f"experiment={run.absolute() / CONFIG}"))
    prepare_data(config)
    return config


def load(
    run: Path, stage: str | None, scorer: str | None, label: str | None, hardware: Hardware, rows: int, neighbours: int
) -> Models:
    """Load the models of a stage, by default of the run's last policy.

    The judge is what `scorer` names, a classifier where there is a `label`, else the reward model of the run.
    """
    from alignlab.models.load import load_policy

    trained = policies(run)
    if not trained or stage not in (None, *trained):
        raise mistake(
            "task.stage", f"{run} has no policy of a stage {stage or 'at all'}", f"there is {', '.join(trained)}"
        )
    chosen = stage or trained[-1]
    config = config_of(run)
    policy, tokenizer = load_policy(run / chosen / "model", hardware)
    start = reference_folder(run, chosen)
    reference = load_policy(start, hardware)[0] if start else None
    judge = load_judge(config, run, scorer, label, hardware)
    read = training_rows(config, trained, rows)
    embedded = embed_rows(policy, tokenizer, read) if read else None
    return Models(policy, tokenizer, reference, judge, read, embedded, neighbours)


def reference_folder(run: Path, stage: str) -> Path | None:
    """Return the model that a stage started from; None where it is no longer there."""
    if not (run / stage / PROVENANCE).exists():
        return None
    source: dict[str, Any] = read_provenance(run / stage)["inputs"].get("policy", {})
    name, path = str(source.get("name", "")), Path(str(source.get("path", "")))
    folder = run / name / "model" if is_stage(run, name) else path
    return folder if (folder / "config.json").exists() else None


def gradient_neighbours(
    run: Path, stage: str, items: "Sequence[Explained]", hardware: Hardware, rows: int, neighbours: int
) -> "list[Explanation]":
    """Return the training rows of a stage and of those before it whose gradients are most similar to completions'."""
    import torch

    from alignlab.explanations import gradients

    config, trained = config_of(run), policies(run)
    completions = [(item["prompt"], item["completion"]) for item in items]
    read: list[Row] = []
    similar = []
    for name in trained[: trained.index(stage) + 1]:
        taught = [row for row in rows_of(config, name, rows) if row.text]
        if taught:
            each = [gradients.of_checkpoint(left, completions, taught) for left in checkpoints(run, name, hardware)]
            similar.append(torch.stack(each).mean(0))
            read += taught
    if not read:
        return []
    return gradients.explanations(torch.cat(similar, dim=1), read, neighbours)


def checkpoints(run: Path, stage: str, hardware: Hardware) -> "Iterator[Checkpoint]":
    """Yield what is left of a stage's training: the model that it started from and the one that it ended with.

    An adapter is put on the model that it was trained on, and is one checkpoint: its first weights are not kept.
    """
    from alignlab.explanations.gradients import Checkpoint, compared_weights
    from alignlab.models.load import load_policy

    start, adapter = reference_folder(run, stage), run / stage / "adapter"
    if start and adapter.exists():
        from peft import PeftModel

        base, tokenizer = load_policy(start, hardware)
        model = PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
        yield Checkpoint(model, tokenizer, compared_weights(model))
        return
    for folder in filter(None, (start, run / stage / "model")):
        policy, tokenizer = load_policy(folder, hardware)
        yield Checkpoint(policy, tokenizer, compared_weights(policy))


def load_judge(
    config: Config, run: Path, scorer: str | None, label: str | None, hardware: Hardware
) -> "RewardModel | Classifier | None":
    """Load what scores completions; None where nothing is named and the run has no reward model."""
    from alignlab.rewards.classifier import load_classifier
    from alignlab.rewards.reward_model import load_reward_model

    if scorer is None:
        trained = [name for name in ("rm", "cai_rm") if is_stage(run, name)]
        return load_reward_model(run / trained[0], hardware) if trained else None
    folder = references.scorer_source(config, "task.scorer", scorer).path
    if label is None:
        return load_reward_model(folder, hardware)
    reward = ClassifierReward(kind="classifier", path=scorer, label=label, output="logit", include_prompt=False)
    return load_classifier(reward, folder, hardware, "explained")


def training_rows(config: Config, stages: Sequence[str], most: int) -> list[Row]:
    """Return up to `most` training rows of each stage, evenly spread over its data."""
    return [row for stage in stages for row in rows_of(config, stage, most)]


def rows_of(config: Config, stage: str, most: int) -> Iterator[Row]:
    """Yield training rows of a stage; none where it makes its rows itself."""
    from alignlab import data

    try:
        rows = data.view(config.dataset, load_method(stage).view, "train")
    except Mistake:
        return
    step = max(1, -(-len(rows) // most))
    for number in range(0, len(rows), step):
        row = rows[number]
        if not row.get("prompt"):
            continue
        text, rejected = row.get("completion") or row.get("chosen") or "", row.get("rejected")
        if not row.get("desirable", True):  # KTO teaches to avoid it
            text = ""
        yield Row(stage, str(row.get("id", number)), row["prompt"], text if isinstance(text, str) else "", rejected)
