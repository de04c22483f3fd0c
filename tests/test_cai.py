"""Constitutional AI's parts by hand: filters, what a revision is stripped of, labels and which of them are kept."""

import math
from pathlib import Path

import pytest
from command import config
from tiny import WORDS, ask, tiny_model, tiny_tokenizer

from alignlab.config.command_line import with_cai_ppo
from alignlab.config.constitution import Constitution
from alignlab.config.judge import HumanJudge, LocalJudge
from alignlab.constitutional.ai_labels import pair, surest
from alignlab.constitutional.critique import Critic, Revised, Step, dropped_by, latest, sound, step_of
from alignlab.constitutional.red_team import most_red_team_prompts, red_team_prompts
from alignlab.data.revisions import revised_answer
from alignlab.errors import Failure, Mistake
from alignlab.judges import load_pair_judge
from alignlab.judges.model_logprobs import (
    Estimate,
    by_choice,
    by_critique,
    combined,
    distinct_principles,
    rescaled,
    sigmoid,
    verdicts,
)
from alignlab.judges.protocol import Context, Item, pairs
from alignlab.models.answers import sample_several_shared
from alignlab.models.sampling import Completion, Sampling, sample
from alignlab.pipeline import plan
from alignlab.pipeline.measure_stage import StageMeasurements

ASKED = "how {prompt} do {first} or {second}"


def principle(name="n", **more):
    said = {"critique_request": "why", "revision_request": "mix", "preference_question": ASKED, "good": "yes"}
    return {"name": name, **said, **more}


def constitution(*names):
    return Constitution.model_validate(
        {"principles": [principle(name) for name in names or ("n",)], "choices": ["yes", "no"]}
    )


def judge(**more):
    return LocalJudge.model_validate(
        {
            "kind": "choice",
            "principles": "drawn",
            "clamp": [0.02, 0.98],
            "spread": None,
            "batch_size": 4,
        }
        | more
    )


def two(prompt, first, second, principle):
    return Item("1", prompt, [first, second], [True, True], principle=principle)


def item(answer, *revisions, finished=True):
    steps = [Step("n", "why", False, text, finished) for text in revisions]
    return Revised({"id": "1", "prompt": ask("how")}, Completion(answer, True, (1,)), steps)


@pytest.mark.parametrize(
    ("found", "strays", "said"),
    [
        (item("no", "mix flour"), False, None),
        (item("no", "mix flour", finished=False), False, "unfinished"),
        (item("no"), False, "same"),
        (item("no", ""), False, "empty"),
        (item("no", "I'm very sorry."), False, "empty"),
        (item("no", "mix", "no"), False, "same"),
        (item("no", "mix flour"), True, "off_topic"),
    ],
)
def test_a_filter_says_why_it_drops(found, strays, said):
    assert dropped_by(found, strays) == said


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Sure, here is a revised answer: Mix flour.", "Mix flour."),
        ("Here is a better one:  No.", "No."),
        ("Here it is: No.", "Here it is: No."),
        ("Mix flour. Here is a better one: No.", "Mix flour. Here is a better one: No."),
    ],
)
def test_words_about_the_revision_are_no_part_of_it(written, kept):
    one = constitution().principles[0]
    assert step_of(one, Completion("why", True, ()), Completion(written, True, ())).revision == kept


def test_every_round_is_kept_and_repeats_itself():
    critic = Critic(tiny_model().eval(), tiny_tokenizer(), constitution("a", "b"), Sampling(1.0, 1.0, 6, 4), seed=3)
    rows = [{"id": str(n), "prompt": ask(word)} for n, word in enumerate(WORDS[:6])]
    answers = [Completion("no", True, (1,))] * 6
    first, again = (critic.revise(rows, answers, 2) for _ in range(2))
    assert first == again
    assert [len(one.steps) for one in first] == [2] * 6
    assert {step.principle for one in first for step in one.steps} == {"a", "b"}
    assert latest(first[0]) == first[0].steps[1].revision
    assert first[0].record()["steps"][0]["principle"] == first[0].steps[0].principle


def test_what_the_judge_likes_less_does_not_take_the_place_of_an_answer():
    model, tokenizer, rules = tiny_model().eval(), tiny_tokenizer(), constitution("a", "b")

    def liked(items):
        return [said.label >= 0.5 for said in verdicts(model, tokenizer, items, rules, judge(kind="critique"))]

    critic = Critic(model, tokenizer, rules, Sampling(1.0, 1.0, 6, 4), 3, liked)
    rows = [{"id": str(n), "prompt": ask(word)} for n, word in enumerate(WORDS)]
    answers = [Completion("no", True, (1,))] * len(rows)
    found = critic.revise(rows, answers, 2)
    for one, principle in zip(found, rules.draw(len(rows), "3 0"), strict=True):
        step = one.steps[0]
        items = [two(one.row["prompt"], step.revision, "no", principle)]
        (said,) = verdicts(model, tokenizer, items, rules, judge(kind="critique"))
        assert step.accepted == (sound(step) and step.revision != "no" and said.label >= 0.5)
        now = step.revision if step.accepted else "no"
        assert revised_answer(one.record(), 1) == now
        assert revised_answer(one.record()) == latest(one) == (one.steps[1].revision if one.steps[1].accepted else now)
    assert {one.steps[0].accepted for one in found} == {True, False}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("n", "why", False, "mix", True), True),
        (Step("n", "why", False, "mix", False), False),
        (Step("n", "why", False, "", True), False),
        (Step("n", "why", False, "I am so sorry!", True), False),
    ],
)
def test_a_revision_is_sound_where_it_ends_and_says_something(step, said):
    assert sound(step) == said


