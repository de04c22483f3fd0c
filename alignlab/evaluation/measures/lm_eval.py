"""Tasks of lm-evaluation-harness, unmodified, asked of our subject (`evaluation.tasks`; the extra `lm-eval`).

A task is a name that lm-eval knows, or the path of a YAML file. Its own code builds prompts, filters and scores
replies; `lm_eval/<task>/<metric>` is the mean over documents, with our intervals and paired differences. The task's
declaration says which direction is better, and whether a metric is a rate. Metrics that lm-eval does not average over
documents (a corpus BLEU, a perplexity) are left out. At most `evaluation.prompts` documents of each
task are asked, the first ones, as lm-eval's `--limit` does. Prompts are raw text, without a chat template.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import mistake
from alignlab.evaluation.metrics import ONE, Better, Metric, Record, mean, rate

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Item, Reply

VERSION = 1
VIEW = None  # the tasks bring their documents
SETTING = "evaluation.tasks"
RATES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})  # 0 or 1 of each document
DIRECTIONS: dict[bool | None, Better] = {True: "higher", False: "lower", None: "neither"}
TASK = re.compile(r"""^task:\s*["']?([^\s"']+)""", re.MULTILINE)  # the name in a YAML file


def metrics(records: "Sequence[Record]") -> list[Metric]:
    """Return the metrics of the records, as their tasks declare them."""
    return [_declared[name] for name in dict.fromkeys(name for record in records for name in record.values)]


METRICS = metrics
_declared: dict[str, Metric] = {}  # of the tasks that this process has run, by name


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
        averaged = means(task, result["configs"][task], result["higher_is_better"][task])
        for sample in samples:
            record = document(task, sample, averaged)
            for name in record.values:
                _declared[name] = averaged[name.partition(",")[0]]._replace(name=name, columns=(name, ONE))
            yield record


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


def means(task: str, declared: Mapping[str, Any], higher: Mapping[str, bool | None]) -> dict[str, Metric]:
    """Return the metrics of a task that are means over its documents, by their names without a filter.

    `declared` is the task's configuration. A task that scores replies by code of its own declares no 0 or 1.
    """
    from lm_eval.api.metrics import mean as averages
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, get_metric_aggregation

    listed = declared.get("metric_list")
    if listed is None:
        listed = [{"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(str(declared.get("output_type")), ())]
    metrics = {}
    for entry in listed:
        name = str(entry["metric"])
        how = entry.get("aggregation") or get_metric_aggregation(name)
        if how in ("mean", averages):
            kind = rate if name in RATES and not declared.get("process_results") else mean
            metrics[f"lm_eval/{task}/{name}"] = kind(f"lm_eval/{task}/{name}", DIRECTIONS[higher.get(name)])
    return metrics


def document(task: str, sample: dict[str, Any], averaged: Mapping[str, Metric]) -> Record:
    """Return the record of a document under one filter: its numbers by metric, of those that are averaged."""
    name = f"{task}/{sample['doc_id']}"
    filtered = "" if sample["filter"] == "none" else f",{sample['filter']}"
    names = {one: f"lm_eval/{task}/{one}" for one in sample["metrics"]}
    values = {f"{name}{filtered}": float(sample[one]) for one, name in names.items() if name in averaged}
    return Record(f"lm_eval/{name}{filtered}", name, task, values, str(sample["filtered_resps"])[:1000])
