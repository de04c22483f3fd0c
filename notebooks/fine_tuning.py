# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tuning
#
# Supervised fine-tuning, then direct preference optimisation (DPO) on pairs. Each stage is measured before and after.

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
result = alignlab.run(alignlab.compose("method=dpo", *SMALL))

# %% [markdown]
# One row per stage and measurement, with 95% intervals and the paired change since the stage before.

# %%
frame = result.measurements
frame[["stage", "name", "value", "low", "high", "change", "change_low", "change_high"]]

# %% [markdown]
# A stage's model is a folder of transformers. A finished stage is not trained again: the next line takes SFT from the
# cache and trains DPO alone, with another beta.

# %%
other = alignlab.run(alignlab.compose("method=dpo", "method.beta=0.5", *SMALL))
result.models["dpo"], other.models["dpo"], result.report
