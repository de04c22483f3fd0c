"""Tasks of lm-evaluation-harness, unmodified, asked of our subject (`evaluation.tasks`; the extra `lm-eval`).

A task is a name that lm-eval knows, or the path of a YAML file. Its own code builds prompts, filters and scores
replies; `lm_eval/<task>/<metric>` is the mean over documents, with our intervals and paired differences. Metrics that
lm-eval computes from all documents at once (a corpus BLEU) are left out. At most `evaluation.prompts` documents of each
task are asked, the first ones, as lm-eval's `--limit` does. Prompts are raw text, without a chat template.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import mistake
from alignlab.evaluation.metrics import Better, Metric, Record, mean, rate

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Item, Reply

VERSION = 1
VIEW = None  # the tasks bring their documents
SETTING = "evaluation.tasks"
TASK = re.compile(r"""^task:\s*["']?([^\s"']+)""", re.MULTILINE)  # the name in a YAML file


def metrics(records: "Sequence[Record]") -> list[Metric]:
    """Return the mean of each metric of each task; a rate where its values are 0 and 1."""
    from lm_eval.api.registry import is_higher_better

    values: dict[str, set[float]] = {}
    for record in records:
        for name, value in record.values.items():
            values.setdefault(name, set()).add(value)
    directions: dict[bool | None, Better] = {True: "higher", False: "lower", None: "neither"}
    better = {name: directions[is_higher_better(name.rpartition("/")[2].partition(",")[0])] for name in values}
    return [(rate if seen <= {0.0, 1.0} else mean)(name, better[name]) for name, seen in values.items()]


METRICS = metrics


def applies(config: Config) -> str:
    """Return why no task is asked; empty where some are named. Raises a `Mistake` where lm-eval is not installed."""
    from importlib.util import find_spec

    if config.evaluation.tasks and find_spec("lm_eval") is None:
        raise mistake(SETTING, "lm-eval is not installed", "run pip install 'alignlab[lm-eval]'")
    return "" if config.evaluation.tasks else "evaluation.tasks names no task"


def items(context: "Context") -> "list[Item]":
    """Ask nothing here: the tasks ask as they are scored."""
    return []


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Run the tasks and return a record of each document."""
    if not getattr(context.subject, "completes", True):  # a reward model
        return
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from alignlab.evaluation.lm_eval_model import SubjectModel

    names, folders = find_tasks(context.config)
    manager = TaskManager(include_path=folders or None, include_defaults=len(folders) < len(names))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise mistake(SETTING, f"lm-eval knows no task {unknown[0]!r}", "give the path of its YAML file")
    result: Any = simple_evaluate(
        SubjectModel(context),
        tasks=names,
        task_manager=manager,
        limit=context.config.evaluation.prompts,
        bootstrap_iters=0,
    )
    for task, samples in result["samples"].items():
        for sample in samples:
            yield document(task, sample)


def find_tasks(config: Config) -> tuple[list[str], list[str]]:
    """Return the names of tasks, and the folders of those that are given by their files."""
    names, folders = [], []
    for name in config.evaluation.tasks:
        path = path_in_home(Path(name))
        if path.suffix in {".yaml", ".yml"}:
            if not path.is_file():
                raise mistake(SETTING, f"{name} is not there", "give a task's name, or its YAML file")
            folders.append(str(path.parent.absolute()))
            named = TASK.search(path.read_text(encoding="utf-8"))
            names.append(named[1] if named else path.stem)
        else:
            names.append(name)
    return names, folders


def document(task: str, sample: dict[str, Any]) -> Record:
    """Return the record of a document under one filter: its numbers by metric."""
    name = f"{task}/{sample['doc_id']}"
    filtered = "" if sample["filter"] == "none" else f",{sample['filter']}"
    numbers = {one: sample[one] for one in sample["metrics"] if isinstance(sample[one], int | float)}
    values = {f"lm_eval/{task}/{one}{filtered}": float(value) for one, value in numbers.items()}
    return Record(f"lm_eval/{name}{filtered}", name, task, values, str(sample["filtered_resps"])[:1000])
