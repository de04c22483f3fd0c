"""Laws that hold for every decoder that transformers builds from a tiny config."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from architectures import NAMES, POPULAR, SPECIAL, VOCABULARY, tiny_config
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, OPTConfig

from alignlab.models.load import set_dropout

transformers.logging.set_verbosity_error()


def with_dropout(name):
    """Return the tiny config of a type, with every dropout at a half."""
    return set_dropout(tiny_config(CONFIG_MAPPING[name](), **SPECIAL.get(name, {})), 0.5)


def difference_of_two_passes(name, rate):
    """Return the largest difference between two passes in train mode of a model that had dropout before."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(set_dropout(with_dropout(name), rate), dtype=torch.float32).train()
    ids = torch.arange(3, 15)[None] % VOCABULARY
    with torch.no_grad():
        first, second = (model(input_ids=ids, use_cache=False).logits for _ in range(2))
    return (first - second).abs().max().item()


@pytest.mark.parametrize("name", POPULAR)
def test_dropout_0_means_none(name):
    assert difference_of_two_passes(name, 0.0) == 0.0


def test_a_rate_is_set_everywhere_but_no_layer_is_dropped():
    settings = set_dropout(OPTConfig(layerdrop=0.3), 0.25)
    assert (settings.dropout, settings.attention_dropout, settings.layerdrop) == (0.25, 0.25, 0.0)
    assert difference_of_two_passes("opt", 0.5) > 0


@pytest.mark.runs
def test_dropout_0_means_none_for_every_decoder(tmp_path):
    differences, refused = {}, {}
    for name in NAMES:
        try:
            differences[name] = difference_of_two_passes(name, 0.0)
        except Exception as error:
            refused[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    table = {"built": len(differences), "refused": refused, "differ": {n: d for n, d in differences.items() if d}}
    Path(tmp_path / "dropout.json").write_text(json.dumps(table, indent=2))
    print(json.dumps(table, indent=2))
    assert not table["differ"]
    assert len(differences) >= 0.9 * len(NAMES)
