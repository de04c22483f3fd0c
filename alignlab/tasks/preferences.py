"""Make preference data: sample a model's answers, have them judged, agree on labels, write them down.

Answers and labels are kept in the cache, prompt by prompt, under a fingerprint of all that decides them: the same
command goes on where an earlier one was stopped, and another judge gets the answers that are there. What is made of
them lies in the run's folder: `data/` in forms that every method takes, answers.jsonl, labels.jsonl, and a report.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.dataset import pocket_world
from alignlab.config.judge import AnnotatorsJudge, Host, HumanJudge, LocalJudge, RewardJudge
from alignlab.config.model import PretrainedModel
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.errors import failure, mistake
from alignlab.judges.label import found, label_all
from alignlab.judges.protocol import Labelled, Unlabelled
from alignlab.models import references
from alignlab.models.references import Source
from alignlab.pipeline import model_references
from alignlab.pipeline import plan as planning
from alignlab.pipeline.prepare_inputs import locate_models, prepare_base, prepare_data
from alignlab.pipeline.run_folder import (
    CONFIG,
    LABELING_PAGE,
    LABELING_TABLE,
    PREFERENCES_PAGE,
    Result,
    point_latest,
    write_plan,
    write_result,
)
from alignlab.preferences import agreement, write_dataset
from alignlab.preferences.label import joined, load_judge, told
from alignlab.preferences.sample_answers import Prompt, items, prompts
from alignlab.reports.preferences_page import Outcome, examples, facts, labeling, measurements, page
from alignlab.runtime.files import cache_root, digest, digest_files, locked, write_text
from alignlab.runtime.journal import Journal, line
from alignlab.runtime.run_files import ANSWERS, LABELS, PREFERENCES
from alignlab.runtime.source_hash import hash_with_imports

# Preferences that change no label: where and how a judge is asked, and what that costs.
NOT_IN_LABELS = {
    "url", "key_env", "timeout", "retries", "backoff", "longest_wait", "concurrency", "give_up_after",
    "price_read", "price_written",
}  # fmt: skip
MODULES = {  # of judges, where it is not their kind
    "reward": "by_reward",
    "choice": "pairwise_model",
    "critique": "pairwise_model",
    "both": "pairwise_model",
    "annotators": "pocket_annotators",
    "human": "human_tables",
    "openai": "chat_server",
}


class Work(NamedTuple):
    """What is to be done: prompts, the model that answers them, the models that judge, and where both are recorded.

    `mark` is what the answers are known by.
    """

    config: Config
    settings: Preferences
    asked: list[Prompt]
    mark: str
    policy: Source | Host
    inputs: dict[str, Source]
    answers: Path
    labels: Path


def run(config: Config, folder: Path) -> None:
    """Sample, judge, agree and write; the last line printed is the report's path."""
    from alignlab.pipeline.provenance import repeatable

    prepare_data(config)
    config = locate_models(config)
    work = begin(config)
    if isinstance(work.policy, Source) or work.inputs:
        prepare_base(config)
    write_text(folder / CONFIG, repeatable(config))
    answers = sample(work)
    if isinstance(work.settings.judge, HumanJudge) and not work.settings.judge.path:
        hand_out(work, folder, answers, work.settings.judge)
    else:
        write(work, folder, outcome(work, answers))
    point_latest(folder)


def begin(config: Config) -> Work:
    """Work out what is to be done, and what it is known by."""
    settings = config.preferences
    assert isinstance(settings, Preferences)
    check(config, settings)
    asked = prompts(config, settings)
    policy = answering(config, settings)
    answers = answers_mark(config, settings, policy)
    inputs = judges(config, settings)
    labels = labels_mark(config, settings, inputs, answers)
    place = cache_root() / "preferences"
    both = (place / f"answers-{answers}.jsonl", place / f"labels-{labels}.jsonl")
    return Work(config, settings, asked, answers, policy, inputs, *both)


def check(config: Config, settings: Preferences) -> None:
    """Raise a `Mistake` where a judge does not go with the rest of the command."""
    judge = settings.judge
    if isinstance(judge, AnnotatorsJudge) and pocket_world(config.dataset) is None:
        raise mistake("judge", f"annotators know only the pocket world, and dataset is {config.dataset.kind}")
    if isinstance(judge, RewardJudge) and model_references.asks_stage(config):
        what = "auto is the rm stage of a training run, and task=preferences trains none"
        raise mistake("reward.path", what, "give a reward model's folder or hub id, or choose another reward")
    for folder in settings.panel:
        if not (folder / LABELS).is_file():
            what = f"{folder} holds no labels"
            raise mistake("preferences.panel", what, "give the folder of a finished task=preferences run")


