"""Download or make the inputs of a run: the data set, the base model, and the models that score."""

from pathlib import Path
from typing import TYPE_CHECKING

from alignlab import data
from alignlab.config.schema import Config
from alignlab.models import kinds, pretrained, references
from alignlab.pipeline import model_references
from alignlab.pipeline.run_folder import CONTAMINATION, write_json

if TYPE_CHECKING:
    from alignlab.data.contamination import Contamination


def prepare_data(config: Config) -> None:
    """Write the pocket world's rows, or download those of the hub, unless they are in the cache."""
    if not config.dry_run:
        data.fetch(config.dataset)
    if world := config.dataset.pocket_world:
        from alignlab.pocket.annotators import prepare

        prepare(world)
    if dialogues := config.dataset.dialogue_world:
        from alignlab.pocket.dialogues import prepare as write_dialogues

        write_dialogues(dialogues)


def locate_models(config: Config) -> Config:
    """Check that every model is cached or can be downloaded; return the config with the commits of the models."""
    from alignlab.models import pretrained

    for model in (*model_references.pretrained_models(config), *model_references.published_models(config)):
        pretrained.locate(model)
    return pretrained.pin_revision(config)


def count_contamination(config: Config, folder: Path) -> "list[Contamination]":
    """Count the held-out rows that are among the training rows, per split, and write the counts to the run."""
    from alignlab.data.contamination import contamination
    from alignlab.data.prepared import prepare

    splits = contamination(prepare(config.dataset).splits)
    write_json(folder / CONTAMINATION, [split.record() for split in splits])
    return splits


def prepare_base(config: Config) -> None:
    """Make or download the base model and every other model that the config names, unless they are cached."""
    for model in model_references.pretrained_models(config):
        from alignlab.models.pretrained import base_model

        base_model(model)
    for model in model_references.published_models(config):
        from alignlab.models.pretrained import published_model

        published_model(model)
    if any(given == references.POCKET for _, given in model_references.named_scorers(config)):
        from alignlab.models.pocket.insult_classifier import insult_classifier

        insult_classifier()
    model_references.check_scorers(config, fetched=True)
    kinds.base_model(config.model, config.dataset)
    pretrained.trust_base(config)  # its files may have been downloaded just now
