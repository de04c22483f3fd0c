"""The settings of `conf/` and their types.

Values are in YAML and types are here, each once. The settings of a method are in its own file
(`alignlab/methods/<name>.py`). `alignlab.config.bind` turns a composed tree into a `Config`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, SerializeAsAny

from alignlab.config.dataset import DataSet
from alignlab.config.evaluation import Evaluation, MeasureSettings
from alignlab.config.hardware import Hardware
from alignlab.config.method import Method
from alignlab.config.model import PocketModel, PocketT5Model, PretrainedModel, ScratchModel
from alignlab.config.reward import AnyReward
from alignlab.config.settings import Seed, Settings
from alignlab.config.sweep import Sweep
from alignlab.config.task import Task
from alignlab.config.tracking import Tracking


class Config(Settings):
    """All settings of a run."""

    task: SerializeAsAny[Task]
    model: Annotated[PocketModel | PocketT5Model | ScratchModel | PretrainedModel, Field(discriminator="kind")]
    dataset: Annotated[DataSet, Field(discriminator="kind")]
    method: SerializeAsAny[Method]
    stages: dict[str, SerializeAsAny[Method]] = Field(default_factory=dict)
    reward: AnyReward
    hardware: SerializeAsAny[Hardware]
    evaluation: Evaluation
    measure: dict[str, SerializeAsAny[MeasureSettings]]
    tracking: Tracking
    sweep: Sweep
    preferences: SerializeAsAny[Settings] | None = None  # its class is in alignlab.config.preferences
    seed: Seed
    dry_run: bool

    _choices: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def choices(self) -> dict[str, Any]:
        """Return the chosen option of each group, under Hydra's names; a saved config repeats them."""
        return self._choices

    def chosen(self, choices: Mapping[str, Any]) -> "Config":
        """Return the same config with the chosen option of each group."""
        config = self.model_copy()
        config._choices = dict(choices)
        return config
