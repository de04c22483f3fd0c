"""Replies: drawn once, kept under all that decides them, and the same wherever an item stands."""

import pytest
from chat_server import chat_server, said
from tiny import ask, tiny_model, tiny_tokenizer

from alignlab.config.hardware import Hardware
from alignlab.evaluation import replies
from alignlab.evaluation.replies import Item
from alignlab.evaluation.subjects import LanguageModel
from alignlab.models.sampling import Sampling

HARDWARE = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
SAMPLING = Sampling(1.0, 1.0, 8, 2)
WORDS = ("how", "why now", "do i bake bread", "stop", "mix flour and water")
ITEMS = [Item(f"item {place}", ask(*words.split())) for place, words in enumerate(WORDS)]


class Counted(LanguageModel):
    """A model that counts the completions and the choices that it computes."""

    def __init__(self, folder):
        super().__init__(folder, HARDWARE)
        self.drawn = self.scored = 0

    def sample(self, items, draws, sampling, seed):
        for batch in super().sample(items, draws, sampling, seed):
            self.drawn += sum(map(len, batch.values()))
            yield batch

    def score(self, items):
        for batch in super().score(items):
            self.scored += sum(map(len, batch.values()))
            yield batch


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def forget(tmp_path):
    """Remove the replies from the cache."""
    import shutil

    return lambda: shutil.rmtree(tmp_path / "cache")


def answers(model, items, seed=0, sampling=SAMPLING):
    return {reply.item.id: reply.completions for reply in replies.ask(model, items, sampling, seed)}


def test_a_few_items_feed_many_and_nothing_is_drawn_twice(folder):
    quick, standard, again = (Counted(folder) for _ in range(3))
    few, every = answers(quick, ITEMS[:2]), answers(standard, ITEMS)
    assert (quick.drawn, standard.drawn) == (2, 3)
    assert {name: every[name] for name in few} == few
    assert answers(again, ITEMS[::-1]) == every
    assert again.drawn == 0
    assert "loaded" not in again.__dict__  # the model was not even read


def test_an_answer_does_not_depend_on_the_place_of_its_item(folder, forget):
    first = answers(Counted(folder), ITEMS)
    forget()
    assert answers(Counted(folder), ITEMS[::-1]) == first
    forget()
    assert answers(Counted(folder), ITEMS[3:]) == {item.id: first[item.id] for item in ITEMS[3:]}


def test_more_samples_of_an_item_keep_the_first(folder):
    two, five = (ITEMS[0]._replace(samples=count) for count in (2, 5))
    model = Counted(folder)
    first = answers(model, [two])[two.id]
    assert answers(model, [five])[five.id][:2] == first
    assert model.drawn == 5
    assert len({one.text for one in answers(model, [five])[five.id]}) > 1


@pytest.mark.parametrize("change", ["prompt", "seed", "temperature", "weight"])
def test_what_decides_a_reply_and_has_changed_reuses_nothing(folder, change):
    answers(Counted(folder), ITEMS[:2])
    items, seed, sampling = ITEMS[:2], 0, SAMPLING
    if change == "prompt":
        items = [item._replace(prompt=ask("yes", "no")) for item in items]
    elif change == "seed":
        seed = 1
    elif change == "temperature":
        sampling = SAMPLING._replace(temperature=0.5)
    else:
        tiny_model(1).save_pretrained(folder)
    model = Counted(folder)
    answers(model, items, seed, sampling)
    assert model.drawn == 2


def test_a_killed_evaluation_resumes_after_its_last_batch_with_the_same_replies(folder, forget):
    whole = answers(Counted(folder), ITEMS)
    forget()

    class Killed(Counted):
        def sample(self, items, draws, sampling, seed):
            for number, batch in enumerate(super().sample(items, draws, sampling, seed)):
                if number == 1:
                    raise KeyboardInterrupt
                yield batch

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            answers(Killed(folder), ITEMS)
    last = Counted(folder)
    assert answers(last, ITEMS) == whole
    assert last.drawn == 1  # batches of two: two were finished


def test_scores_of_choices_are_kept_too(folder):
    item = Item("mc", ask("why"), choices=("yes", "no now"))
    first, second = Counted(folder), Counted(folder)
    (reply,), (same,) = (replies.ask(model, [item], SAMPLING, 0) for model in (first, second))
    assert (first.scored, second.scored) == (2, 0)
    assert reply.choices == same.choices
    assert [choice.tokens for choice in reply.choices] == [2, 3]  # with the end of the turn
    (open_ended,) = replies.ask(first, [item._replace(ends=False)], SAMPLING, 0)
    assert [choice.tokens for choice in open_ended.choices] == [1, 2]


def test_raw_text_is_continued_without_a_template(folder):
    import torch

    item = Item("raw", "how do i", choices=(" bake bread",))
    (reply,) = replies.ask(Counted(folder), [item], SAMPLING, 0)
    ids = tiny_tokenizer()("how do i bake bread", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logps = tiny_model()(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert reply.choices[0].score == pytest.approx(float(logps[2, ids[3]] + logps[3, ids[4]]), rel=1e-5)
    (sampled,) = replies.ask(Counted(folder), [Item("raw", "how do i", samples=2)], SAMPLING, 0)
    assert len(sampled.completions) == 2


def test_a_temperature_of_nothing_takes_the_likeliest_tokens(folder):
    greedy = [Item(f"greedy {n}", ask("why"), temperature=0.0) for n in range(3)]
    texts = {one[0].text for one in answers(Counted(folder), greedy).values()}
    assert len(texts) == 1


def test_a_server_completes_prompts_with_a_seed_each_and_is_asked_once():
    from alignlab.config.judge import Host
    from alignlab.evaluation.server_subject import ServerModel

    how = {"key_env": None, "timeout": 10.0, "retries": 0, "backoff": 0.0, "longest_wait": 1.0, "concurrency": 2}
    with chat_server(lambda body, number: said(f"{body['messages'][-1]['content']}!")) as server:
        model = ServerModel(Host(url=server.url, model="name", **how))
        items = [item._replace(samples=2) for item in ITEMS]
        (first, *_), again = (replies.ask(model, items, SAMPLING, 0) for _ in range(2))
        seeds = [body["seed"] for *_, body in server.asked]
    assert first.text == again[0].text == "how!"
    assert len(seeds) == len(set(seeds)) == 10
    with pytest.raises(TypeError, match="scores no choices"):
        model.score(items)


def test_a_refusal_in_a_field_of_its_own_is_the_reply():
    from alignlab.models.chat_client import message_text

    assert message_text({"content": None, "refusal": "I can't help."}) == "I can't help."
    assert message_text({"content": "yes", "refusal": None}) == "yes"
    assert message_text({"content": None}) == ""
