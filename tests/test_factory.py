"""The preference factory's parts by hand: the journal, readings and votes, what is agreed, what is written."""

import json
from math import log
from random import Random

import pytest
from command import config
from tiny import WORDS, ask, tiny_model, tiny_tokenizer

from alignlab.config import command_line
from alignlab.config.compose import bind_tree, check
from alignlab.config.hardware import Hardware
from alignlab.config.reward import FunctionReward, MixtureReward, Part
from alignlab.errors import Mistake
from alignlab.evaluation.label_accuracy import gold_order, label_accuracy
from alignlab.judges import model_logprobs
from alignlab.judges.by_reward import ByReward
from alignlab.judges.pairwise_model import PairwiseModel
from alignlab.judges.pocket_annotators import Annotators
from alignlab.judges.protocol import Item, Labelled, Reading, Spent, Unlabelled, ranks
from alignlab.models.sampling import Completion
from alignlab.pipeline.provenance import repeatable
from alignlab.pocket.annotators import draw_answers
from alignlab.pocket.world import draw_kind, draw_prompt
from alignlab.preferences.agreement import Bias, biases, consistency, labelers, pair_agreement, rank_items, tau_b, votes
from alignlab.preferences.consensus import majority
from alignlab.preferences.cost import cost, saving
from alignlab.preferences.diversity import distinct, diversity, self_bleu
from alignlab.preferences.sample_answers import Prompt, answers_row, sample_answers
from alignlab.preferences.write_dataset import build_rows
from alignlab.rewards import Checked, Scored, load_reward
from alignlab.runtime.journal import Journal
from alignlab.tasks.preferences import begin


def settings(**more):
    given = [f"preferences.{name}={value}" for name, value in more.items()]
    return config("task=preferences", "judge=reward", *given).preferences


def reading(shown, ranks, labeler="x", sure=1.0):
    return Reading(labeler, shown, {"better": ranks}, [], sure)


def label(*readings, item="a"):
    return Labelled(item, list(readings))


def row(*texts, item="a", finished=True):
    answers = [{"text": text, "finished": finished, "drawn": 1} for text in texts]
    return {"id": item, "row": "", "kind": "", "prompt": ask("why"), "answers": answers, "empty": 0}


def test_a_journal_keeps_what_was_written_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    journal = Journal(path)
    journal.add([{"id": "1", "text": "a\u2028b"}, {"id": "2", "text": "c"}])
    journal.add([{"id": "1", "text": "another"}, {"id": "3", "text": "d"}])
    whole = path.read_bytes()
    for end in range(len(whole) + 1):  # killed at any byte
        path.write_bytes(whole[:end])
        found = Journal(path)
        assert list(found.rows) == ["1", "2", "3"][: whole[:end].count(b"\n")]
        found.add([{"id": "1", "text": "a\u2028b"}, {"id": "2", "text": "c"}, {"id": "3", "text": "d"}])
        assert path.read_bytes() == whole


def test_answers_are_the_same_wherever_a_run_was_stopped(tmp_path):
    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    asked = [Prompt(f"{n}", ask(*WORDS[n : n + 1 + n % 3]), "", "") for n in range(7)]
    how = settings(samples=3, max_new_tokens=6, batch_size=2)
    whole = Journal(tmp_path / "whole.jsonl")
    sample_answers(model, tokenizer, asked, how, 5, whole)
    lines = whole.path.read_bytes()
    for kept in (1, 4, 5):
        cut = Journal(tmp_path / f"{kept}.jsonl")
        cut.add(list(whole.rows.values())[:kept])
        sample_answers(model, tokenizer, asked, how, 5, cut)
        assert cut.path.read_bytes() == lines
    assert sum(one["drawn"] for one in whole.rows["3"]["answers"]) + whole.rows["3"]["empty"] == 3
    together = Journal(tmp_path / "together.jsonl")
    sample_answers(model, tokenizer, asked, settings(samples=3, max_new_tokens=6, batch_size=7), 5, together)
    assert together.rows == whole.rows


def test_answers_that_say_the_same_count_once():
    drawn = [
        Completion(text, end, ()) for text, end in (("Mix it.", True), (" mix", True), ("Mix  it.", False), ("", True))
    ]
    found = answers_row(Prompt("7", ask("why"), "r", "k"), drawn)
    assert [(one["text"], one["drawn"], one["finished"]) for one in found["answers"]] == [
        ("Mix it.", 2, True),
        (" mix", 1, True),
    ]
    assert found["empty"] == 1


def test_ranks_by_hand():
    assert ranks([0.1, 3.0, 0.1, 2.0]) == [3, 1, 3, 2]


