"""Log-probabilities of training pairs by the reference, computed in the first epoch and kept on disk for later runs.

The key covers what decides the numbers: the model, the rows, how steps are drawn and laid out, and the libraries.
Runs that differ in beta, the loss or the learning rate share a table, and so do resumed runs.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignlab.config.method import Training
from alignlab.models.load import device_type, precision
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest, digest_files
from alignlab.runtime.matmul import library
from alignlab.runtime.source_hash import hash_with_imports
from alignlab.runtime.stage_run import Run
from alignlab.training.tokenised_rows import rows_hash

if TYPE_CHECKING:
    from datasets import Dataset

FILE = "log_probs.pt"


def reference_table(run: Run[Training], rows: "Dataset", budget: int) -> "ReferenceTable":
    """Return the table of a stage's training rows, from the cache if it is there."""
    config, policy = run.config, run.inputs["policy"]
    key = digest(
        digest_files([policy]),
        rows_hash(rows),
        [config.model.model_dump(mode="json"), device_type(config.hardware), str(precision(config.hardware))],
        [
            config.seed,
            run.method.batch_size,
            run.method.dropout,
            budget,
            torch.get_num_threads(),
            library(config.hardware.matmul),
        ],
        [hash_with_imports("alignlab.training.token_trainers"), version("torch"), version("transformers")],
    )
    return ReferenceTable(len(rows), cache_root() / "reference" / key)


class ReferenceTable:
    """The log-probabilities of each pair's two completions, [rows, 2]; NaN where they are not yet known."""

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self.folder = folder
        self.values = torch.full((rows, 2), torch.nan)
        if folder is not None and is_intact(folder):
            self.values = torch.load(folder / FILE, weights_only=True)
        self.is_stored = not self.values.isnan().any()

    def get(self, numbers: Sequence[int]) -> Tensor | None:  # [batch, 2]
        """Return the values of rows, or None where one is not known; rows without a number are not of the table."""
        values = self.values[list(numbers)]
        return None if not numbers or values.isnan().any() else values

    def put(self, numbers: Sequence[int], values: Tensor) -> None:
        """Keep the values of rows, and write the table once it is whole."""
        if not numbers:
            return
        self.values[list(numbers)] = values.detach().float().cpu()
        if self.folder is not None and not self.is_stored and not self.values.isnan().any():
            self.is_stored = True
            with building(self.folder) as partial_folder:
                if partial_folder is not None:
                    torch.save(self.values, partial_folder / FILE)
