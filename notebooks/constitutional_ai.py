# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Constitutional AI
#
# The model criticises and revises its own answers by a constitution, and labels pairs itself; no human labels harm.

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
result = alignlab.run(alignlab.compose("method=cai", *SMALL))
list(result.models)

# %%
frame = result.measurements.set_index(["name", "stage"])["value"].unstack()
frame[frame.index.str.startswith("gold/")]

# %% [markdown]
# The constitution is a YAML file. Its principles are sampled for critiques and for labels.

# %%
from alignlab.config.reference import settings_of

for setting in list(settings_of("constitution", "assistant"))[:5]:
    print(setting.key, "|", setting.comment)
