"""Hand a promoted model on to MLflow's model registry and to the Hugging Face hub, where `task=promote` asks for it.

The registry has decided by then: where a service refuses the model, the promotion stays, and the reason is printed.
"""

from importlib.util import find_spec
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Promote
from alignlab.errors import Failure, failure, mistake
from alignlab.pipeline.candidates import DecisionRecord
from alignlab.pipeline.model_card import promoted_card
from alignlab.pipeline.publish import upload
from alignlab.pipeline.registry import Pointer
from alignlab.pipeline.run_folder import Result
from alignlab.runtime.files import write_text
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import CARD

ALIAS = "in-service"  # of the version that was promoted last


def check_exports(config: Config, settings: Promote) -> None:
    """Raise a `Mistake` or a `Failure` where MLflow is asked for and cannot be had; nothing was measured yet."""
    if settings.mlflow_model is None:
        return
    if find_spec("mlflow") is None:
        raise mistake("task.mlflow_model", "mlflow is not installed", "run pip install 'alignlab[mlflow]'")
    from alignlab.runtime.mlflow_tracker import prepare_store

    prepare_store(config.tracking.mlflow_uri)


def export(
    config: Config,
    settings: Promote,
    model: Path,
    pointer: Pointer,
    record: DecisionRecord,
    result: Result,
    folder: Path,
) -> None:
    """Register and upload a promoted model as the settings ask; print where that failed."""
    try:
        if settings.mlflow_model:
            register(config, settings.mlflow_model, model, pointer, record)
        if settings.hub_model_id:
            name = settings.hub_model_id
            write_text(folder / CARD, promoted_card(name, config, record, result))
            upload("task.hub_model_id", name, model, folder, f"v{pointer['version']}")
    except Failure as error:
        say(f"version {pointer['version']} is in service, but was not exported: {error}")


def register(config: Config, name: str, model: Path, pointer: Pointer, record: DecisionRecord) -> None:
    """Register a model as a new version in MLflow, with where it comes from as tags, and point the alias to it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    tags = {"version": pointer["version"], "fingerprint": pointer["fingerprint"], "baseline": record["baseline"]}
    tags |= {f"data of {stage['stage']}": stage["data"] for stage in record["stages"]}
    try:
        client = MlflowClient(config.tracking.mlflow_uri)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        registered = client.create_model_version(name, model.absolute().as_uri(), tags=tags)
        client.set_registered_model_alias(name, ALIAS, registered.version)
    except MlflowException as error:
        raise failure("task.mlflow_model", f"{name} was not registered ({str(error).splitlines()[0][:160]})") from error