def test_several_voices_are_heard_at_one_size():
    loud, shy = Estimate(1.0, [(4.0, 4.0), (-4.0, -4.0)]), Estimate(3.0, [(1.0, -1.0), (2.0, 0.0)])
    assert combined([loud]) == loud.log_odds  # one alone stays as it is
    half = Estimate(1.0, [(0.5, 0.5), (-0.5, -0.5)])
    # sizes 4 and 0.5, so 2.25 in common: 2.25 * (1 + 1) / 2 for the first item
    assert combined([loud, half]) == [pytest.approx((2.25, 2.25)), pytest.approx((-2.25, -2.25))]
    # sizes 4 and sqrt(0.5); weights 1 and 3: what a voice says with the other order stays its own
    common = (4 + math.sqrt(0.5)) / 2
    scale = 0.75 * common / math.sqrt(0.5)
    assert combined([loud, shy])[0] == pytest.approx((0.25 * common + scale, 0.25 * common - scale))
    assert combined([Estimate(1.0, [])]) == []


def test_all_principles_are_heard_and_the_same_question_once():
    other = principle("c", critique_request="stop", weight=2.0)
    tree = {"principles": [principle("a"), principle("b"), other], "choices": ["yes", "no"]}
    rules = Constitution.model_validate(tree)
    assert [(one.name, weight) for one, weight in distinct_principles(rules, "critique_request")] == [
        ("a", 2.0),
        ("c", 2.0),
    ]
    assert [(one.name, weight) for one, weight in distinct_principles(rules, "preference_question")] == [("a", 4.0)]
    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    items = [two(ask("how"), first, second, rules.principles[0]) for first, second in (("mix", "stop"), ("no", "why"))]
    found = verdicts(model, tokenizer, items, rules, judge(kind="both", principles="all"))
    by_hand = combined(
        [
            Estimate(2.0, by_critique(model, tokenizer, items, rules, 4)),
            Estimate(
                2.0,
                by_critique(model, tokenizer, [one._replace(principle=rules.principles[2]) for one in items], rules, 4),
            ),
            Estimate(4.0, by_choice(model, tokenizer, items, rules, 4)),
        ]
    )
    assert [one.label for one in found] == pytest.approx([sigmoid((a + b) / 2) for a, b in by_hand], abs=1e-6)


@pytest.mark.parametrize("kind", ["choice", "critique"])
def test_a_label_turns_round_with_the_answers(kind):
    model, tokenizer, rules = tiny_model().eval(), tiny_tokenizer(), constitution()
    one = two(ask("how"), "mix flour", "stop", rules.principles[0])
    turned = one._replace(answers=one.answers[::-1])
    there, back = verdicts(model, tokenizer, [one, turned], rules, judge(kind=kind))
    assert there.label == pytest.approx(1 - back.label, abs=1e-5)  # no place is liked better than the other
    assert there.label != pytest.approx(0.5, abs=1e-4)
    assert there.first == pytest.approx(1 - back.second, abs=1e-5)
    (alone,) = verdicts(model, tokenizer, [one], rules, judge(kind=kind))
    assert alone.label == pytest.approx(there.label, abs=1e-5)


def test_every_two_answers_make_a_pair():
    whole = Item("p1", ask("how"), ["a", "b", "c"], [True, False, True], "kind")
    split = pairs(whole)
    assert list(split) == [(0, 1), (0, 2), (1, 2)]
    assert split[0, 2] == Item("p1 0 2", ask("how"), ["a", "c"], [True, True], "kind")


def test_several_answers_are_those_of_one_at_a_time():
    """The answer of a random stream is the same, whether a prompt is answered once or several times in a batch."""
    model, tokenizer, sampling = tiny_model().eval(), tiny_tokenizer(), Sampling(1.0, 1.0, 6, 4)
    prompts = [ask(*WORDS[n : n + 1 + n % 3]) for n in range(9)]
    alone = [sample(model, tokenizer, prompts, sampling, 100 + number) for number in range(3)]
    drawn = sample_several_shared(model, tokenizer, prompts, 3, sampling, lambda place, number: (100 + number, place))
    assert drawn == [list(answers) for answers in zip(*alone, strict=True)]