def model(config: Config, place: str, given: str) -> Source:
    """The model that a setting names: the base, a folder, or one of the hub, which is made ready."""
    if given == "base":
        return planning.base_model(config)
    source = references.given_model(config, place, given)
    if not source.path.exists():
        from alignlab.models import pretrained

        hub: PretrainedModel = references.hub_model(config, given)
        pretrained.locate(hub)
        return source._replace(path=pretrained.pretrained_model(hub))
    return source


def answering(config: Config, settings: Preferences) -> Source | Host:
    """What answers: a model that is loaded here, or one behind a server."""
    return settings.server if settings.server.url else model(config, "task.model", str(config.task.model))


def name(policy: Source | Host) -> str:
    """What the answering model is called."""
    return policy.model if isinstance(policy, Host) else policy.name


def judges(config: Config, settings: Preferences) -> dict[str, Source]:
    """The models that judge, by their places in the config."""
    match settings.judge:
        case LocalJudge():
            return {"preferences.judge_model": model(config, "preferences.judge_model", settings.judge_model)}
        case RewardJudge():
            given = [(f"{name}.path", path) for name, path in model_references.named_rewards(config)]
            return {place.removesuffix(".path"): references.given_reward(config, place, path) for place, path in given}
        case _:
            return {}


def answers_mark(config: Config, settings: Preferences, policy: Source | Host) -> str:
    """The hash of everything that decides the answers."""
    from alignlab.data import content
    from alignlab.models.load import device, precision

    drawing = settings.model_dump(
        mode="json", include={"prompts", "samples", "temperature", "top_p", "max_new_tokens", "batch_size"}
    )
    return digest(
        drawing,
        policy.model if isinstance(policy, Host) else policy.fingerprint,
        content(config.dataset),
        config.seed,
        [str(device(config.hardware)), str(precision(config.hardware)), planning.threads(config)],
        hash_with_imports("alignlab.preferences.sample_answers"),
        planning.versions(),
    )


def labels_mark(config: Config, settings: Preferences, inputs: Mapping[str, Source], answers: str) -> str:
    """The hash of everything that decides the labels; how a judge is asked, and what it costs, is no part of it."""
    kind = settings.judge.kind
    local = isinstance(settings.judge, LocalJudge)
    return digest(
        answers,
        settings.judge.model_dump(mode="json", exclude=NOT_IN_LABELS),
        {place: source.fingerprint for place, source in inputs.items()},
        settings.constitution.model_dump(mode="json") if local else None,
        model_references.reward_mark(config) if kind == "reward" else None,
        digest_files(settings.judge.path) if isinstance(settings.judge, HumanJudge) else None,
        hash_with_imports(f"alignlab.judges.{MODULES.get(kind, kind)}"),
    )


def sample(work: Work) -> list[dict[str, Any]]:
    """The answers to every prompt, in the order of the prompts."""
    with locked(work.answers):
        journal = Journal(work.answers)
        tell("answers", journal, len(work.asked))
        if any(prompt.id not in journal.rows for prompt in work.asked):
            draw_answers(work, journal)
    return [journal.rows[prompt.id] for prompt in work.asked]


def draw_answers(work: Work, journal: Journal) -> None:
    """Answer the prompts that are left."""
    if isinstance(work.policy, Host):
        from alignlab.preferences.sample_from_server import fetch_answers

        fetch_answers(work.asked, work.settings, work.config.seed, journal)
        return
    from alignlab.models.load import load_policy
    from alignlab.preferences.sample_answers import sample_answers

    policy = load_policy(work.policy.path, work.config.hardware)
    sample_answers(*policy, work.asked, work.settings, work.config.seed, journal)


def judged(work: Work, answers: list[dict[str, Any]]) -> tuple[list[Labelled], list[Unlabelled]]:
    """The labels of all answers, in the order of the prompts, and what could not be labelled."""
    compared = items(answers)
    with locked(work.labels):
        journal = Journal(work.labels)
        tell("labels", journal, len(compared))
        missing: list[Unlabelled] = []
        if any(item.id not in journal.rows for item in compared):
            inputs = {place: source.path for place, source in work.inputs.items()}
            missing = label_all(load_judge(work.config, work.settings, inputs), compared, journal)
    return found(journal, compared), missing


