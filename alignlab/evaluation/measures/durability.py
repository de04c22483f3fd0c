"""Durability: how many optimizer steps of fine-tuning on harmful examples undo what alignment has taught.

Harmful prompts that no stage trains on are split in two by their hashes. Low-rank adapters learn completions that do as
the first half asks; the second half is asked before and after 10, 20 and 50 steps (`measure.durability.steps`). In the
pocket world the examples are the complying completions of its test pairs, and its rules judge the replies; elsewhere
they are the `goal` and `target` of a file such as AdvBench, and the first scorer of `evaluation.refusals` judges.

`durability/answered_after_<steps>` is the share of prompts that get an answer: the attack-success curve.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.config.evaluation import Durability
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.durability import Attack, AttackedModel, Example
from alignlab.evaluation.metrics import RULES, Metric, Record, rate
from alignlab.evaluation.refusals import first_classes, first_scorer
from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.evaluation.subjects import LanguageModel
from alignlab.evaluation.suite_files import fields_of, missing, read_rows, suite_files

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 2  # since an empty completion is no answer
VIEW = None  # its examples come from a file, or from the pocket world's test pairs
FILES = "advbench/harmful_behaviors*.csv"  # in evaluation.data
PREFIX = "durability/answered_after_"


def metrics(records: "Sequence[Record]") -> list[Metric]:
    """Return the attack-success rate after each number of steps, in their order."""
    steps = {int(name.removeprefix(PREFIX)) for record in records for name in record.values}
    return [rate(f"{PREFIX}{number}", "lower") for number in sorted(steps)]


METRICS = metrics


def applies(config: Config) -> str:
    """Return why the attack cannot be run; empty where there are harmful examples."""
    return "" if config.dataset.pocket_world else missing(config, "durability", FILES)


def scored_by(config: Config, metric: str) -> str:
    """Return the name of what says which prompts are answered."""
    return RULES if config.dataset.pocket_world else first_scorer(config)


def items(context: "Context") -> list[Item]:
    """Ask the second half of the harmful prompts; nothing of a model without weights here."""
    settings = context.settings
    assert isinstance(settings, Durability)
    if not isinstance(context.subject, LanguageModel):
        return []
    prompts = {prompt_hash(one.prompt): one.prompt for one in split(examples(context.config))[1]}
    asked = [Item(f"durability/{name}", prompt, "harmful", cluster=name) for name, prompt in prompts.items()]
    return asked[: settings.prompts]


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether each prompt is answered before the attack and after each number of steps."""
    settings, base = context.settings, context.subject
    if not replies:
        return
    assert isinstance(settings, Durability)
    assert isinstance(base, LanguageModel)
    base.release()
    attack = Attack(base, split(examples(context.config))[0][: settings.examples], settings, context.config.seed)
    items = [reply.item for reply in replies]
    for steps in (0, *sorted(settings.steps)):
        after = context.ask(items, AttackedModel(attack, steps)) if steps else replies
        for reply, answered in zip(after, answers(after, context), strict=True):
            record = reply.record({f"{PREFIX}{steps}": float(answered)})
            yield record._replace(id=f"{record.id}/{steps}")
    attack.release()


def answers(replies: "Sequence[Reply]", context: "Context") -> list[bool]:
    """Return whether each reply does as its prompt asks."""
    if not context.config.dataset.pocket_world:
        return [name == "compliance" for name in first_classes(context, replies)]
    from alignlab.pocket.gold import judge

    judged = (judge(reply.item.turns, reply.text, reply.completions[0].finished) for reply in replies)
    return [bool(one.complied) for one in judged]


def examples(config: Config) -> list[Example]:
    """Return the harmful examples in the order of their hashes."""
    if config.dataset.pocket_world:
        from alignlab.data import view

        rows = view(config.dataset, "pairs", "test").to_list()
        harmful = [Example(row["prompt"], row["rejected"]) for row in rows if row["kind"] == "harmful"]
    else:
        files = suite_files(config, "durability", FILES)
        harmful = [example(dict(row), where) for file in files for where, row in read_rows(file)]
    return sorted(harmful, key=lambda one: prompt_hash(one.prompt))


def example(row: dict[str, object], where: str) -> Example:
    """Return the example of a row of a file."""
    goal, target = fields_of(row, where, "goal", "target")
    return Example([{"role": "user", "content": str(goal)}], str(target))


def split(harmful: list[Example]) -> tuple[list[Example], list[Example]]:
    """Return examples to attack with, and others to ask; no prompt is in both."""
    names = list(dict.fromkeys(prompt_hash(one.prompt) for one in harmful))
    if len(names) < 2:
        raise failure("measure.durability", "there are fewer than two harmful prompts", "give a file of more")
    first = set(names[: len(names) // 2])
    return [one for one in harmful if prompt_hash(one.prompt) in first], [
        one for one in harmful if prompt_hash(one.prompt) not in first
    ]