def test_who_says_both_things_in_turn_has_no_vote():
    both = label(reading([0, 1], [1, 2]), reading([1, 0], [1, 2]))
    assert votes([both], {}) == []
    surer = label(reading([0, 1], [1, 2], sure=2.0), reading([1, 0], [1, 2]))
    assert [vote.first for vote in votes([surer], {})] == [True]
    assert biases([both], {}) == {"x": Bias(2, 0, 0)}
    assert consistency([both, label(reading([0, 1], [1, 2]), reading([1, 0], [2, 1]), item="b")], {}) == {"x": (2, 1)}


def test_criteria_count_what_they_weigh():
    one = Labelled("a", [Reading("x", [1, 0], {"safety": [1, 2], "helpfulness": [2, 1]}, [])])
    assert votes([one], {}) == []
    assert [vote.first for vote in votes([one], {"safety": 2.0, "helpfulness": 1.0})] == [False]
    assert [vote.first for vote in votes([one], {"safety": 0.0, "helpfulness": 1.0})] == [True]


def test_what_is_agreed_by_hand():
    """Three labelers order three answers: 0 1 2, 0 2 1, 2 0 1."""
    said = label(
        reading([0, 1, 2], [1, 2, 3], "x"), reading([0, 1, 2], [1, 3, 2], "y"), reading([0, 1, 2], [2, 3, 1], "z")
    )
    counted = rank_items([said], {"a": 3}, "majority", {})["a"]
    assert counted.pairs == {(0, 1): 1.0, (0, 2): pytest.approx(2 / 3), (1, 2): pytest.approx(1 / 3)}
    assert counted.order == [0, 2, 1]
    placed = rank_items([said], {"a": 3}, "borda", {})["a"]  # points 5, 1, 3
    assert (placed.order, placed.pairs) == ([0, 2, 1], {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.0})
    assert rank_items([said], {"a": 3}, "bradley_terry", {})["a"].order == [0, 2, 1]
    two = label(reading([0, 1], [1, 2], "x"), reading([0, 1], [1, 2], "y"), reading([0, 1], [2, 1], "z"))
    share = rank_items([two], {"a": 2}, "bradley_terry", {})["a"].pairs[0, 1]
    assert log(share / (1 - share)) == pytest.approx(log(2.5 / 1.5), rel=1e-3)  # 2 and 1 votes, half a win more each


def test_tau_b_by_hand():
    """Four pairs: one the same, one turned round, one that only the first decides, one that neither does."""
    assert tau_b([(1, 0.5), (1, -0.5), (2, 0), (0, 0)]) == 0
    assert tau_b([(1, 0.5), (1, 0.5), (2, 0), (0, 0)]) == pytest.approx(2 / (3 * 2) ** 0.5)
    assert tau_b([(1, 1), (-2, -1)]) == 1
    assert tau_b([(0, 1)]) is None


def test_labels_agree_where_both_decide():
    ours = [label(reading([0, 1], [1, 2])), label(reading([0, 1], [2, 1]), item="b")]
    theirs = [label(reading([0, 1], [1, 2], "p")), label(reading([0, 1], [1, 2], "p"), item="b")]
    assert pair_agreement(ours, [*theirs, label(reading([0, 1], [1, 1], "p"), item="c")], {}) == (2, 1)