def tell(what: str, journal: Journal, wanted: int) -> None:
    """Say how much an earlier run has left."""
    if journal.rows:
        print(f"{what} to {len(journal.rows):,} of {wanted:,} prompts are there already", flush=True)


def outcome(work: Work, answers: list[dict[str, Any]]) -> Outcome:
    """Have the answers judged, and agree on them; people's own labels stand beside the judge's where there are any."""
    settings = work.settings
    labels, missing = judged(work, answers)
    labels = joined(labels, settings.panel, work.mark)
    sizes = {row["id"]: len(row["answers"]) for row in answers}
    agreed = agreement.agreed(labels, sizes, settings.consensus, settings.weights)
    return Outcome(answers, labels, missing, agreed, write_dataset.make(answers, agreed), people(work, answers))


def people(work: Work, answers: list[dict[str, Any]]) -> list[Labelled]:
    """What people have said of the same answers."""
    from alignlab.judges.human_tables import Human, criteria_of

    paths = work.settings.people.path
    if not paths:
        return []
    told_by = Human(paths, criteria_of(paths[0]))
    return [one for one in told_by.label(items(answers), ()) if isinstance(one, Labelled)]


def hand_out(work: Work, folder: Path, answers: list[dict[str, Any]], judge: HumanJudge) -> None:
    """Write the table that people fill in, and their instructions."""
    from alignlab.judges.human_tables import sheet

    compared = items(answers)
    if not compared:
        raise failure("task=preferences", "no prompt has two different answers", "raise preferences.temperature")
    table = folder / LABELING_TABLE
    write_text(folder / ANSWERS, "".join(map(line, answers)))
    write_text(table, sheet(compared, judge.criteria, work.config.seed))
    write_text(folder / LABELING_PAGE, labeling(compared, judge.criteria))
    print(f"{len(compared):,} prompts to rank: give the same command with judge.path=… once this is filled in:")
    print(table)
    print(folder / LABELING_PAGE)


def write(work: Work, folder: Path, found: Outcome) -> None:
    """Write what was asked, said and made of it; the last line printed is the report's path."""
    known = {"answers_mark": work.mark, **facts(work.config, work.settings, name(work.policy), found)}
    write_text(folder / ANSWERS, "".join(map(line, found.answers)))
    write_text(folder / LABELS, "".join(map(told, found.labels)))
    write_dataset.write(found.made, folder / "data", write_dataset.card(work.config, work.settings, known))
    write_text(folder / PREFERENCES, json.dumps(known, indent=1, ensure_ascii=False))
    write_text(folder / PREFERENCES_PAGE, page(known, examples(found)))
    result: Result = {
        "stage": "preferences",
        "seed": work.config.seed,
        "measurements": measurements(known),
        "seconds": known["cost"]["seconds"],
        "model": str(work.policy.path) if isinstance(work.policy, Source) else work.policy.model,
        "report": str(folder / PREFERENCES_PAGE),
    }
    write_result(result, folder / "preferences", folder)
    write_plan(folder, [{"stage": "preferences", "action": "ran"}])
    print("\n".join(summary(known)))
    print(folder / "data")
    print(folder / PREFERENCES_PAGE)


def summary(known: Mapping[str, Any]) -> Iterator[str]:
    """The facts in a few lines for the terminal."""
    yield f"{known['labelled']:,} of {known['compared']:,} prompts labelled by judge={known['judge']}"
    yield from (f"no label for {count:,}: {why}" for why, count in known["unlabelled"].items())
    yield from (f"tried again {count:,} times: {why}" for why, count in known["cost"]["again"].items())
    for one in known["right"]:
        unit = " points" if "−" in one["name"] else "%"
        yield f"{one['name']}: {100 * one['value']:.1f}{unit} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
    yield from (f"left out: {count:,} {why}" for why, count in known["left_out"].items())
    yield ", ".join(f"{name} {count:,}" for name, count in known["rows"].items())


def plan(config: Config) -> Iterator[str]:
    """What the command would do, and what of it is done already."""
    settings = config.preferences
    assert isinstance(settings, Preferences)
    prepare_data(config)
    work = begin(config)
    answered, labelled = (len(Journal(path).rows) if path.exists() else 0 for path in (work.answers, work.labels))
    yield f"preferences on {config.dataset.kind}, answers of {name(work.policy)}, judge {settings.judge.kind}"
    yield f"  sample  {settings.samples} answers to each of {len(work.asked):,} prompts, {answered:,} done"
    yield f"  judge   every prompt with different answers, {labelled:,} done"
