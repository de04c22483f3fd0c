# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluation
#
# Measure a model without training, and compare several on the same prompts.

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
import alignlab

SMALL = ("model=pocket_small", "dataset=pocket_small")
trained = alignlab.run(alignlab.compose("method=sft", *SMALL))
measured = alignlab.run(alignlab.compose("task=evaluate", f"task.model={trained.models['sft']}", *SMALL))
measured.measurements[["name", "value", "low", "high", "n"]]

# %% [markdown]
# The base model and the trained one side by side. The page shows which completions got better and worse.

# %%
compared = alignlab.run(alignlab.compose("task=compare", f"task.runs=[base,{trained.models['sft']}]", *SMALL))
compared.report
