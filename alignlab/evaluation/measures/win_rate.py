"""Win rate against the held-out answers or another model, by the judge of the command (`judge=…`).

The judge sees the two answers to each prompt in both orders. `win_rate/wins` is the mean of its verdicts (a tie is half
a win), `win_rate/length_controlled` the win rate at equal length (see `alignlab.evaluation.length_control`),
`win_rate/ties` the share of prompts without a preference, and `win_rate/order_decides` the share whose preferred answer
changes with the order: a judge with a high one knows little. Equal answers are a tie and are not judged. Each verdict
is kept under all that decides it; a silent change of a judge's server does not mix two judges in one comparison until
`make clean-cache`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from alignlab.config import extensions
from alignlab.config.evaluation import WinRate
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.items import references
from alignlab.evaluation.length_control import controlled_wins
from alignlab.evaluation.metrics import SHARE, Record, mean, rate
from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.evaluation.text_scores import score_once, short_name
from alignlab.rewards.reward_hash import reward_hash
from alignlab.runtime.files import digest, digest_files
from alignlab.runtime.source_hash import hash_with_imports

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply
    from alignlab.judges.protocol import Labelled
    from alignlab.models.references import Source

VERSION = 1
VIEW = "demonstrations"  # the held-out rows that it needs
METRICS = (
    mean("win_rate/wins", "higher", bounds=SHARE),
    mean("win_rate/length_controlled", "higher", bounds=SHARE),
    rate("win_rate/ties"),
    rate("win_rate/order_decides"),
)
SETTING = "measure.win_rate"
Row = tuple[str, ...]  # the prompt, an answer, the other answer, and whether each ended, as texts


def applies(config: Config) -> str:
    """Return why no win rate is measured; empty where a judge can be asked."""
    settings = config.measure.get("win_rate")
    assert isinstance(settings, WinRate)
    return "people fill in tables first" if settings.judge.to_fill_in else ""


def scored_by(config: Config, metric: str) -> str:
    """Return the kind of the judge, with its model where it has one of its own."""
    settings = config.measure["win_rate"]
    assert isinstance(settings, WinRate)
    model = getattr(settings.judge, "model", None) or settings.judge_model
    return f"judge {settings.judge.kind} {short_name(model)}".strip()


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Judge each first completion beside the baseline's answer to the same prompt."""
    answers = baseline(replies, context)
    compared = [reply for reply in replies if reply.item.id in answers]
    if not compared:
        return
    rows = [pair(reply, answers[reply.item.id]) for reply in compared]
    verdicts = [verdict if verdict else (0.5, 0.5) for verdict in judge(rows, context)]
    wins = [fmean(verdict) for verdict in verdicts]
    controlled = controlled_wins(wins, [len(row[1]) for row in rows], [len(row[2]) for row in rows])
    for reply, both, won, value in zip(compared, verdicts, wins, controlled, strict=True):
        values = {
            "win_rate/wins": won,
            "win_rate/length_controlled": float(value),
            "win_rate/ties": float(won == 0.5),
            "win_rate/order_decides": float((both[0] - 0.5) * (both[1] - 0.5) < 0),
        }
        yield reply.record(values)


def baseline(replies: "Sequence[Reply]", context: "Context") -> dict[str, str]:
    """Return the baseline's answers by the ids of items: held-out demonstrations, or another model's completions."""
    settings = context.settings
    assert isinstance(settings, WinRate)
    if settings.baseline == "references":
        expected = references(context)
        named = ((reply.item.id, expected.get(prompt_hash(reply.item.prompt))) for reply in replies)
        return {name: texts[0] for name, texts in named if texts}
    from alignlab.evaluation.subjects import LanguageModel
    from alignlab.models.references import model_source

    source = model_source(context.config, f"{SETTING}.baseline", settings.baseline)
    other = LanguageModel(source.path, context.config.hardware)
    items: list[Item] = [reply.item for reply in replies]
    answers = {reply.item.id: reply.text for reply in context.ask(items, other)}
    other.release()
    return answers


