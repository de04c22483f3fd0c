"""The settings of `conf/` and their types.

Values are in YAML and types are here, each once. The settings of a method are in its own file
(`alignlab/methods/<name>.py`). `alignlab.config.bind` turns a composed tree into a `Config`.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, SerializeAsAny

from alignlab.config.dataset import DataSet
from alignlab.config.evaluation import Evaluation, MeasureSettings
from alignlab.config.groups import Groups
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
    _typed: tuple[str, ...] = PrivateAttr(default=())
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _groups: Groups = PrivateAttr(default_factory=Groups)

    @property
    def choices(self) -> dict[str, Any]:
        """Return the chosen option of each group, under Hydra's names; a saved config repeats them."""
        return self._choices

    @property
    def typed(self) -> tuple[str, ...]:
        """Return the settings that the command names."""
        return self._typed

    @property
    def origins(self) -> dict[str, str]:
        """Return where the value of each setting comes from that was `auto`, by place."""
        return self._origins

    def chosen(self, choices: Mapping[str, Any], typed: Iterable[str] = ()) -> "Config":
        """Return the same config with the chosen option of each group, and the settings that the command names."""
        config = self.model_copy()
        config._choices, config._typed = dict(choices), tuple(typed)
        return config

    @property
    def groups(self) -> Groups:
        """Return the groups and options that the command could choose from."""
        return self._groups

    def with_origins(self, origins: Mapping[str, str], groups: Groups) -> "Config":
        """Return the same config with the origin of each value that was `auto`, and the groups it was chosen from."""
        config = self.model_copy()
        config._origins, config._groups = dict(origins), groups
        return config
