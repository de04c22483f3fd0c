"""The arithmetic of `benchmarks/bench.py` and `benchmarks/growth.py`; `make bench` and `make bench-growth` measure."""

import sys

import pytest
from command import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from bench_table import ratios, relative, table
from flops import Shape, forward, layer_weights, shape_of, weights
from growth import Cost, Ratio, Work, compare, operations, works
from growth import table as growth_table
from growth_rows import Counts, longer, split

SHAPE = Shape(10, 4, 8, 3, 2, 1)  # vocabulary, width, feed-forward, layers, heads, key-value heads


def test_weights_and_operations_by_hand():
    settings = ("model=scratch", "model.vocab_size=10", "model.hidden_size=4", "model.intermediate_size=8")
    heads = ("model.num_hidden_layers=3", "model.num_attention_heads=2", "model.num_key_value_heads=1")
    assert shape_of((*settings, *heads)) == SHAPE
    assert layer_weights(SHAPE) == 144  # queries and output 2 * 16, keys and values 2 * 8, feed-forward 3 * 32
    assert weights(SHAPE) == 3 * 144 + 2 * 40
    assert forward(SHAPE, 2, [1, 1], head=False) == 3 * (2 * 144 * 4 + 4 * 4 * 4 * 4)
    # pairs of query and key: 3 in the prompt, 2 + 1 for each completion of one token
    assert forward(SHAPE, 2, [1, 1], head=False, is_masked=True) == 3 * (2 * 144 * 4 + 4 * 4 * (3 + 3 + 3))
    assert forward(SHAPE, 2, [1, 1]) - forward(SHAPE, 2, [1, 1], head=False) == 2 * 40 * 2
    assert forward(SHAPE, 2, [3], True, True) == forward(SHAPE, 5, [], True, True) + 2 * 40 * 3  # a row like any other


def test_both_passes_come_to_palms_formula_for_a_token():
    assert 3 * forward(SHAPE, 1000, []) / 1000 == 6 * 3 * 144 + 12 * 3 * 4 * 1000


def test_the_operations_of_a_method_by_hand():
    counts = [Counts(2, [1, 3])] * 16
    once = 8 * 3 * forward(SHAPE, 2, [1])  # 8 rows after the first step; SFT learns the chosen completion
    assert operations("sft", SHAPE, counts, Work(16)) == once
    assert operations("dpo", SHAPE, counts, Work(16)) == 8 * 4 * forward(SHAPE, 2, [1, 3])  # and the reference
    assert operations("rm", SHAPE, counts, Work(16, length=4)) == 8 * 3 * forward(SHAPE, 8, [4, 12], head=False)
    deep = SHAPE._replace(num_hidden_layers=12)
    assert operations("sft", SHAPE, counts, Work(16, layers=4)) == 8 * 3 * forward(deep, 2, [1])


def test_growth_is_measured_without_start_up():
    counts = [Counts(10, [5, 5])] * 160
    seconds = {"start": 9, "start, 2 processes": 20, "once": 10, "10 times the rows": 28, "4 times the length": 13}
    seconds |= {"4 times the layers": 12, "layout=rows": 15, "2 processes": 26}
    assert seconds.keys() == works(16).keys()
    costs = {name: Cost(cpu, cpu) for name, cpu in seconds.items()}
    ratio = {one.name: one for one in compare("rm", costs, counts, 16)}
    assert ratio["10 times the rows"].measured == 19  # 19 s for 152 rows after the first step, beside 1 s for 8
    assert ratio["10 times the rows"].theory == pytest.approx(19)
    assert ratio["10 times the rows, whole command"].measured == 2.8
    assert ratio["4 times the length"].measured == pytest.approx(4)  # the slope is 1 s for 8 rows
    assert ratio["2 processes, one with layout=rows"][2:4] == (6, 1)  # 6 s on each side
    assert ratio["2 processes, one with layout=rows"].note == "; wall time 1.00"
    assert ratio["2 processes, one with layout=tokens"].measured == pytest.approx(2)  # 24 rows take 3 s


def test_a_tenth_above_theory_is_no_worse():
    ratios = [Ratio("rm", f"to {measured}", 8.0, measured, 4.0, 3.5) for measured in (4.4, 4.5, -1.0)]
    lines = list(growth_table(ratios, 16))
    assert "| rm | to 4.4 | 8.0 | 4.40 | 4.00 | 1.10 | 3.50 | no worse |" in lines
    assert "| rm | to 4.5 | 8.0 | 4.50 | 4.00 | 1.12 | 3.50 | **worse** |" in lines
    assert "| rm | to -1.0 | 8.0 | -1.00 | 4.00 | -0.25 | 3.50 | lost in noise |" in lines


def test_longer_rows_repeat_prompt_and_completions():
    pair = {name: f"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {name}" for name in ("chosen", "rejected")}
    prompt, completion = split(longer(pair)["rejected"])
    assert completion == "rejected rejected rejected rejected"
    assert [prompt.count(turn) for turn in ("Human: a", "Human: c", "Assistant: b", "Assistant: Yes.")] == [4, 4, 4, 3]


def cost(rate, memory, tokens=100):
    return {"rate": rate, "peak_mb": memory, "tokens": tokens, "losses": [0.75], "weights": 5_200_000}


CASE = {
    "method": "sft",
    "title": "SFT, 512",
    "steps": 6,
    "sides": {
        "alignlab": [cost(20, 100), cost(40, 100), cost(30, 300)],
        "alignlab, matmul=torch": [cost(15, 100), cost(20, 100), cost(25, 300)],
        "alignlab, packing": [cost(20, 100), cost(40, 100), cost(40, 300)],
        "bare": [cost(40, 50), cost(40, 50), cost(40, 50)],
        "trl_best": [cost(10, 90), cost(10, 90), cost(10, 90)],
    },
}


def test_the_table_says_the_median_ratio_which_aims_are_met_and_where_memory_is_higher():
    assert ratios(CASE, "trl_best") == [2, 4, 3]
    lines = list(table({"2": {"sft-512": CASE}, "1": {"other": CASE | {"title": "other"}}}))
    row = "| SFT, 512 | 5.2M | 3 × 6 | bare | 40 | 0.75 (0.50–1.00) | 50 MB | same tokens; first loss within 0e+00 |"
    assert row in lines
    assert lines.index("**Threads: 1** (CPU time of the steps)") < lines.index(
        "**Threads: 2** (wall time of the steps)"
    )
    assert "- met: SFT, 512, at least 1.8 times trl_best (3.00)" in lines
    assert "- **not met**: SFT, 512, at least 0.8 times bare (0.75)" in lines
    assert "- met: SFT, 512, at most 1 times alignlab, packing (1.00)" in lines
    assert "- **not met**: peak memory no higher than TRL's: not beside SFT, 512 (trl_best)" in lines
    assert relative({"1": {"sft-512": CASE}}) == {"SFT, 512": 0.5}