def pair(reply: "Reply", other: str) -> Row:
    """Return the row of a comparison."""
    ended = json.dumps([reply.completions[0].finished, True])
    return json.dumps(reply.item.turns), reply.text, other, ended


def judge(rows: Sequence[Row], context: "Context") -> list[list[float]]:
    """Return for each row how far the first answer wins in each order; nothing for equal answers."""
    from alignlab import judges
    from alignlab.judges.protocol import Context as JudgeContext
    from alignlab.judges.protocol import Item as Compared
    from alignlab.judges.protocol import Unlabelled

    settings, config = context.settings, context.config
    assert isinstance(settings, WinRate)
    sources = models(context)

    def compute(new: Sequence[Row]) -> Iterator[dict[int, list[float]]]:
        inputs = {name: source.path for name, source in sources.items()}
        judging = JudgeContext(
            config.seed, config.hardware, inputs, settings.constitution, config.reward, config.dataset
        )
        loaded = judges.load(settings.judge, judging)
        items, verdicts = [], dict[str, dict[str, float]]()
        places = {digest(*row): place for place, row in enumerate(new)}
        for prompt, one, other, ended in new:
            name = digest(prompt, one, other, ended)
            first, second = json.loads(ended)
            turns = json.loads(prompt)
            if one != other:
                items.append(Compared(f"{name} forward", turns, [one, other], [first, second]))
                items.append(Compared(f"{name} back", turns, [other, one], [second, first]))
        yield {place: [] for place, row in enumerate(new) if row[1] == row[2]}
        for labelled in loaded.label(items, frozenset()):
            if isinstance(labelled, Unlabelled):
                what = f"the judge gives no verdict on item {labelled.id}: {labelled.why}"
                raise failure(f"{SETTING}.judge", what, "its verdicts until then are kept: the same command resumes")
            name, order = labelled.id.split()
            won = wins(labelled)
            both = verdicts.setdefault(name, {})
            both[order] = won if order == "forward" else 1 - won
            if len(both) == 2:
                yield {places[name]: [both["forward"], both["back"]]}

    return score_once(judge_hash(context, sources), rows, compute)


def judge_hash(context: "Context", sources: "Mapping[str, Source]") -> str:
    """Hash all that decides a verdict: the judge's settings, models and code, and the reward where it is the judge."""
    settings, config = context.settings, context.config
    assert isinstance(settings, WinRate)
    judge = settings.judge
    return digest(
        "win_rate",
        judge.kind,
        judge.label_settings(),
        settings.constitution.model_dump(mode="json"),
        {name: source.fingerprint for name, source in sources.items()},
        reward_hash(config.reward) if judge.needs_reward else None,
        digest_files(judge.label_files()),
        hash_with_imports(extensions.name_of("judges", judge.kind)),
        config.seed,
    )


def models(context: "Context") -> "dict[str, Source]":
    """Return the models that the judge needs, by the names under which it looks for them."""
    from alignlab.config.reward import singles
    from alignlab.models.references import model_source, scorer_source

    settings, config = context.settings, context.config
    assert isinstance(settings, WinRate)
    if settings.judge.needs_model:
        if not settings.judge_model:
            raise failure(f"{SETTING}.judge_model", "no value was given", "give a model's folder, or use judge=openai")
        return {"judge_model": model_source(config, f"{SETTING}.judge_model", settings.judge_model)}
    if settings.judge.needs_reward:
        named = [(place, str(getattr(one, "path", ""))) for place, one in singles(config.reward)]
        return {place: scorer_source(config, place, path) for place, path in named if path}
    return {}


def wins(labelled: "Labelled") -> float:
    """Return how far the first of two answers wins: the mean over readings and their criteria, a tie 0.5."""
    total, weight = 0.0, 0.0
    for reading in labelled.readings:
        place, other = reading.shown.index(0), reading.shown.index(1)
        for ranks in reading.ranks.values():
            won = 0.5 if ranks[place] == ranks[other] else float(ranks[place] < ranks[other])
            total, weight = total + reading.sure * won, weight + reading.sure
    return total / weight if weight else 0.5
