"""Align language models by configuration: SFT, reward models, DPO, PPO and Constitutional AI, from one command.

The same from Python: `alignlab.run(alignlab.compose("method=dpo", "model=pocket_small", "dataset=pocket_small"))`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignlab.config.compose import compose as compose
    from alignlab.config.schema import Config as Config
    from alignlab.evaluation.as_metric import as_metric as as_metric
    from alignlab.evaluation.lm_eval_export import export_lm_eval as export_lm_eval
    from alignlab.pipeline.launch import run as run
    from alignlab.pipeline.result import Result as Result

__version__ = "0.1.0"
__all__ = ["Config", "Result", "as_metric", "compose", "export_lm_eval", "run"]

_HOMES = {
    "compose": "alignlab.config.compose",
    "Config": "alignlab.config.schema",
    "as_metric": "alignlab.evaluation.as_metric",
    "export_lm_eval": "alignlab.evaluation.lm_eval_export",
    "run": "alignlab.pipeline.launch",
    "Result": "alignlab.pipeline.result",
}


def __getattr__(name: str) -> Any:
    """Import a name of the Python interface when it is first used: a command's mistake must not wait for it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alignlab' has no attribute {name!r}")
