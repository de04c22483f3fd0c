"""Collect the inputs of `task=preferences`: prompts, models, and the journals that its answers and labels lie in.

Answers and labels are recorded in the cache under a hash of everything that decides them: the same command resumes
where an earlier one stopped, and another judge reuses the answers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alignlab.config import extensions
from alignlab.config.judge import Host
from alignlab.config.model import PretrainedModel
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.judges.protocol import Context
from alignlab.models import references
from alignlab.models.references import Source
from alignlab.pipeline import fingerprint, model_references
from alignlab.pipeline import plan as planning
from alignlab.preferences.sample_answers import Prompt, draw_prompts
from alignlab.rewards.reward_hash import reward_hash
from alignlab.runtime.files import cache_root, digest, digest_files
from alignlab.runtime.run_files import LABELS
from alignlab.runtime.source_hash import hash_with_imports


class Work(NamedTuple):
    """The inputs of one run of `task=preferences`."""

    config: Config
    settings: Preferences
    prompts: list[Prompt]
    answers_hash: str
    policy: Source | Host  # the model that answers: loaded here, or behind a server
    models: dict[str, Source]  # that judge, by the names under which a judge finds them
    answers: Path  # the journal of answers
    labels: Path  # the journal of labels

    @property
    def policy_name(self) -> str:
        """Return the name of the answering model."""
        return self.policy.model if isinstance(self.policy, Host) else self.policy.name


def begin(config: Config) -> Work:
    """Collect the inputs of a run; raises a `Mistake` where a judge does not go with the rest of the command."""
    settings = config.preferences
    assert isinstance(settings, Preferences)
    check_judge(config, settings)
    prompts = draw_prompts(config, settings)
    policy = settings.server if settings.server.url else find_model(config, "task.model", str(config.task.model))
    answers = hash_answers(config, settings, policy)
    models = judge_models(config, settings)
    labels = hash_labels(config, settings, models, answers)
    folder = cache_root() / "preferences"
    journals = folder / f"answers-{answers}.jsonl", folder / f"labels-{labels}.jsonl"
    return Work(config, settings, prompts, answers, policy, models, *journals)


def check_judge(config: Config, settings: Preferences) -> None:
    """Raise a `Mistake` where a judge or a panel does not go with the rest of the command."""
    judge = settings.judge
    if judge.needs_pocket and config.dataset.pocket_world is None:
        raise mistake("judge", f"{judge.kind} know only the pocket world, and dataset is {config.dataset.kind}")
    if judge.needs_reward and model_references.uses_reward_stage(config):
        what = "auto is the rm stage of a training run, and task=preferences trains none"
        raise mistake("reward.path", what, "give a reward model's folder or hub id, or choose another reward")
    for folder in settings.panel:
        if not (folder / LABELS).is_file():
            what = f"{folder} holds no labels"
            raise mistake("preferences.panel", what, "give the folder of a finished task=preferences run")


def find_model(config: Config, place: str, named: str) -> Source:
    """Return the model that a setting names: the base, a folder, or one on the hub, which is prepared."""
    if named == "base":
        return planning.base_model(config)
    source = references.model_source(config, place, named)
    if not source.path.exists():
        from alignlab.models import pretrained

        hub: PretrainedModel = references.hub_model(config, named)
        pretrained.locate(hub)
        return source._replace(path=pretrained.base_model(hub))
    return source


def judge_models(config: Config, settings: Preferences) -> dict[str, Source]:
    """Return the models that judge, by the names under which a judge finds them."""
    models: dict[str, Source] = {}
    if settings.judge.needs_model:
        models["judge_model"] = find_model(config, "preferences.judge_model", settings.judge_model)
    if settings.judge.needs_reward:
        for place, path in model_references.named_rewards(config):
            models[place] = references.scorer_source(config, f"{place}.path", path)
    return models


def judge_context(work: Work) -> Context:
    """Return the arguments that the judge is loaded with."""
    config = work.config
    folders = {name: source.path for name, source in work.models.items()}
    return Context(config.seed, config.hardware, folders, work.settings.constitution, config.reward, config.dataset)


def hash_answers(config: Config, settings: Preferences, policy: Source | Host) -> str:
    """Hash everything that decides the answers."""
    from alignlab.data import content

    sampling = settings.model_dump(
        mode="json", include={"prompts", "samples", "temperature", "top_p", "max_new_tokens", "batch_size"}
    )
    return digest(
        sampling,
        policy.model if isinstance(policy, Host) else policy.fingerprint,
        content(config.dataset),
        config.seed,
        fingerprint.arithmetic(config),
        hash_with_imports("alignlab.preferences.sample_answers"),
        fingerprint.versions(),
    )


def hash_labels(config: Config, settings: Preferences, models: Mapping[str, Source], answers: str) -> str:
    """Hash everything that decides the labels."""
    judge = settings.judge
    return digest(
        answers,
        judge.label_settings(),
        {name: source.fingerprint for name, source in models.items()},
        settings.constitution.model_dump(mode="json") if judge.needs_model else None,
        reward_hash(config.reward) if judge.needs_reward else None,
        digest_files(judge.label_files()) if judge.label_files() else None,
        hash_with_imports(extensions.name_of("judges", judge.kind)),
    )
