"""A judge behind a server: what it says is taken as it is, what it fails to say is asked again, nothing is made up."""

import json
import time
from functools import cache

import pytest
from chat_server import chat_server, honest, lengths, said
from command import config
from test_cai import constitution
from tiny import ask

from alignlab.config.judge import OpenaiJudge
from alignlab.errors import Failure
from alignlab.judges.chat_server import ChatServer, orders
from alignlab.judges.label import label_all, labels_in
from alignlab.judges.protocol import Item, Labelled, Unlabelled
from alignlab.models.chat_client import Retry, UnusableAnswer, parse_json, retry_after
from alignlab.preferences.agreement import Bias, biases, votes
from alignlab.runtime.journal import Journal

ITEMS = [Item(str(n), ask("why"), ["i", "do no", "bread" * (n + 1)], [True] * 3) for n in range(6)]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@cache
def settings():
    given = ("task=preferences", "judge=openai", "judge.url=http://127.0.0.1:9/v1", "judge.model=m")
    return config(*given).preferences.judge


def judge(url, **more):
    own = {"timeout": 0.5, "retries": 2, "backoff": 0.01, "concurrency": 1, "orders": 1, "give_up_after": 3} | more
    return ChatServer(OpenaiJudge.model_validate(settings().model_dump() | {"url": url} | own), constitution(), 0)


def by_turns(*answers):
    """Give each answer once, then honest ones."""
    return lambda body, number: (answers[number] if number < len(answers) else honest)(body, number)


def always(answer):
    return lambda body, number: answer


