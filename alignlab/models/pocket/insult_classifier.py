"""A small classifier of insults, trained on first use: the reward of offline detoxification, `reward.path=pocket`.

It is a RoBERTa of one layer with the labels of hate-speech classifiers on the hub: hate and nothate. It learns from
sentences and summaries about tasks outside the held-out split, labelled by annotators who sometimes err. Its scores are
a proxy for the world's own rule, by which results are measured.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from alignlab.models.pocket import dialogue_tokenizer
from alignlab.models.pocket.base import own_arithmetic, threads
from alignlab.pocket.dialogues import draw_scene, hash_sources, write_dialogue, write_summary
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, RobertaForSequenceClassification

LABELS = ("nothate", "hate")
ERRORS = 0.08  # the share of wrong labels
SENTENCES = 6  # in a text at most: as many as the longest summary has, so that no length is new to the classifier
WIDTH, HEADS = 48, 4
TEXTS, BATCH, LEARNING_RATE = 4_000, 32, 4e-3


def folder() -> Path:
    """Return the classifier's folder; it may not exist yet."""
    from importlib.metadata import version

    versions = [version("torch"), version("transformers")]
    code = hash_modules(__name__, dialogue_tokenizer.__name__)
    return cache_root() / "pocket" / f"insults-{digest(threads(), versions, hash_sources(), code)}"


def insult_classifier() -> Path:
    """Return the classifier's folder; train the classifier on first use."""
    final = folder()
    if not is_intact(final):
        with building(final) as unfinished:
            if unfinished:
                make(unfinished)
    return final


def texts(random: Random) -> Iterator[tuple[str, int]]:
    """Yield texts without end, each with the number of its label: a few sentences, some of which may insult."""
    while True:
        sentences, insults = zip(*(sentence(random) for _ in range(random.randint(1, SENTENCES))), strict=True)
        yield " ".join(sentences), int(any(insults) != (random.random() < ERRORS))


def sentence(random: Random) -> tuple[str, bool]:
    """Return a line of a dialogue or a summary, and whether it insults."""
    scene, repeats = draw_scene(random), random.random() < 0.5
    lines = [line.partition(": ")[2] for line in write_dialogue(scene, random).split("\n")]
    text = random.choice([*lines, write_summary(scene, repeats)])
    return text, scene.tone == "rude" and scene.name in text.replace(".", "").split()


def make(folder: Path) -> None:
    """Train the classifier and save it."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    tokenizer = dialogue_tokenizer.make_tokenizer(begin="<s>")
    with own_arithmetic(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = start(tokenizer)
        train(network, tokenizer)
    disable_progress_bar()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def start(tokenizer: "PreTrainedTokenizerFast") -> "RobertaForSequenceClassification":
    """Return a RoBERTa with random weights; its positions are counted from the padding's id."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config: Any = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=dialogue_tokenizer.LONGEST + 2,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return RobertaForSequenceClassification(config).train()


def train(network: "RobertaForSequenceClassification", tokenizer: "PreTrainedTokenizerFast") -> None:
    """Train for one pass over the texts."""
    import torch

    rows = list(islice(texts(Random("detector")), TEXTS))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    for start in range(0, len(rows), BATCH):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - start / len(rows))
        batch, labels = zip(*rows[start : start + BATCH], strict=True)
        encoded = tokenizer(list(batch), padding=True, return_tensors="pt")
        network(**encoded, labels=torch.tensor(labels)).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    network.eval()
