"""Turn the rows of a stage into token ids, once for all processes.

Many rows are tokenised by several processes and written to the cache; every other process of the run, a resumed run
and a run with another learning rate read them from there. Few rows are tokenised where they are needed.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.method import Training
from alignlab.data.row_authors import count_authors
from alignlab.errors import failure
from alignlab.runtime.cache import building
from alignlab.runtime.files import cache_root, digest, digest_files, write_text
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import ROW_COUNTS
from alignlab.runtime.source_hash import hash_with_imports
from alignlab.runtime.stage_run import Run
from alignlab.runtime.worker_pool import usable_cores

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Encode = Callable[[Row], dict[str, Any]]
FEW = 10_000  # rows: starting processes and writing files costs more than it saves
TOKENIZER_FILES = ("tokenizer*", "chat_template*", "special_tokens_map*", "added_tokens*", "vocab*", "merges*")
NOT_IN_TOKENS = {  # settings that do not change the token ids, so that runs which differ in them share a cache
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "batch_size"),
    *("weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon", "dropout", "beta", "nll_weight"),
    *("activation_checkpointing", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "push_to_hub"),
    *("load_best_model_at_end", "early_stopping_patience", "hub_model_id", "policy"),
}


def tokenise(run: Run[Training], view: str, split: str, encode: Encode) -> "Dataset":
    """Return the rows of a view as columns of token ids, in their order; none for validation without evaluation."""
    from alignlab.data import view as rows_of

    own_rows = run.rows.get((view, split))
    rows = rows_of(run.config.dataset, view, split) if own_rows is None else own_rows
    if split == "validation" and not run.method.eval_steps:
        return rows.select([])
    if not len(rows):
        raise failure(f"dataset, {split}", f"holds no {view}", "give more rows, or another dataset.validation")
    if split == "train":
        write_text(run.folder / ROW_COUNTS, json.dumps(count_authors(rows)))
    if len(rows) > FEW:
        return cached(rows, encode, cache_root() / "tokens" / key_of(run, rows, encode))
    return rows.map(encode, remove_columns=rows.column_names, keep_in_memory=True, load_from_cache_file=False)


def distinct_pairs(rows: "Dataset", completions: Callable[[Row], Any]) -> "Dataset":
    """Return the rows whose two completions differ after the cut; `completions` returns the token ids of both.

    Raises a `Failure` where no pair is left.
    """
    places = [place for place, (chosen, rejected) in enumerate(map(completions, rows)) if chosen != rejected]
    if len(places) == len(rows):
        return rows
    if not places:
        raise failure("method.max_length", "makes both completions of every pair identical", "use a larger one")
    say(f"{len(rows) - len(places):,} of {len(rows):,} pairs are identical after the cut, and are left out")
    return rows.select(places)


def cached(rows: "Dataset", encode: Encode, folder: Path) -> "Dataset":
    """Return the tokenised rows of a folder, which the first process that asks for them writes."""
    from datasets import load_from_disk

    with building(folder) as partial_folder:
        if partial_folder is not None:
            count = min(usable_cores(), -(-len(rows) // FEW))
            tokens = rows.map(
                partial(encode_batch, encode),
                batched=True,
                remove_columns=rows.column_names,
                num_proc=count if count > 1 else None,
                load_from_cache_file=False,
                cache_file_name=str(partial_folder / "map.arrow"),
                new_fingerprint=folder.name,
            )
            tokens.save_to_disk(partial_folder / "rows")
            for file in partial_folder.glob("map*.arrow"):
                file.unlink()
    return load_from_disk(folder / "rows")  # type: ignore[return-value]


def encode_batch(encode: Encode, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Encode the rows of a batch; a row's names are the same in every row."""
    names = list(columns)
    encoded = [encode(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]
    return {name: [row[name] for row in encoded] for name in encoded[0]}


def key_of(run: Run[Training], rows: "Dataset", encode: Encode) -> str:
    """Hash what decides the token ids: the rows, the tokenizer, the settings and the code."""
    folder = run.inputs["policy"]
    tokenizer = sorted(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern))
    return digest(
        rows_hash(rows),
        digest_files(tokenizer),
        run.config.model.model_dump(mode="json"),
        run.config.dataset.model_dump(mode="json"),
        run.method.model_dump(mode="json", exclude=NOT_IN_TOKENS),
        [encode.__module__, encode.__qualname__, hash_with_imports(encode.__module__)],
    )


def rows_hash(rows: "Dataset") -> str:
    """Hash the contents of rows."""
    import pyarrow

    sha = hashlib.sha256()
    for batch in rows.with_format("arrow").iter(10_000):
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_table(batch.combine_chunks())
        sha.update(sink.getvalue())
    return sha.hexdigest()
