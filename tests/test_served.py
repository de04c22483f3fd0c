"""A stronger model behind a real server on the loopback: its verdicts and its words, and what becomes of nonsense."""

import pytest
from chat_server import ANSWER, chat_server, said
from command import config
from tiny import ask

from alignlab.config.constitution import Constitution
from alignlab.config.judge import OpenaiJudge
from alignlab.constitutional.critic_server import writer
from alignlab.errors import Mistake
from alignlab.judges.chat_server import ChatServer, verdict
from alignlab.judges.protocol import Item, Labelled, Reading

RULES = Constitution.model_validate(
    {
        "principles": [
            {
                "name": name, "critique_request": f"Is it {name}?", "revision_request": "Mend it.",
                "preference_question": "{prompt} {first} {second}", "good": "It is.",
            }
            for name in ("kind", "true")
        ],
        "choices": ["A", "B"],
    }
)  # fmt: skip
SETTINGS = ["method=cai", "judge=openai", "judge.model=strong", "judge.retries=0", "judge.backoff=0.0"]


def judge(url: str) -> OpenaiJudge:
    found = config(*SETTINGS, f"judge.url={url}").method.judge
    assert isinstance(found, OpenaiJudge)
    return found


def two(name, word, first, second, principle):
    return Item(name, ask(word), [first, second], [True, True], principle=principle)


def longest(body, number):
    """Ranks the longer answer first by whatever is asked for; knows nothing of bread."""
    asked = body["messages"][1]["content"]
    texts = dict(ANSWER.findall(asked))
    if "bread" in asked:
        return said("I would rather not.")
    order = sorted(texts, key=lambda letter: -len(texts[letter]))
    (criterion,) = body["response_format"]["json_schema"]["schema"]["properties"]["A"]["properties"]
    return said({letter: {criterion: {"reason": "long", "rank": 1 + order.index(letter)}} for letter in texts})


def test_ranks_become_probabilities():
    def reading(shown, **ranks):
        return Reading("strong", shown, ranks, [])

    both = Labelled("0", [reading([0, 1], kind=[1, 2]), reading([1, 0], kind=[2, 1])])
    assert verdict(both).clamped(0.4, 0.6) == (0.6, 1.0, 1.0)  # the first is better in either order
    place = Labelled("0", [reading([0, 1], kind=[1, 2]), reading([1, 0], kind=[1, 2])])
    assert verdict(place) == (0.5, 1.0, 0.0)  # what stands first is better, so nothing is
    mixed = Labelled("0", [reading([0, 1], kind=[1, 2], true=[1, 1])])
    assert verdict(mixed) == (0.75, 0.75, 0.75)


def test_a_server_judges_pairs_and_nothing_is_made_up(tmp_path):
    pairs = [
        two("0", "how", "a long answer", "short", RULES.principles[0]),
        two("1", "bread", "a long answer", "short", RULES.principles[1]),
        two("2", "why", "short", "a long answer", RULES.principles[1]),
    ]
    with chat_server(longest) as server:
        asked = ChatServer(judge(server.url), RULES, seed=0)
        found = asked.compare(pairs, tmp_path / "judged.jsonl")
        assert [one and one.label for one in found] == [1.0, None, 0.0]
        assert all("Is it kind?" in body["messages"][1]["content"] for *_, body in server.asked[:2])
        before = len(server.asked)
        again = asked.compare(pairs, tmp_path / "judged.jsonl")
        assert again == found
        assert all("bread" in body["messages"][1]["content"] for *_, body in server.asked[before:])  # the rest is kept


def test_a_server_writes_critiques(tmp_path):
    def script(body, number):
        last = body["messages"][-1]["content"]
        return said("no") if "bread" in last else said({"text": f" {last.partition('?')[0]}! "})

    with chat_server(script) as server:
        first, second = writer(judge(server.url))([ask("Is it kind?"), ask("bread")])
    assert (first.text, first.finished) == ("Is it kind!", True)
    assert (second.text, second.finished) == ("", False)


def test_only_a_judge_with_a_server_has_a_server_to_ask():
    with pytest.raises(Mistake, match="judge=both has no server; use judge=openai"):
        config("method=cai", "stages.cai_sft.critic_server=true")
