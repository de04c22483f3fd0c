"""The shapes of `conf/`: what settings there are, and what values they may have.

Values live in YAML, types live here, each once. A method's own shape stands in its own file
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
    """Everything that a run needs to know."""

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
    preferences: SerializeAsAny[Settings] | None = None  # its shape is in alignlab.config.preferences
    seed: Seed
    dry_run: bool

    _choices: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def choices(self) -> dict[str, Any]:
        """The option of each group that was chosen, as Hydra names them; a saved config repeats them."""
        return self._choices

    def chosen(self, choices: Mapping[str, Any]) -> "Config":
        """Return the same config with the options that were chosen."""
        config = self.model_copy()
        config._choices = dict(choices)
        return config
