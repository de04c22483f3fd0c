"""What a method is handed: its settings, the models it starts from, a folder and a tracker."""

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
    """Where a method's curves go (see `alignlab.runtime.tracking`)."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


@dataclass(frozen=True)
class Run(Generic[Settings]):
    """One stage at work.

    `inputs` holds a model folder for each need (`policy`, …). `folder` is the stage's own working folder: what is
    in it outlives an interruption. The method leaves its model in `output`.
    `rows` holds what a method has made itself, by view and split, and stands before the data set's own.
    """

    config: Config
    method: Settings
    inputs: dict[str, Path]
    folder: Path
    track: Track
    rows: "Mapping[tuple[str, str], Dataset]" = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """The folder in which the finished model has to be."""
        return self.folder / "model"