def test_ranks_come_with_reasons_and_in_both_orders(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    with chat_server() as server:
        done = list(judge(server.url, orders=2, key_env="JUDGE_KEY").label(ITEMS[:1], ()))
    assert [type(one) for one in done] == [Labelled]
    first, second = done[0].readings
    assert second.shown == first.shown[::-1]
    by_place = dict(zip(first.shown, first.ranks["safety"], strict=True))
    assert by_place == {0: 3, 1: 2, 2: 1} or by_place == {0: 3, 1: 1, 2: 2}  # "do no" and "bread" are equally long
    assert first.reasons[first.shown.index(0)] == "1 letters 1 letters"
    assert (done[0].spent.read, done[0].spent.written, done[0].spent.again) == (200, 20, {})
    _, path, key, body = server.asked[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer s3cret")
    wanted = body["response_format"]["json_schema"]["schema"]
    assert wanted["required"] == ["A", "B", "C"]
    assert wanted["properties"]["B"]["properties"]["safety"]["properties"]["rank"]["enum"] == [1, 2, 3]
    assert "s3cret" not in json.dumps([body, done[0].row()])


def slow(body, number):
    time.sleep(0.7)
    return honest(body, number)


TROUBLES = {
    "timeout": slow,
    "429": always((429, "", {"Retry-After": "0.2"})),
    "500": always((500, "oops", {})),
    "503": always((503, "", {})),
    "broken answer": always((200, "<html>", {})),
    "nonsense": always(said("I like them all.")),
}
NONSENSE = {
    "no rank at all": {},
    "one answer left out": {letter: {"safety": {"rank": 1}, "helpfulness": {"rank": 1}} for letter in "AB"},
    "a criterion left out": {letter: {"safety": {"rank": 1}} for letter in "ABC"},
    "ranks out of range": {letter: {"safety": {"rank": 7}, "helpfulness": {"rank": 0}} for letter in "ABC"},
    "ranks in words": {letter: {"safety": {"rank": "first"}, "helpfulness": {"rank": True}} for letter in "ABC"},
    "a list": "[1, 2, 3]",
    "cut short": '{"A": {"safety": {"rank": 1}, "helpf',
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_what_passes_is_tried_again_and_counted(kind):
    with chat_server(by_turns(TROUBLES[kind])) as server:
        done = list(judge(server.url).label(ITEMS[:2], ()))
        undisturbed = list(judge(server.url).label(ITEMS[:2], ()))
    assert [one.readings for one in done] == [one.readings for one in undisturbed]
    assert [one.spent.again for one in done] == [{kind: 1}, {}]
    if kind == "429":
        assert server.asked[1][0] - server.asked[0][0] >= 0.2  # what the server wants, not the backoff


def test_an_answer_that_counts_its_tokens_in_no_known_way_is_broken():
    answer = (200, '{"choices": [{"message": {"content": "{}"}}], "usage": ["?"]}', {})
    with chat_server(by_turns(always(answer))) as server:
        done = list(judge(server.url).label(ITEMS[:1], ()))
    assert [one.spent.again for one in done] == [{"broken answer": 1}]


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_told_to_the_model_and_never_becomes_a_label(kind):
    with chat_server(by_turns(always(said(NONSENSE[kind])))) as server:
        done = list(judge(server.url).label(ITEMS[:1], ()))
        assert done[0].spent.again == {"nonsense": 1}
        assert done[0].spent.read == 200  # both answers were paid for
        told = server.asked[1][3]["messages"][-1]["content"]
        assert told.startswith("That cannot be used: ")
        server.script = always(said(NONSENSE[kind]))
        lost = list(judge(server.url).label(ITEMS[:1], ()))
    assert [type(one) for one in lost] == [Unlabelled]
    assert lost[0].why.endswith("(tried 3 times)")


def test_words_and_fences_around_json_are_no_nonsense():
    with chat_server(lambda body, number: said(lengths(body), fence=True)) as server:
        assert type(next(iter(judge(server.url).label(ITEMS, ())))) is Labelled
    assert parse_json('{a} then {"b": 1} and more') == {"b": 1}


def test_no_label_at_all_is_a_failure(tmp_path):
    """Fewer prompts than `give_up_after`, and a server that is down."""
    with pytest.raises(Failure, match="judge: none of 2 prompts got a label: the server cannot be reached"):
        label_all(judge("http://127.0.0.1:9/v1", retries=0), ITEMS[:2], Journal(tmp_path / "labels.jsonl"))


def test_dates_without_a_zone_are_utc_and_others_no_dates():
    assert retry_after("Mon, 30 Nov 2026 10:00:00 -0000") is not None
    assert retry_after("Mon, 99 Foo 99999 99:99:99 +9999") is None
    assert retry_after("nan") == 0.0


def test_the_search_for_an_object_takes_linear_time():
    began = time.monotonic()
    for part in ("{", '{"a":', '{"x"', "{  "):
        with pytest.raises(UnusableAnswer):
            parse_json(part * 200_000)
    assert time.monotonic() - began < 3
    assert parse_json(r"\frac{a}{b} " * 9999 + '{"mark": 1}') == {"mark": 1}


def test_an_item_that_gets_no_label_is_left_out_and_asked_for_again(tmp_path):
    def moody(body, number):
        return said("no") if "bread" * 3 in body["messages"][1]["content"] else honest(body, number)

    journal = Journal(tmp_path / "labels.jsonl")
    with chat_server(moody) as server:
        missing = label_all(judge(server.url), ITEMS[:3], journal)
        assert [one.id for one in missing] == ["2"]
        assert [one.id for one in labels_in(journal, ITEMS)] == ["0", "1"]
        server.script, before = honest, len(server.asked)
        assert label_all(judge(server.url), ITEMS[:3], Journal(journal.path)) == []
        assert len(server.asked) == before + 1
    assert [one.id for one in labels_in(Journal(journal.path), ITEMS)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            (401, '{"error": "no such key"}', {}),
            "answers 401 for the model m: .*no such key.*; set the key's environment",
        ),
        ((404, "", {}), "answers 404 .*; check url"),
        ((500, "", {}), "3 prompts in a row got no label .*: the server answers 500 .*; what was labelled is kept"),
        ((429, "", {}), "3 prompts in a row got no label .*: the server answers 429"),
        ((200, "{}", {}), r"3 prompts in a row got no label .*: the server's answer is broken: '\{\}'"),
        (said("no"), "3 prompts in a row got no label .*: the model's answer cannot be used: it holds no JSON object"),
    ],
)
def test_a_server_that_stays_broken_stops_the_run_and_what_was_labelled_is_kept(answer, said, tmp_path):
    journal = Journal(tmp_path / "labels.jsonl")
    with chat_server(by_turns(honest, honest)) as server:
        good = server.script
        server.script = lambda body, number: good(body, number) if number < 2 else answer
        with pytest.raises(Failure, match=said) as raised:
            label_all(judge(server.url), ITEMS, journal)
    assert "\n" not in str(raised.value)
    assert list(Journal(journal.path).rows) == ["0", "1"]


def test_a_server_that_is_away_stops_the_run():
    with pytest.raises(Failure, match=r"3 prompts in a row got no label from .*the server cannot be reached"):
        list(judge("http://127.0.0.1:9/v1").label(ITEMS, ()))


def test_a_server_that_knows_no_schemas_is_asked_in_a_plainer_form():
    def plain(body, number):
        return (400, "unknown field", {}) if "response_format" in body else honest(body, number)

    with chat_server(plain) as server:
        done = list(judge(server.url).label(ITEMS[:3], ()))
    assert [one.spent.again for one in done] == [{}, {}, {}]
    forms = [body.get("response_format", {}).get("type") for *_, body in server.asked]
    assert forms == ["json_schema", "json_object", None, None, None]  # what was learned is not asked again


def test_who_likes_the_first_place_has_no_say():
    def first(body, number):
        letters = sorted(lengths(body))
        return said({letter: {"safety": {"rank": n}, "helpfulness": n} for n, letter in enumerate(letters, 1)})

    with chat_server(first) as server:
        done = list(judge(server.url, orders=2).label(ITEMS, ()))
    assert votes(done, {}) == []
    assert biases(done, {}) == {"m": Bias(36, 0, 0)}


def test_several_items_are_asked_for_at_once_and_the_labels_do_not_depend_on_it():
    def unhurried(body, number):
        time.sleep(0.1)
        return honest(body, number)

    with chat_server(unhurried) as server:
        many = sorted(judge(server.url, concurrency=4, timeout=10.0).label(ITEMS, ()))
        assert server.most_at_once == 4
        one = sorted(judge(server.url, concurrency=1, timeout=10.0).label(ITEMS, ()))
    assert [item.readings for item in many] == [item.readings for item in one]


def test_pairs_are_shown_in_both_orders():
    how = judge("http://127.0.0.1:9/v1", compare="pairs", orders=2).settings
    shown = list(orders(ITEMS[0], how, 7))
    assert len(shown) == 6
    assert {tuple(sorted(two)) for two in shown} == {(0, 1), (0, 2), (1, 2)}
    assert all(one == other[::-1] for one, other in zip(shown[::2], shown[1::2], strict=True))


def test_how_long_a_server_wants_peace():
    assert retry_after("7") == 7.0
    assert retry_after("Fri, 21 Nov 1975 09:00:00 GMT") == 0.0
    assert retry_after("soon") is None
    patient = judge("http://127.0.0.1:9/v1", longest_wait=3.0, backoff=0.5).client
    assert patient.delay(Retry("429", "", 3600.0), 0) == 3
    assert [patient.delay(Retry("500", ""), attempt) for attempt in range(4)] == [0.5, 1, 2, 3]
