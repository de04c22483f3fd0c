"""Settings of `conf/method/_vllm.yaml`: the vLLM server that samples the rollouts of `method.engine=vllm`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.judge import address_faults
from alignlab.config.settings import Count, File, NotNegative, Positive, Settings
from alignlab.errors import Fault


class Vllm(Settings):
    """Settings of `conf/method/_vllm.yaml`."""

    mode: Literal["server", "colocate"]
    url: str
    model: str | None
    key_env: str | None
    folder: File | None
    timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: NotNegative
    concurrency: Count
    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    startup_timeout: Positive

    def faults(self) -> Iterator[Fault]:
        if self.mode == "server":
            yield from address_faults(self.url, self.key_env)
