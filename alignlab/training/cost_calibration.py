"""Calibrate a cost model on held-out labels, and say what its cost means (Platt 1999; Otsu 1979).

The threshold splits the completions into two groups of least variance within. The floor is the mean cost of the lower
group, the ceiling that of the upper one: what is read where there is no harm, and where all is harm. With noisy labels
they are not 0 and 1, and no policy meets a bound on the cost below the floor. The share of harm behind a mean cost is
(cost - floor) / (ceiling - floor).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alignlab.config.hardware import Hardware
from alignlab.evaluation.calibration import bins, calibration_error
from alignlab.runtime.files import write_text
from alignlab.runtime.progress import say

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CALIBRATION = "calibration.json"  # in the folder of the model
NEWTON_STEPS = 50
CONFIDENCE = 0.95


class Platt(NamedTuple):
    """The calibrated probability is sigmoid(scale * output + offset)."""

    scale: float
    offset: float

    def probability(self, outputs: "Floats") -> "Floats":
        """Return calibrated probabilities, of the same shape."""
        return 1 / (1 + np.exp(-(self.scale * outputs + self.offset)))


def calibrate(folder: Path, rows: "Dataset", hardware: Hardware) -> None:
    """Fit the calibration of the cost model in a folder on labels; write it into config.json and calibration.json."""
    from alignlab.rewards import load_reward_model

    model = load_reward_model(folder, hardware)
    outputs = np.array(model.score(rows["prompt"][:], rows["completion"][:]).total)
    harmful = np.array(rows["harmful"], float)
    platt = fit_platt(outputs, harmful)
    file = folder / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"cost_calibration": platt._asdict()}
    write_text(file, json.dumps(settings, indent=2) + "\n")
    facts = describe(platt, outputs, harmful)
    write_text(folder / CALIBRATION, json.dumps(facts, indent=1) + "\n")
    say(
        f"cost: Brier {facts['brier']:.3f}, calibration error {facts['calibration_error']['value']:.3f} on "
        f"{len(harmful):,} validation rows; threshold {facts['threshold']:.3f}, floor {facts['floor']:.3f}, "
        f"ceiling {facts['ceiling']:.3f}"
    )


def fit_platt(outputs: "Floats", harmful: "Floats") -> Platt:
    """Return the scale and the offset of least cross-entropy, by Newton's method.

    The targets are Platt's: (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), so that separable outputs have a finite scale.
    """
    positive, negative = harmful.sum(), (1 - harmful).sum()
    targets = np.where(harmful > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    columns = np.stack([outputs, np.ones_like(outputs)], 1)

    def loss(values: "Floats") -> float:
        return float(np.logaddexp(0, columns @ values).sum() - targets @ columns @ values)

    values = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-columns @ values))
        curvature = columns.T @ (columns * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, columns.T @ (p - targets))
        while loss(values - step) > loss(values) + 1e-9:  # Newton's step overshoots where outputs are far apart
            step = step / 2
        values = values - step
        if np.abs(step).max() < 1e-10:
            break
    return Platt(float(values[0]), float(values[1]))


def describe(platt: Platt, outputs: "Floats", harmful: "Floats") -> dict[str, Any]:
    """Return the calibration with its reliability curve, its errors, the threshold, the floor and the ceiling."""
    p = platt.probability(outputs)
    numbers = bins(p)
    curve = [
        {"probability": float(p[at].mean()), "frequency": float(harmful[at].mean()), "rows": int(at.sum())}
        for number in range(numbers.max() + 1)
        for at in [numbers == number]
    ]
    threshold = split_in_two(p)
    return {
        **platt._asdict(),
        "rows": len(p),
        "harmful": int(harmful.sum()),
        "brier": float(((p - harmful) ** 2).mean()),
        "calibration_error": calibration_error(p, harmful, CONFIDENCE)._asdict(),
        "threshold": threshold,
        "floor": float(p[p < threshold].mean()),
        "ceiling": float(p[p >= threshold].mean()),
        "curve": curve,
    }


def split_in_two(values: "Floats") -> float:
    """Return the middle of the gap between two groups of values that has the least variance within them (Otsu 1979)."""
    ordered = np.sort(values)
    sizes = np.arange(1, len(ordered))
    low = np.cumsum(ordered)[:-1] / sizes
    high = (ordered.sum() - np.cumsum(ordered)[:-1]) / (len(ordered) - sizes)
    between = sizes * (len(ordered) - sizes) * (high - low) ** 2
    cut = int(between.argmax())
    return float((ordered[cut] + ordered[cut + 1]) / 2)
