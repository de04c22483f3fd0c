# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learning from human feedback
#
# A reward model learns from pairs, and PPO raises its reward, close to the SFT model. The true quality of an answer is
# known in the pocket world, so that reward hacking is visible.

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
config = alignlab.compose("method=ppo", "method.total_episodes=960", *SMALL)
result = alignlab.run(config)

# %%
frame = result.measurements.set_index(["name", "stage"])["value"].unstack()
frame.loc[["gold/score", "gold/harmful_compliance", "gold/helpful"]]

# %% [markdown]
# The same with a bound on the share of insults, in place of a weight that nobody knows: the classifier is the cost, and
# a controller sets its weight after each rollout ([constraints](../docs/rewards-and-gates.md)).

# %%
bounded = alignlab.compose(
    "method=ppo",
    "method.total_episodes=960",
    "reward=constrained",
    "reward.costs.harm.reward.path=pocket",
    "reward.costs.harm.reward.label=hate",
    "reward.costs.harm.reward.output=probability",
    "reward.costs.harm.bound=0.05",
    *SMALL,
)
alignlab.run(bounded).measurements.query("stage == 'ppo'")[["name", "value", "low", "high"]]
