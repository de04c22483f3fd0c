"""Count how often a model that is compared with itself is called clearly worse.

`python benchmarks/itself.py MODEL` measures a pocket model (of a run in the same cache) by its own rules and by the
sampled safety suites in `ALIGNLAB_DATA`, with the seeds 0 to 39, and compares each even seed with the next odd one:
20 comparisons that share nothing but the model and the prompts (`COMPARISONS` changes their number, `PROMPTS` that of
the prompts of each kind). No change is true, so each verdict is false. Measures by log-probabilities have the same
value with every seed, and are left out.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import alignlab
from alignlab.evaluation import evaluate, measurements
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.subjects import LanguageModel
from alignlab.reports.run_results import change

COMPARISONS = int(os.environ.get("COMPARISONS", "20"))
PROMPTS = int(os.environ.get("PROMPTS", "60"))
SAMPLED = "gold,length,refusal,jailbreaks,capabilities,toxicity"


def main(model: Path, *overrides: str) -> None:
    """Print how many comparisons hold a false verdict, and how many single differences do."""
    verdicts, alone, families, primary = Counter(), Counter(), Counter(), set()
    for number in range(COMPARISONS):
        config, before = scores(model, 2 * number, *overrides)
        _, after = scores(model, 2 * number + 1, *overrides)
        rows = measurements(after, before, None, config.evaluation)
        changes = [(row, change(row, "before")) for row in rows if row["better"] != "neither"]
        primary |= {row["name"] for row, _ in changes if row["primary"] is not None}
        seen = Counter(one.verdict for _, one in changes)
        verdicts += seen
        alone += Counter(one.alone for _, one in changes)
        families += Counter(name for name in ("better", "worse") if seen[name])
        print(f"{number}: {dict(seen)}", file=sys.stderr, flush=True)
    total, each = sum(verdicts.values()), COMPARISONS
    print(f"{len(primary)} primary measures of {total // each} with a direction, {PROMPTS} prompts of each kind")
    print(f"comparisons with a false clearly worse: {families['worse']} of {each}, better: {families['better']}")
    for name in ("worse", "better"):
        print(f"single differences called {name}: {verdicts[name]} of {total}, uncorrected: {alone[name]}")


def scores(model: Path, seed: int, *overrides: str):  # noqa: ANN201
    """Return the config and the scores of the model, sampled with a seed."""
    settings = [
        "model=pocket_small", "dataset=pocket_small", "evaluation=full", f"measure=[{SAMPLED}]", f"seed={seed}",
        f"evaluation.data={os.environ['ALIGNLAB_DATA']}", f"evaluation.prompts={PROMPTS}",
        "evaluation.contamination=false", "evaluation.max_new_tokens=24", f"measure.refusal.prompts={2 * PROMPTS}",
        f"measure.jailbreaks.prompts={PROMPTS}", "measure.jailbreaks.attacks=[none,prefix_injection]",
        f"measure.capabilities.items={3 * PROMPTS}", *overrides,
    ]  # fmt: skip
    config = alignlab.compose(*settings)
    return config, evaluate(Context(config, LanguageModel(model, config.hardware))).scores


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
