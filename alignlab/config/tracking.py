"""Settings of `conf/tracking/`: where curves and figures are logged."""

from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Names, Settings


class Tracking(Settings):
    """Where curves and numbers go, besides the JSONL file that is always written."""

    to: Annotated[tuple[Literal["wandb", "tensorboard", "mlflow"], ...], Field(strict=False)]
    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None
    name: str | None
    tags: Names
    mlflow_uri: str | None
