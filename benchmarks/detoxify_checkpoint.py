"""Train a small classifier of toxic comments, in Detoxify's format: `python benchmarks/detoxify_checkpoint.py OUT`.

It needs `ALIGNLAB_DATA` with toxicity-davidson (19,813 tweets that people called hate, offensive or neither) and
toxicity-wikipedia (comments with labels of people, which it is tested on). `OUT/detoxify.ckpt` then serves offline as
`measure.toxicity.detoxify=OUT/detoxify.ckpt`; `OUT/bert` holds its configuration and tokenizer. It is a stand-in for
machines that cannot download Detoxify: a BERT of a quarter of a million weights finds insults, not subtle harm.
"""

import csv
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

WIDTH, LAYERS, WORDS, LONGEST, BATCH, EPOCHS, RATE = 64, 2, 4_000, 512, 32, 2, 2e-3


def read(name: str, text: str, label: str, toxic: set[str]) -> list[tuple[str, float]]:
    """Return the comments of a file, each with 1.0 where it is toxic."""
    with (Path(os.environ["ALIGNLAB_DATA"]) / name).open(newline="", encoding="utf-8") as stream:
        return [(row[text], float(row[label] in toxic)) for row in csv.DictReader(stream)]


def save_shape(folder: Path, texts: list[str]) -> None:
    """Write the configuration of the model and a WordPiece tokenizer of its comments."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertTokenizerFast

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=WORDS, show_progress=False)
    BertTokenizerFast(vocab=pieces.get_vocab(), model_max_length=LONGEST).save_pretrained(folder)
    BertConfig(
        vocab_size=pieces.get_vocab_size(),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LONGEST,
        architectures=["BertForSequenceClassification"],
    ).save_pretrained(folder)


def train(folder: Path, rows: list[tuple[str, float]], seed: int = 0) -> dict[str, object]:
    """Train the classifier and return its weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(seed)
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertForSequenceClassification(BertConfig.from_pretrained(folder, num_labels=1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)] * EPOCHS
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=len(batches))
    for batch in batches:
        texts, labels = zip(*batch, strict=True)
        encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
        logits = model(**encoded).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(labels))
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval().state_dict()


def save(out: Path, state: dict[str, object]) -> Path:
    """Save weights in Detoxify's format; the folder of the tokenizer is named relative to the file."""
    import torch

    arguments = {
        "num_classes": 1,
        "model_type": "bert",
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizerFast",
    }
    settings = {"arch": {"type": "BERT", "args": arguments}, "dataset": {"args": {"classes": ["toxicity"]}}}
    torch.save({"config": settings, "state_dict": state}, out / "detoxify.ckpt")
    return out / "detoxify.ckpt"


def main(out: Path) -> None:
    """Train, save, load through alignlab, and print the accuracy on Wikipedia's comments."""
    from sklearn.metrics import roc_auc_score

    from alignlab import compose
    from alignlab.evaluation.detoxify_checkpoint import load_detoxify

    rows = read("toxicity-davidson/labeled_data.dev.csv", "tweet", "class", {"0", "1"})
    random.Random(0).shuffle(rows)
    kept, rows = rows[:1000], rows[1000:]
    save_shape(out / "bert", [text for text, _ in rows])
    start = time.process_time()
    file = save(out, train(out / "bert", rows))
    trained = time.process_time() - start
    judge = load_detoxify(str(file), "toxicity", compose("evaluation=quick").hardware)
    tests = {
        "held-out tweets": kept,
        "Wikipedia comments": read(
            "toxicity-wikipedia/toxicity_nonfuzzed_testset.dev.csv", "comment", "toxic", {"True"}
        ),
        "templates": read("toxicity-wikipedia/bias_madlibs.3000.csv", "Text", "Label", {"BAD"}),
    }
    result: dict[str, object] = {"trained_cpu_s": round(trained, 1), "bytes": file.stat().st_size}
    for name, comments in tests.items():
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        texts, labels = zip(*comments, strict=True)
        scores = judge.score([()] * len(texts), texts, [True] * len(texts)).total
        result[name] = {
            "n": len(texts),
            "auc": round(roc_auc_score(labels, scores), 3),
            "cpu_s": round(time.process_time() - start, 1),
            "more_memory_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
