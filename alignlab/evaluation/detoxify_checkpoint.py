"""Load a classifier of Detoxify (Hanu and Unitary 2020, github.com/unitaryai/detoxify), or a checkpoint in its format.

Detoxify's own loader runs code that a checkpoint may hold (`weights_only=False`) and reads all texts in one forward
pass. Here a checkpoint holds tensors and plain values or is refused, and its classifier sorts texts by length, reads
them in batches of a bounded size, and cuts those beyond its context.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from alignlab.config.hardware import Hardware
from alignlab.config.settings import path_in_home
from alignlab.errors import Failure, failure
from alignlab.rewards.classifier import Classifier, limit

RENAMED = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}  # by Detoxify
CLASSES = ("ForSequenceClassification", "Tokenizer", "TokenizerFast")  # endings of transformers' classes that it names
SETTING = "measure.toxicity.detoxify"
FORMAT = "give a checkpoint of Detoxify: a dict of config and state_dict"


def load_detoxify(name: str, label: str, hardware: Hardware) -> Classifier:
    """Load a published classifier (original, unbiased, multilingual) or a checkpoint; its scores are probabilities.

    Raises a `Failure` where it is not there, holds code, is of another format, or has no such label.
    """
    from alignlab.models.load import device

    file = find_checkpoint(name)
    content = read_checkpoint(file)
    try:
        arguments = dict(content["config"]["arch"]["args"])
        labels = [RENAMED.get(one, one) for one in content["config"]["dataset"]["args"]["classes"]]
        state = content["state_dict"]
    except (LookupError, TypeError, AttributeError):
        raise failure(SETTING, f"{file} is no checkpoint of Detoxify", FORMAT) from None
    if label not in labels:
        raise failure(SETTING, f"{file} has no label {label!r}", f"there is {', '.join(labels)}")
    model, tokenizer = build(file, arguments, state)
    model.config.problem_type = "multi_label_classification"
    ready = model.to(device(hardware)).eval()
    return Classifier("toxicity", ready, tokenizer, labels.index(label), True, False, limit(ready, tokenizer))


def find_checkpoint(name: str) -> Path:
    """Return the file of a checkpoint; a published one is taken from torch's cache, or downloaded into it."""
    from urllib.error import URLError

    import torch
    from detoxify.detoxify import MODEL_URLS

    if name not in MODEL_URLS:
        file = path_in_home(Path(name))
        if not file.is_file():
            raise failure(SETTING, f"{name} is not there", f"give a checkpoint, or one of {', '.join(MODEL_URLS)}")
        return file
    url = MODEL_URLS[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (URLError, RuntimeError, OSError) as error:
            raise failure(SETTING, f"{url} cannot be downloaded ({error})", f"put it at {file}") from None
    return file


def read_checkpoint(file: Path) -> Any:
    """Return the tensors and plain values of a checkpoint; raise a `Failure` where it holds anything else."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:
        what = f"{file} holds Python code or objects, which could run anything, and is not loaded"
        raise failure(SETTING, what, "give a checkpoint of tensors and plain values") from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise failure(SETTING, f"{file} cannot be read ({type(error).__name__})", FORMAT) from None


def build(file: Path, arguments: dict[str, Any], state: Any) -> tuple[Any, Any]:
    """Build the model and the tokenizer that a checkpoint names; a relative folder is looked up beside the file."""
    from detoxify.detoxify import get_model_and_tokenizer

    names = [str(arguments.get(key, "")) for key in ("model_name", "tokenizer_name")]
    if not all(name.isidentifier() and name.endswith(CLASSES) for name in names):
        raise failure(SETTING, f"{file} names the classes {' and '.join(names)}", FORMAT)
    beside = file.parent / str(arguments.get("model_type", ""))
    if (beside / "config.json").is_file():
        arguments["model_type"] = str(beside)
    try:
        return get_model_and_tokenizer(**arguments, state_dict=state)
    except (OSError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise unbuilt(file, arguments, error) from None


def unbuilt(file: Path, arguments: dict[str, Any], error: Exception) -> Failure:
    """Build the failure of a checkpoint whose model cannot be made: its configuration comes from the hub."""
    reason = str(error).strip().split("\n")[0][:160]
    what = f"{file} cannot become a model of {arguments.get('model_type')!r} ({reason})"
    return failure(SETTING, what, "connect to the hub once, or name a folder with config and tokenizer in arch.args")