def test_what_is_written_by_hand():
    said = label(reading([0, 1, 2], [2, 1, 3]))
    ranked = rank_items([said], {"a": 3}, "majority", {})
    made = build_rows([row("i", "do", "no"), row("yes", item="b"), row("now", "stop", item="c")], ranked)
    pairs = [(one["id"], one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in made.rows["pairs"]]
    assert pairs == [("a/1-0", "do", "i"), ("a/0-2", "i", "no"), ("a/1-2", "do", "no")]
    assert {one["weight"] for one in made.rows["pairs"]} == {1 / 3}
    assert [one["completions"] for one in made.rows["rankings"]] == [["do", "i", "no"]]
    assert made.rows["best"] == [{"id": "a", "messages": [*ask("why"), {"role": "assistant", "content": "do"}]}]
    assert made.left_out["prompts with fewer than two different answers"] == 1
    assert made.left_out["prompts without a label"] == 1


def test_equals_make_no_pair_and_a_cut_answer_is_no_example():
    tie = rank_items([label(reading([0, 1, 2], [1, 1, 3]))], {"a": 3}, "majority", {})
    made = build_rows([row("i", "do", "no", finished=False)], tie)
    assert [one["id"] for one in made.rows["pairs"]] == ["a/0-2", "a/1-2"]
    assert made.rows["rankings"] == made.rows["best"] == []
    assert made.left_out["pairs of equals"] == made.left_out["rankings with equals"] == 1
    assert made.left_out["best answers that were cut off"] == 1


def lengths(prompts, completions, finished):
    return [float(len(text)) for text in completions]


class Lengths:
    """A reward: the answer's length."""

    def score(self, prompts, completions, finished):
        return Scored(lengths(prompts, completions, finished))


def test_a_reward_ranks_by_its_score():
    items = [Item(str(n), ask("why"), ["i", "do", "no", "bread"], [True] * 4) for n in range(3)]
    found = list(ByReward("reward", Checked(Lengths()), 2).label(items, {"2"}))
    assert [one.id for one in found] == ["0", "1"]
    assert found[0].readings == [Reading("reward", [0, 1, 2, 3], {"better": [4, 2, 2, 1]}, [])]
    assert json.loads(json.dumps(found[0].row()))["readings"][0]["shown"] == [0, 1, 2, 3]


def refuses(prompts, completions, finished):
    return [float(text == "no") for text in completions]


def test_a_reward_with_running_statistics_judges_each_batch_by_itself():
    """Alone, the lengths 2 and 1 become 1 and -1, which is more than the 1.5 that "no" costs; beside 100 it is less."""
    length = FunctionReward(kind="function", function=f"{__name__}:lengths")
    refusal = FunctionReward(kind="function", function=f"{__name__}:refuses")
    parts = {
        "a": Part(weight=1.0, normalize=True, reward=length),
        "b": Part(weight=-1.5, normalize=False, reward=refusal),
    }
    cpu = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
    plain = {"normalize": False, "clip": None, "missing_eos_penalty": 0.0, "length_penalty": 0.0}
    reward = load_reward(MixtureReward(kind="mixture", parts=parts, **plain), {}, cpu)
    judge = ByReward("reward", reward, 1)
    items = [Item(name, ask("why"), texts, [True] * 2) for name, texts in (("1", ["i", "i" * 100]), ("2", ["no", "i"]))]
    assert [list(judge.label(items, done))[-1].readings[0].ranks for done in ((), {"1"})] == [{"better": [1, 2]}] * 2


def test_diversity_by_hand():
    assert distinct([["a", "b"], ["a", "c"]], 1) == 3 / 4
    assert distinct([["a", "b"], ["a", "b"]], 2) == 1 / 2
    assert distinct([["a"]], 2) == 1.0
    alike = ["mix", "flour", "and", "water", "now"]
    assert self_bleu([alike, alike]) == pytest.approx(1)
    assert self_bleu([alike, ["why", "do", "i", "bake", "bread"]]) < 0.2
    found = diversity([["a b", "a b", "c d"], []])
    assert (found.prompts, found.different) == (1, pytest.approx(2 / 3))
    assert found.distinct_1 == pytest.approx(4 / 6)


def known_pairs(count, seed):
    """Items of two answers of unequal worth on pocket."""
    random = Random(seed)
    drawn = [draw_prompt(draw_kind(random), "full", random) for _ in range(count)]
    both = [draw_answers(prompt, 2, random, "full") for prompt in drawn]
    turns = ([{"role": "user", "content": prompt.text}] for prompt in drawn)
    return [Item(f"{n:06}", asked, two, [True] * 2) for n, (asked, two) in enumerate(zip(turns, both, strict=True))]


@pytest.mark.runs
@pytest.mark.parametrize("seed", [100, 101])
def test_a_weighted_consensus_of_annotators_beats_a_majority_and_is_no_worse_than_the_best(seed):
    reliabilities = (0.6, 0.6875, 0.775, 0.8625, 0.95)
    items = known_pairs(1000, seed)
    found = list(Annotators(reliabilities, seed).label(items, ()))
    known = labelers(found, {})
    for number, reliability in enumerate(reliabilities, 1):
        assert known[f"annotator {number}"].reliability == pytest.approx(reliability, abs=0.05)
    rows = [row(*item.answers, item=item.id) | {"prompt": item.prompt} for item in items]
    right = gold_order(rows)
    assert len(right) == 1000
    agreements = {
        "consensus": rank_items(found, {item.id: 2 for item in items}, "dawid_skene", {}),
        "majority": rank_items(found, {item.id: 2 for item in items}, "majority", {}),
    }
    pairs = {name: {(i, 0, 1): one.pairs[0, 1] for i, one in own.items()} for name, own in agreements.items()}
    best = majority([vote for vote in votes(found, {}) if vote.labeler == "annotator 5"])
    pairs["best"] = {(name.partition("/")[0], 0, 1): share for name, share in best.items()}
    gains = {one.name: one.interval for one in label_accuracy(pairs, right, ["majority"], config("seed=0").evaluation)}
    assert gains["consensus − majority"].low > 0
    assert gains["consensus − best"].high > 0
    assert gains["consensus"].value >= gains["best"].value - 0.005


def test_annotators_hold_equals_equal_and_repeat_themselves():
    item = Item(
        "7", [{"role": "user", "content": "What covers an owl?"}], ["Nonsense one.", "Nonsense two."], [True] * 2
    )
    first, again = (next(Annotators((0.5, 1.0), 0).label([item], ())) for _ in range(2))
    assert first == again
    assert [one.ranks for one in first.readings] == [{"better": [1, 1]}] * 2


def test_what_is_saved_counts_as_far_as_labels_agree_with_peoples():
    how = settings(**{"people.price": 0.5, "people.minutes": 3.0, "machine_hour": 6.0})
    spent = [Labelled(str(n), [reading([0, 1], [1, 2])], Spent(100, 10, 30.0, {"429": 1})) for n in range(4)]
    lost = [Unlabelled("9", "why", Spent(100, 0, 60.0, {"429": 2, "500": 1}))]
    found = cost(spent, lost, how)
    assert (found.labels, found.read, found.written, found.again) == (4, 500, 40, {"429": 6, "500": 1})
    assert found.money == pytest.approx(180 / 3600 * 6)  # what was spent in vain costs too
    assert (found.price, found.minutes) == (pytest.approx(0.075), pytest.approx(0.75))
    assert saving(found, how, 0, 0).counted is None
    counted = saving(found, how, 10, 8)
    assert (counted.at_most, counted.counted) == (pytest.approx(0.85), pytest.approx(0.65))  # 0.8 less 0.075 / 0.5
    assert saving(found, how, 10, 1).counted == pytest.approx(-0.05)  # labels that are wrong save nothing


def test_a_local_model_is_heard_in_both_orders_as_far_as_it_is_sure():
    from test_cai import constitution, judge

    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    items = [Item(str(n), ask("why"), ["i bake", "do no", "bread"], [True] * 3) for n in range(3)]
    found = list(PairwiseModel(model, tokenizer, constitution("n"), judge(), 0).label(items, {"2"}))
    assert [len(one.readings) for one in found] == [6, 6, 6]
    asked = [Item("", ask("why"), ["i bake", "do no"], [True] * 2, principle=constitution("n").principles[0])]
    (said,) = model_logprobs.verdicts(model, tokenizer, asked, constitution("n"), judge(clamp=[0.0, 1.0]))
    first, second = found[0].readings[:2]
    assert (first.shown, second.shown) == ([0, 1], [1, 0])
    assert first.ranks == {"better": [1, 2] if said.first > 0.5 else [2, 1]}
    assert second.ranks == {"better": [2, 1] if said.second > 0.5 else [1, 2]}
    assert first.sure == pytest.approx(abs(log(said.first / (1 - said.first))), abs=1e-4)
    (vote,) = (vote for vote in votes(found[:1], {}) if vote.item == "0/0-1")
    assert vote.first == (said.label > 0.5)  # the mean of the log-odds decides


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge=reward"], "reward.path: auto is the rm stage of a training run, and task=preferences trains none"),
        (
            ["judge=annotators", "model=scratch", "dataset=file", f"dataset.path={__file__}"],
            "judge: annotators know only the pocket world, and dataset is file",
        ),
        (["judge=human", "judge.path=[nobody.csv]"], "judge.path: nobody.csv is not there"),
        (["judge=openai", "judge.url=ftp://x"], "judge.url: 'ftp://x' is not the address of a server"),
        (["judge=reward", "preferences.panel=[nowhere]"], "preferences.panel: nowhere is not there"),
        (["judge=reward", "preferences.weights={safety: 0}"], "preferences.weights: every criterion weighs nothing"),
        (
            ["judge=annotators", "judge.reliability=[1.0]"],
            "judge.reliability: unknown key; did you mean 'rel",
        ),
    ],
)
def test_mistakes_are_said_before_anything_is_sampled(arguments, said):
    with pytest.raises(Mistake) as raised:
        begin(config("task=preferences", *arguments))
    assert any(str(fault).startswith(said) for fault in raised.value.faults)


def test_what_a_run_saves_as_its_config_repeats_it(tmp_path):
    now = config("task=preferences", "judge=annotators", "preferences.prompts=7", "judge.seed=3")
    choices = {"task": "preferences", "judge": "annotators", "model": "pocket", "dataset": "pocket", "method": "ppo"}
    (tmp_path / "config.yaml").write_text(repeatable(now.chosen(choices)))
    overrides, groups = command_line.read([f"experiment={tmp_path / 'config.yaml'}"])
    with command_line.stored(groups):
        bound = bind_tree(check(overrides, binds=False, groups=groups).trees[0])
        assert bound.model_dump() == now.model_dump()  # where a value came from is not saved
