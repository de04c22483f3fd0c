"""Items to compare and rank, what labelers agree on, export in TRL's forms, influence, and the pages' HTML."""

import json

import pytest
from served import MESSAGES, bearer, served, tiny_engine

PEOPLE = [("ann", "label"), ("ben", "label"), ("cas", "use"), ("root", "administer")]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    engines = [tiny_engine("one", 0), tiny_engine("two", 1)]
    with served(tmp_path_factory.mktemp("items"), engines=engines, keys=PEOPLE) as client:
        yield client


def post(client, user, path, **body):
    response = client.post(path, json=body, headers=bearer(client, user))
    assert response.status_code == 200, response.text
    return response.json()


def get(client, user, path):
    response = client.get(path, headers=bearer(client, user))
    assert response.status_code == 200, response.text
    return response


def exported(client, form):
    return [json.loads(line) for line in get(client, "root", f"/export/{form}").text.splitlines()]


def test_a_choice_is_blind_and_becomes_a_preference_pair(client, tmp_path):
    item = post(client, "cas", "/items/compare", messages=MESSAGES, seed=5)
    assert "one" not in json.dumps(item["answers"]) or "two" not in json.dumps(item["answers"])
    first, second = item["answers"]
    chosen = post(client, "cas", f"/items/{item['id']}/choice", choice=first["id"])
    assert sorted(chosen["models"].values()) == ["one", "two"]
    (row,) = exported(client, "preference")
    assert row["prompt"] == MESSAGES
    assert [row[side][0]["content"] for side in ("chosen", "rejected")] == [first["completion"], second["completion"]]
    assert row["chosen_model"] == chosen["models"][first["id"]]
    for path, body in (
        ("choice", {"choice": "ans-other"}), ("ranks", {"ranks": {first["id"]: 1, second["id"]: 2}}),
    ):  # fmt: skip
        refused = client.post(f"/items/{item['id']}/{path}", json=body, headers=bearer(client, "ann"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    post(client, "cas", f"/items/{item['id']}/choice", choice="tie")
    assert exported(client, "preference") == []


def test_a_conversation_that_is_too_long_is_told_so(client):
    long = [{"role": "user", "content": "how " * 300}]
    for path, body in (("/items/compare", {}), ("/items", {"samples": 2})):
        response = client.post(path, json={"messages": long, **body}, headers=bearer(client, "ann"))
        assert (response.status_code, response.json()["error"]["code"]) == (422, "context_length_exceeded")


def test_ranks_of_several_labelers_and_their_agreement(client):
    texts = ["mix flour", "bake bread", "no"]
    item = post(client, "ann", "/items", messages=MESSAGES, answers=texts, instructions="the best first")
    assert sorted(answer["completion"] for answer in item["answers"]) == sorted(texts)
    ids = {answer["completion"]: answer["id"] for answer in item["answers"]}
    assert get(client, "ben", "/items/next").json()["item"]["id"] == item["id"]
    ranks = {"ann": (1, 2, 3), "ben": (1, 3, 2)}
    for user, given in ranks.items():
        body = {ids[text]: rank for text, rank in zip(texts, given, strict=True)}
        post(client, user, f"/items/{item['id']}/ranks", ranks=body)
    assert get(client, "ben", "/items/next").json() == {"item": None, "done": 1, "total": 1}
    told = get(client, "ann", "/items/agreement").json()
    assert told["labelers"] == [{"first": "ann", "second": "ben", "pairs": 3, "agreement": pytest.approx(2 / 3)}]
    assert told["disputed"] == [item["id"]]
    pairs = {
        (r["annotator"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in exported(client, "preference")
    }
    assert len(pairs) == 6
    assert {("ann", "bake bread", "no"), ("ben", "no", "bake bread")} <= pairs
    assert client.get("/items/next", headers=bearer(client, "cas")).status_code == 403


def test_an_export_is_read_by_dataset_file(client, tmp_path):
    from alignlab.data.readers import read_records
    from alignlab.tasks.generate import Asked, parse

    answer = post(client, "cas", "/predict", messages=MESSAGES)
    post(client, "cas", "/feedback", id=answer["id"], thumb="down", correction="mix flour and water")
    (row,) = exported(client, "prompt_completion")
    assert row["completion"] == [{"role": "assistant", "content": "mix flour and water"}]
    (verdict,) = exported(client, "unpaired_preference")
    assert (verdict["label"], verdict["version"]) == (False, answer["version"])
    assert "| unpaired_preference | 1 |" in get(client, "root", "/export/card").text
    for form in ("preference", "prompt_completion", "unpaired_preference"):
        file = tmp_path / f"{form}.jsonl"
        file.write_text(get(client, "root", f"/export/{form}").text)
        read = [parse(record) for record in read_records(file)]
        assert read
        assert all(isinstance(each, Asked) and each.turns == MESSAGES for each in read), read


def test_influence_names_who_repeats(client):
    for text in ("the same", "the same", "another"):
        answer = post(client, "ben", "/predict", messages=MESSAGES)["id"]
        post(client, "ben", "/feedback", id=answer, comment=text)
    told = {user["user"]: user for user in get(client, "root", "/influence").json()["users"]}
    assert told["ben"]["duplicates"] == 1
    assert sum(user["share"] for user in told.values()) == pytest.approx(1)


@pytest.mark.parametrize("page", ["chat", "compare", "label", "feedback"])
def test_a_page_needs_a_key_and_loads_nothing_from_elsewhere(client, page):
    assert client.get(f"/pages/{page}").headers["location"] == "/login"
    cookie = {"Cookie": f"alignlab_key={client.keys['root']}"}
    response = client.get(f"/pages/{page}", headers=cookie)
    assert response.status_code == 200
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "//" not in response.text.replace("<!--", "")
    for part in ("page.css", "serving.css", f"{page}.js"):
        assert f"/static/{part}" in response.text
        assert client.get(f"/static/{part}").status_code == 200
    assert client.get("/static/../app.py").status_code == 404
