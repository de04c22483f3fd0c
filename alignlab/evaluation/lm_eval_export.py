"""Write questions of a measurement as a task of lm-evaluation-harness: a YAML file and its documents.

Every item with choices of which one is right becomes a document, with the prompt as raw text. The task's accuracy is
the share of documents whose right choice is the likeliest. Other scores of a measurement (BBQ's bias, StereoSet's icat)
have no form in a YAML file and are not exported.
"""

import json
from pathlib import Path

from alignlab.config import extensions
from alignlab.config.compose import compose
from alignlab.errors import failure
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Item
from alignlab.runtime.files import write_text

TASK = """\
# {name}: {count} questions of alignlab's measurement, as raw text
task: alignlab_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: {version}
"""


def export_lm_eval(name: str, folder: str | Path, *overrides: str) -> Path:
    """Write the questions of a measurement that have a right choice, and return the YAML file of the task.

    `overrides` are settings of the command line, such as `evaluation.data=data`. Raises a `Failure` where the
    measurement has no such questions.
    """
    config = compose(f"measure=[{name}]", *overrides)
    module = extensions.load("measures", name)
    asked = module.items(Context(config, None, settings=config.measure[name])) if hasattr(module, "items") else []  # type: ignore[arg-type]
    labelled = [(item, label) for item in asked if (label := right_choice(item)) is not None]
    if not labelled:
        raise failure("export_lm_eval", f"{name} asks no questions with a right choice", "export another measurement")
    place = Path(folder).absolute()
    documents = place / f"alignlab_{name}.jsonl"
    write_text(documents, "".join(json.dumps(document(*one), ensure_ascii=False) + "\n" for one in labelled))
    task = place / f"alignlab_{name}.yaml"
    version = getattr(module, "VERSION", 1)
    write_text(task, TASK.format(name=name, count=len(labelled), documents=documents, version=version))
    return task


def right_choice(item: Item) -> int | None:
    """Return the place of an item's right choice; None where it has none, or several."""
    facts = item.facts
    if not item.choices:
        return None
    for key in ("label", "answer", "matching"):
        if isinstance(facts.get(key), int):
            return int(facts[key])
    if "mc1" in facts:
        return list(facts["mc1"]).index(1)
    return 0 if item.id.startswith("hhh/") else None


def document(item: Item, label: int) -> dict[str, object]:
    """Return the document of an item; choices of a chat's prompt follow `Answer:`."""
    choices = list(item.choices)
    if isinstance(item.prompt, str):
        return {"id": item.id, "text": item.prompt, "choices": choices, "label": label}
    text = "\n\n".join(turn["content"] for turn in item.prompt)
    return {
        "id": item.id,
        "text": f"{text}\nAnswer:",
        "choices": [f" {choice.lstrip()}" for choice in choices],
        "label": label,
    }