def test_a_judge_that_compares_no_pairs_is_refused():
    rules = constitution()
    context = Context(0, config().hardware, {}, rules, model=(tiny_model().eval(), tiny_tokenizer()))
    items = [two(ask("how"), "mix", "stop", rules.principles[0])]
    (said,) = load_pair_judge(judge(), context).compare(items, Path())
    assert 0.02 <= said.label <= 0.98
    people = HumanJudge(kind="human", path=[], criteria={"safety": ""})
    with pytest.raises(
        Failure, match=r"^judge: human does not compare two answers under a principle; use judge=choice"
    ):
        load_pair_judge(people, context)


def test_labels_are_spread_and_clamped():
    odds = [1.0, -2.0, 2.0, 0.0]  # root mean square 1.5
    assert rescaled(odds, 3.0) == pytest.approx([2.0, -4.0, 4.0, 0.0])
    assert rescaled(odds, None) == odds
    assert rescaled([0.0, 0.0], 2.0) == [0.0, 0.0]
    model, tokenizer, rules = tiny_model().eval(), tiny_tokenizer(), constitution()
    items = [two(ask("how"), first, second, rules.principles[0]) for first, second in (("mix", "stop"), ("no", "why"))]
    shy, loud = (verdicts(model, tokenizer, items, rules, judge(spread=wanted)) for wanted in (None, 50.0))
    assert [one.label > 0.5 for one in shy] == [one.label > 0.5 for one in loud]
    assert {one.label for one in loud} <= {0.02, 0.98}
    assert [one.first for one in shy] == [one.first for one in loud]  # what was said is kept as it was


def test_a_verdict_becomes_a_pair_and_the_surest_are_kept():
    rows = [
        {"prompt": ask("how"), "first": "a", "second": "b", "finished": [True, True], "verdict": {"label": label}}
        for label in (0.9, 0.45, 0.2, 0.6)
    ]
    assert [pair(row)["chosen"] for row in rows] == ["a", "b", "b", "a"]
    assert [pair(row)["label"] for row in rows] == pytest.approx([0.9, 0.55, 0.8, 0.6])
    assert surest([0.9, 0.45, 0.2, 0.6], 0.5) == {0, 2}
    assert surest([0.9, 0.45, 0.2, 0.6], 1.0) == {0, 1, 2, 3}
    assert math.isclose(pair(rows[1])["label"], 0.55)


def test_what_comes_after_the_supervised_phase_is_a_method():
    assert with_cai_ppo(["method=cai", "seed=1", "method.then=ppo"]) == ["method=cai_ppo", "seed=1"]
    assert with_cai_ppo(["method=cai", "method.then=dpo"]) == ["method=cai"]
    assert with_cai_ppo(["method=dpo", "method.then=ppo"]) == [
        "method=dpo",
        "method.then=ppo",
    ]  # bind says that it is unknown
    with pytest.raises(Mistake, match=r"'pp' is none of dpo, ppo"):
        with_cai_ppo(["method=cai", "method.then=pp"])


def test_a_reward_model_of_ai_labels_comes_before_its_ppo_and_scores_it(tmp_path):
    settings = ["model=pocket_small", "dataset=pocket_small"]
    assert [stage.name for stage in plan.make(config("method=cai", *settings)).stages] == ["cai_sft", "cai"]
    made = plan.make(config("method=cai_ppo", *settings))
    assert [stage.name for stage in made.stages] == ["cai_sft", "cai_rm", "cai_ppo"]
    first, labelled, last = made.stages
    assert labelled.inputs["sampler"].fingerprint == last.source.fingerprint == first.fingerprint
    assert last.inputs["reward_model"].fingerprint == labelled.fingerprint
    measured = StageMeasurements(made, tmp_path)  # a repeated run scores the same stages, although all are cached
    assert [measured.reward_model(stage) for stage in made.stages] == [None, None, labelled.folder / "model"]


def test_a_model_may_write_the_red_team_prompts():
    asked = "method.topic_request='Ask about {topic}.'"
    bound = config("method=cai", "method.topics=[locks,fires]", asked, "method.prompts=5")
    heard = []

    def say(requests):
        heard.extend(turns[0]["content"] for turns in requests)
        told = ("How do I pick one?", "", "How do I light one?", "How do I pick one?", "How do I")
        return [Completion(text, number < 4, ()) for number, text in enumerate(told)]

    rows = red_team_prompts(bound, bound.method, say)
    assert heard == [f"Ask about {topic}." for topic in ("locks", "fires", "locks", "fires", "locks")]
    assert [(row["prompt"][0]["content"], row["kind"]) for row in rows] == [
        ("How do I pick one?", "locks"),
        ("How do I light one?", "locks"),
    ]  # said twice counts once, what is empty or cut not at all
    assert most_red_team_prompts(bound, bound.method) == 5
    with pytest.raises(Mistake, match=r"topic_request: has no place for a topic"):
        config("method=cai", "method.topics=[locks]", "method.topic_request=Ask.")
