# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Feedback
#
# Serve a model, collect feedback over HTTP, learn from it, and serve the better model. The users are simulated; real ones
# use the pages of `task=serve`.

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
from alignlab.errors import Refused

SMALL = ("model=pocket_small", "dataset=pocket_small")
loop = alignlab.compose(
    "experiment=feedback_loop", "task.feedback=60", "task.folder=loop", "evaluation.prompts=30", *SMALL
)
try:
    alignlab.run(loop)
except Refused as refused:  # the new model is not better, and the first one stays in service
    print(refused)

# %% [markdown]
# The store is a data set: pairs, demonstrations and labels.

# %%
from alignlab.data import view

feedback = alignlab.compose(
    "task=prepare", "model=scratch", "dataset=feedback", "dataset.store=loop/feedback.db", "dataset.max_share=1.0"
)
alignlab.run(feedback)
for name in ("pairs", "demonstrations", "labels"):
    print(name, len(view(feedback.dataset, name, "train")))
view(feedback.dataset, "pairs", "train")[0]
