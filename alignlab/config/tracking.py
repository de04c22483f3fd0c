"""Settings of `conf/tracking/`: the services that metrics are logged to."""

from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Names, Settings


class Tracking(Settings):
    """The services that receive metrics, besides the JSONL file that is always written."""

    to: Annotated[tuple[Literal["wandb", "tensorboard", "mlflow"], ...], Field(strict=False)]
    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None
    name: str | None
    tags: Names
    upload: bool
    mlflow_uri: str | None
