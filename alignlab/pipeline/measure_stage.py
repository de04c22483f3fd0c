"""Measure each stage against the models that it came from, and write its result."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import pocket_world
from alignlab.models import references
from alignlab.pipeline.model_references import REWARD
from alignlab.pipeline.plan import Plan, Stage
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from alignlab.evaluation import Evaluated
    from alignlab.runtime.tracking import Tracker


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
        from alignlab.models.sampling import Sampling

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
        from alignlab.evaluation.measures.kl import distance
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
        return references.given_reward(self.plan.config, "evaluation.reward_model", given).path
