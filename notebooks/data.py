# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Data
#
# A data set in any common format becomes views: prompts, demonstrations, pairs and labels. `pocket` is a small world
# whose rows are drawn; [the page on data](../docs/data.md) shows how your own files are read.

# %%
# Where alignlab is missing (Colab), install it beside the torch that is there; elsewhere this does nothing.
import importlib.util
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

if importlib.util.find_spec("alignlab") is None:
    try:
        torch = [f"torch=={version('torch')}"]
    except PackageNotFoundError:
        torch = []
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "alignlab[serve]", *torch], check=True)

# %%
import json
from pathlib import Path

import alignlab
from alignlab.data import view

config = alignlab.compose("task=prepare", "model=pocket_small", "dataset=pocket_small")
alignlab.run(config)

# %% [markdown]
# Each view has splits: train, validation and test.

# %%
for name in ("prompts", "demonstrations", "pairs"):
    print(name, {split: len(view(config.dataset, name, split)) for split in ("train", "validation", "test")})
view(config.dataset, "pairs", "train")[0]

# %% [markdown]
# A file of your own: the format is found by its fields, invalid rows are counted, and duplicates are left out. The
# model reads new words, so it is one from scratch; on a GPU, take one from the hub.

# %%
rows = [{"instruction": f"Say the number {number}.", "output": f"The number is {number}."} for number in range(40)]
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
own = alignlab.compose("task=prepare", "model=scratch", "dataset=file", "dataset.path=rows.jsonl")
alignlab.run(own)
print({split: len(view(own.dataset, "demonstrations", split)) for split in ("train", "validation", "test")})
