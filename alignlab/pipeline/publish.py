"""Upload a finished model with its card to the Hugging Face hub, when `push_to_hub` asks for it."""

from pathlib import Path

from alignlab.errors import failure
from alignlab.pipeline.model_card import card
from alignlab.pipeline.plan import Plan, Stage
from alignlab.pipeline.run_folder import Result
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import CARD


def publish(plan: Plan, stage: Stage, result: Result, folder: Path) -> None:
    """Upload a stage's model; the card is written beside the result even where the hub does not answer."""
    write_text(folder / CARD, card(plan, stage, result))
    upload(f"{stage.name}.hub_model_id", stage.settings.model_dump()["hub_model_id"], stage.folder / "model", folder)


def upload(where: str, name: str, model: Path, folder: Path, tag: str | None = None) -> None:
    """Upload a model's folder and the card in `folder` to a private repository of the hub, and tag the revision.

    Raises a `Failure`, at the setting `where`, if the hub does not take them.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        hub = HfApi()
        hub.create_repo(name, exist_ok=True, private=True)
        hub.upload_folder(repo_id=name, folder_path=model)
        hub.upload_file(repo_id=name, path_or_fileobj=folder / CARD, path_in_repo=CARD)
        if tag:
            hub.create_tag(name, tag=tag)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0][:160]
        raise failure(
            where,
            f"{name} could not be uploaded ({reason}); the model is kept in {model}",
            "set HF_TOKEN, or try again when the hub can be reached",
        ) from error
