"""The names that a method's file declares, and the look-up of a method by its name.

A method is one file, `methods/<name>.py`, and one YAML of values, `conf/method/<name>.yaml`. The file declares the
names of `MethodProtocol`; only `VIEW`, `Config` and `train` are required. It is imported while a command is checked,
so it imports torch inside its functions only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from alignlab.config import extensions
from alignlab.config.settings import Settings
from alignlab.errors import mistake

Makes = Literal["policy", "reward_model"]
Roles = Literal["policy", "reference", "value", "reward"]


class MethodProtocol(Protocol):
    """The names that a method's file may declare. `most_rows` and `GENERATES` are for methods that sample answers."""

    VIEW: str
    """The rows that it learns from: the name of a view, `alignlab/data/views/<name>.py`."""
    Config: type[Any]
    """Its settings: a subclass of `alignlab.config.method.Training`."""
    NEEDS: Mapping[str, str] = {"policy": ""}
    """The models that it starts from, by setting: the stage that `auto` stands for, or "" where no stage makes one."""
    ROLES: tuple[Roles, ...] = ("policy",)
    """The networks that are in memory while it trains."""
    MAKES: Makes = "policy"
    """The kind of model that it leaves in `run.output`."""
    ENCODER_DECODERS: bool = True
    """It can train encoder-decoders."""
    GENERATES: bool = False
    """Its policy samples completions during training."""

    def train(self, run: Any) -> None:
        """Train with `run`, an `alignlab.runtime.stage_run.Run`, and leave the model in `run.output`."""

    def most_rows(self, config: Any, settings: Any) -> int:
        """Return how many rows it may learn from, where it makes rows itself."""

    def plan_lines(self, config: Any, settings: Any) -> Iterator[str]:
        """Yield what the plan says of the rows for this method."""


@dataclass(frozen=True)
class Method:
    """A method as it was looked up, with every optional name filled in."""

    name: str
    module: str
    view: str
    config: type[Settings]
    train: Callable[[Any], None]
    needs: Mapping[str, str]
    roles: tuple[str, ...]
    makes: str
    encoder_decoders: bool
    generates: bool
    most_rows: Callable[[Any, Any], int] | None
    plan_lines: Callable[[Any, Any], Iterator[str]] | None


def load_method(name: str) -> Method:
    """Look up a method; raises a `Mistake` where its file lacks a required name or declares a wrong one."""
    module = extensions.load("methods", name)
    file = f"{module.__name__}"
    for required in ("VIEW", "Config", "train"):
        if not hasattr(module, required):
            raise mistake(
                "method", f"{file} declares no {required}", "see docs/extending.md for what a method declares"
            )
    method = Method(
        name=name,
        module=module.__name__,
        view=module.VIEW,
        config=module.Config,
        train=module.train,
        needs=getattr(module, "NEEDS", MethodProtocol.NEEDS),
        roles=tuple(getattr(module, "ROLES", MethodProtocol.ROLES)),
        makes=getattr(module, "MAKES", MethodProtocol.MAKES),
        encoder_decoders=getattr(module, "ENCODER_DECODERS", MethodProtocol.ENCODER_DECODERS),
        generates=getattr(module, "GENERATES", MethodProtocol.GENERATES),
        most_rows=getattr(module, "most_rows", None),
        plan_lines=getattr(module, "plan_lines", None),
    )
    check(method, file)
    return method


def check(method: Method, file: str) -> None:
    """Raise a `Mistake` where a method declares a view, a role or a product that does not exist."""
    from typing import get_args

    if extensions.module_name("views", str(method.view)) is None:
        what = f"{file}: VIEW {method.view!r} does not exist"
        raise mistake("method", what, "see docs/data.md for the views")
    for name, value, known in (
        ("MAKES", method.makes, get_args(Makes)),
        *(("ROLES", role, get_args(Roles)) for role in method.roles),
    ):
        if value not in known:
            raise mistake("method", f"{file}: {name} {value!r} does not exist", f"use {', '.join(known)}")
    config: Any = method.config
    if not (isinstance(config, type) and issubclass(config, Settings)):
        now = "derive it from alignlab.config.method.Training"
        raise mistake("method", f"{file}: Config is no class of settings", now)
