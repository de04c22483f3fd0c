"""Fetch or make what a run starts from: the data set, the base model, and the models that score."""

from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.dataset import HubData, dialogue_world, pocket_world
from alignlab.config.model import PocketModel, PocketT5Model, PretrainedModel
from alignlab.config.schema import Config
from alignlab.models import references
from alignlab.pipeline import model_references
from alignlab.pipeline.run_folder import CONTAMINATION, write_json

if TYPE_CHECKING:
    pass


def prepare_data(config: Config) -> None:
    """Write the pocket world's rows, or fetch those of the hub, where they are not there yet."""
    if isinstance(config.dataset, HubData) and not config.dry_run:
        from alignlab.data import hub_dataset

        hub_dataset.fetch(config.dataset)
    if world := pocket_world(config.dataset):
        from alignlab.pocket.annotators import prepare

        prepare(world)
    if dialogues := dialogue_world(config.dataset):
        from alignlab.pocket.dialogues import prepare as write_dialogues

        write_dialogues(dialogues)


def locate_models(config: Config) -> Config:
    """Make sure that every model is at hand or can be fetched; gives the config with the commits that were found."""
    from alignlab.models import pretrained

    for model in (*model_references.pretrained_models(config), *model_references.published_models(config)):
        pretrained.locate(model)
    return pretrained.pin_revision(config)


def report_contamination(config: Config, folder: Path) -> None:
    """Print how many held-out rows are among the training rows, and write the counts to the run."""
    from alignlab.data.contamination import contamination
    from alignlab.data.prepared import prepare

    splits = contamination(prepare(config.dataset).splits)
    write_json(folder / CONTAMINATION, [split.record() for split in splits])
    print("\n".join(f"  {split}" for split in splits), flush=True)


def prepare_base(config: Config) -> None:
    """Make the model that the chain starts from where it is not there yet, and every other that the config names."""
    for model in model_references.pretrained_models(config):
        from alignlab.models.pretrained import pretrained_model

        pretrained_model(model)
    for model in model_references.published_models(config):
        from alignlab.models.pretrained import published_model

        published_model(model)
    if any(given == references.POCKET for _, given in model_references.named_scorers(config)):
        from alignlab.models.pocket.insult_classifier import insult_classifier

        insult_classifier()
    model_references.check_labels(config, fetched=True)
    if isinstance(config.model, PretrainedModel):
        return
    if isinstance(config.model, PocketModel):
        from alignlab.models.pocket.base import base_model

        base_model(config.model)
    elif isinstance(config.model, PocketT5Model):
        from alignlab.models.pocket.t5 import base_model as t5

        t5(config.model)
    else:
        from alignlab.models.from_scratch import scratch_model

        scratch_model(config.model, config.dataset)
