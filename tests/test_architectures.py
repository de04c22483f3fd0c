"""Laws that hold for every decoder that transformers builds from a tiny config."""

import json
import signal
import sys
from copy import deepcopy

import pytest
import torch
import transformers
from architectures import NAMES, POPULAR, SPECIAL, VOCABULARY, tiny_config, tiny_model
from command import ROOT
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, OPTConfig

from alignlab.errors import Failure
from alignlab.models import prompt_layout, reward_heads
from alignlab.models.load import set_dropout
from alignlab.training import packing

PROMPT, CHOSEN = [5, 9, 14, 7, 20, 31, 6, 48, 23, 10, 37], [11, 30, 21]
REJECTED, OTHER = [41, 8, 17, 26, 33], [12, 50, 44, 16, 19]  # a row is longer than a tiny model's window
transformers.logging.set_verbosity_error()


def small(name, **changed):
    """Return the tiny config of a type."""
    return tiny_config(CONFIG_MAPPING[name](), **SPECIAL.get(name, {}) | changed)


def difference_of_two_passes(name, rate):
    """Return the largest difference between two passes in train mode of a model that had dropout before."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        set_dropout(set_dropout(small(name), 0.5), rate), dtype=torch.float32
    ).train()
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


def scores_apart(name, head):
    """Return a reward model's packed and plain scores, and the packed ones after the rejected completion changed."""
    torch.manual_seed(0)
    model = reward_model(name, head)
    rows = [[PROMPT], [[CHOSEN, REJECTED]]]
    packed, other = (
        reward_heads.scores(model, prompt_layout.pack(rows[0], [[CHOSEN, second]], 0)).detach()
        for second in (REJECTED, OTHER)
    )
    limit, model.packing_limit = model.packing_limit, 0
    plain = reward_heads.scores(model, prompt_layout.pack(*rows, 0)).detach()
    return limit, packed[0], plain[0], other[0]


def reward_model(name, head):
    """Build a tiny reward model of a type, with weights large enough for differences to show."""
    if head == "last":
        model = tiny_model(name, AutoModelForSequenceClassification, num_labels=1, pad_token_id=0)
    else:
        backbone = tiny_model(name, AutoModel)
        model = reward_heads.PooledReward(reward_heads.PooledConfig(deepcopy(backbone.config)), backbone).eval()
    prompt_layout.choose_layout(model, reward_heads.scores)
    return model


def check_apart(name, head):
    """Check the law of the packed layout on a tiny model of a type; return its limit."""
    limit, packed, plain, other = scores_apart(name, head)
    assert torch.isfinite(plain).all()
    assert packed.tolist() == pytest.approx(plain.tolist(), rel=1e-5, abs=1e-5)
    assert other[0].item() == pytest.approx(packed[0].item(), rel=1e-5, abs=1e-5)
    assert other[1].item() != pytest.approx(packed[1].item(), abs=1e-4)
    return limit


@pytest.mark.parametrize("head", ["last", "pooled"])
@pytest.mark.parametrize("name", POPULAR)
def test_a_completions_score_does_not_depend_on_the_other(name, head):
    if head == "last" and not reward_heads.reads_last_token(
        tiny_config(CONFIG_MAPPING[name](), **SPECIAL.get(name, {}))
    ):
        pytest.skip("transformers has no such class")
    check_apart(name, head)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2", "gpt2", "gpt_neox", "opt", "phi3", "gptj"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_common_models_read_packed_rows_with_every_attention(name, attention, monkeypatch):
    monkeypatch.setitem(SPECIAL, name, {"attn_implementation": attention})
    if attention == "sdpa" and name in {"gemma2", "gptj"}:
        pytest.skip("its class has eager attention alone")
    assert check_apart(name, "pooled") > 0


def packed_far(name):
    """Return whether packing is allowed for a type, and how far the logits of a packed document are from its own."""
    model = tiny_model(name)
    first, second = [7, 5, 33, 21, 9, 40, 13, 27, 50], [12, 44, 8, 30, 6, 19]
    if not packing.isolates(model):
        return False, None
    with torch.no_grad():
        together, alone = packing.logits(model, [first, second]), packing.logits(model, [second])
    return True, (together[len(first) :] - alone).abs().max().item()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [(name, True) for name in ("llama", "qwen2", "gemma2", "gpt_neox", "phi3", "olmo2", "gpt2")]
    + [(name, False) for name in ("opt", "falcon", "bloom", "mpt", "mamba")],
)
def test_packing_is_allowed_where_documents_stay_apart(name, allowed):
    is_allowed, distance = packed_far(name)
    assert is_allowed == allowed
    assert not allowed or distance < 1e-4
    if not allowed:
        with pytest.raises(Failure, match=rf"method\.packing: {name} does not keep the documents .* apart; use "):
            packing.check_packing(tiny_model(name).train())


def test_rounding_in_bfloat16_is_no_other_document():
    model = tiny_model("llama").bfloat16()
    with torch.no_grad():
        model.lm_head.weight.mul_(100)  # logits of a trained model's size
        assert packing.isolates(model)
        assert not packing.isolates(tiny_model("bloom").bfloat16())


@pytest.mark.runs
def test_both_laws_hold_for_every_decoder():
    """Write the table to build/architectures.json: what was built, how it reads pairs, and what was refused and why."""
    table = {name: laws_of(name) for name in NAMES}
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "architectures.json").write_text(json.dumps(table, indent=1))
    broken = {name: row for name, row in table.items() if "AssertionError" in str(row)}
    assert broken == {}
    for law in ("dropout", "pooled"):
        built = [name for name, row in table.items() if not row[law].startswith("refused")]
        assert len(built) >= 0.8 * len(NAMES)


def laws_of(name):
    """Return how a type fares under both laws, as text."""

    def give_up(*_):
        raise TimeoutError("takes more than two minutes")

    def attempt(check):
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(120)
        try:
            return check()
        except Exception as error:
            return f"refused: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        finally:
            signal.alarm(0)

    def dropout():
        assert difference_of_two_passes(name, 0.0) == 0.0
        return "none"

    def layout(head):
        if head == "last" and not reward_heads.reads_last_token(small(name)):
            return "no class in transformers"
        limit = check_apart(name, head)
        return "plain" if limit == 0 else "packed" if limit == sys.maxsize else f"packed within {limit} tokens"

    def packs():
        allowed, distance = packed_far(name)
        assert not allowed or distance < 1e-4
        return "apart" if allowed else "documents are not packed"

    return {"dropout": attempt(dropout), "packing": attempt(packs)} | {
        head: attempt(lambda h=head: layout(h)) for head in ("last", "pooled")
    }
