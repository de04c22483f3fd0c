"""What `evaluation.reward_model=auto` stands for: a second reward model, which nothing is trained on.

A search among settings may choose neither by the reward that is trained, which rises when it is fooled, nor by the
world's truth, which nobody has elsewhere. A reward model that was trained apart is what every user can have. It
starts from the same base with another seed, always the same one, so that all runs of a sweep share it; on the pocket
world it learns from pairs of its own, elsewhere from the same pairs, and then shares their mistakes. It is a proxy as
well: pushed hard enough, a policy fools both.
"""

from pathlib import Path

from alignlab.config.dataset import PocketData
from alignlab.config.schema import Config
from alignlab.pipeline import plan as planning
from alignlab.pipeline.plan import Plan

AUTO = "auto"
SEED = 1000  # of the second model, and what is added to the world's


def plan(config: Config) -> Plan | None:
    """The stages that make the held-out reward model; None where the config asks for none."""
    if config.evaluation.reward_model != AUTO:
        return None
    dataset = config.dataset
    if isinstance(dataset, PocketData):
        dataset = dataset.model_copy(update={"seed": dataset.seed + SEED})
    evaluation = config.evaluation.model_copy(update={"reward_model": None})
    changed = {"method": config.stages["rm"], "seed": SEED, "dataset": dataset, "evaluation": evaluation}
    return planning.make(config.model_copy(update=changed))


def with_held_out(config: Config, folder: Path) -> Config:
    """Train the held-out reward model where it is not there yet; gives the config that names it."""
    made = plan(config)
    if made is None:
        return config
    from alignlab.pipeline.prepare_inputs import prepare_data
    from alignlab.pipeline.train_stage import tracker, train_stage

    done = made.stages[-1].done
    print(f"held out: a reward model from seed {SEED}, which only measures, {'reused' if done else 'trained first'}")
    prepare_data(made.config)
    place = folder / "held_out"
    for stage in made.stages:
        track = tracker(stage, made.config, place)
        try:
            train_stage(made, stage, place / stage.name, track)
        finally:
            track.close()
    named = config.evaluation.model_copy(update={"reward_model": str(made.stages[-1].folder / "model")})
    return config.model_copy(update={"evaluation": named})
