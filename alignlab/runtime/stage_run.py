"""The record that a method's `train` receives: its settings, input models, folder and tracker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from alignlab.config.method import Method
from alignlab.config.schema import Config

if TYPE_CHECKING:
    from datasets import Dataset

Settings = TypeVar("Settings", bound=Method, covariant=True)


class Track(Protocol):
    """A tracker that receives the metrics of a method (see `alignlab.runtime.tracking`)."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


@dataclass(frozen=True)
class Run(Generic[Settings]):
    """A stage that is being trained.

    `inputs` maps each need (`policy`, …) to a model folder. `folder` is the stage's working folder, which is kept when
    the run is interrupted. The method saves its model in `output`. `rows` maps a view and a split to rows that the
    method has generated; they replace those of the data set. `sources` names the stage, path or hub id
    that each input comes from.
    """

    config: Config
    method: Settings
    inputs: dict[str, Path]
    folder: Path
    track: Track
    rows: "Mapping[tuple[str, str], Dataset]" = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Return the folder in which the method saves the trained model."""
        return self.folder / "model"
