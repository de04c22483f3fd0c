"""Train the held-out reward model that `evaluation.reward_model=auto` asks for: it measures, and trains no policy.

A search must not select by the reward that is optimised, which rises under reward hacking, nor by gold, which only the
pocket world has. A separately trained reward model is available to every user. It starts from the same base model with
another seed, always the same, so that all runs of a sweep share it. On the pocket world it learns from pairs of its
own; elsewhere it learns from the same pairs and shares their errors. It is a proxy too, and enough optimisation
exploits both.
"""

from pathlib import Path

from alignlab.config.contradictions import reward_stage
from alignlab.config.schema import Config
from alignlab.pipeline import plan as planning
from alignlab.pipeline.plan import Plan

AUTO = "auto"
SEED = 1000  # of the held-out model; also added to the seed of the pocket world's rows


def plan(config: Config) -> Plan | None:
    """Plan the stages that train the held-out reward model; None where the config asks for none."""
    stage = reward_stage(config)
    if config.evaluation.reward_model != AUTO or stage is None:
        return None
    dataset = config.dataset.redrawn(SEED)
    evaluation = config.evaluation.model_copy(update={"reward_model": None})
    changed = {"method": config.stages[stage], "seed": SEED, "dataset": dataset, "evaluation": evaluation}
    return planning.make(config.model_copy(update=changed))


def with_held_out(config: Config, folder: Path) -> Config:
    """Train the held-out reward model unless it is in the cache; return the config that names it."""
    held_out = plan(config)
    if held_out is None:
        return config
    from alignlab.pipeline.prepare_inputs import prepare_data
    from alignlab.pipeline.train_stage import tracker, train_stage

    done = held_out.stages[-1].done
    print(f"held-out reward model, seed {SEED}: {'reused' if done else 'trained first'}")
    prepare_data(held_out.config)
    place = folder / "held_out"
    for stage in held_out.stages:
        track = tracker(stage, held_out.config, place)
        try:
            train_stage(held_out, stage, place / stage.name, track)
        finally:
            track.close()
    evaluation = config.evaluation.model_copy(update={"reward_model": str(held_out.stages[-1].folder / "model")})
    return config.model_copy(update={"evaluation": evaluation})
