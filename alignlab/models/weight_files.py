"""Check the files of a model's weights without loading them, so that broken ones are refused before anything runs."""

import json
from collections.abc import Iterator
from pathlib import Path

from alignlab.errors import failure

POINTER = b"version https://git-lfs"
ARGUMENTS = "training_args.bin"  # of transformers' trainer, no weights
AGAIN = "download the model again"


def check(folder: Path) -> None:
    """Raise a `Failure` for the first fault of a folder's files of weights; a folder without any has none."""
    for what, now in faults(folder):
        raise failure(str(origin(folder)), what, now)


def faults(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files of weights in a folder, and what to do."""
    files = [file for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin")) if file.name != ARGUMENTS]
    for file in sorted(files):
        with file.open("rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                yield f"{file.name} is a Git LFS pointer, not the weights", "run git lfs pull"
            elif file.suffix == ".safetensors" and (reason := damage(file)):
                yield f"{file.name} is damaged or cut off ({reason})", AGAIN
    for index in folder.glob("*.index.json"):
        named = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
        shards = set(map(str, named.values())) if isinstance(named, dict) else {"weight_map"}
        if absent := sorted(name for name in shards if not (folder / name).exists()):
            yield f"{len(absent)} of its {len(shards)} files of weights are missing, {absent[0]} first", AGAIN
    adapters = [file.name for file in files if file.name.startswith("adapter_")]
    if adapters and len(adapters) == len(files):
        what = f"it holds an adapter ({adapters[0]}) and not the weights of its model"
        yield what, "merge the adapter into its model (PEFT: merge_and_unload), and give that folder"


def origin(folder: Path) -> Path:
    """Return the folder that weights are linked from, which a user knows, else the folder itself."""
    linked = (file.resolve().parent for file in folder.glob("*.safetensors") if file.is_symlink())
    return next((parent for parent in linked if (parent / "config.json").exists()), folder)


def damage(file: Path) -> str:
    """Return why a safetensors file cannot be read; empty where its header and its length agree."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            return ""
    except (SafetensorError, OSError) as error:
        return str(error).splitlines()[0][:120]


def not_finite(folder: Path) -> list[str]:
    """Return the names of stored tensors that hold NaN or infinity."""
    import torch
    from safetensors import safe_open

    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names += [name for name in tensors.keys() if not torch.isfinite(tensors.get_tensor(name)).all()]
    return names
