"""API keys of `task=serve`: what each role may do, when a server closes, and the limit of wrong ones."""

from served import MESSAGES, bearer, served

from alignlab.serving import keys
from alignlab.serving.store import records
from alignlab.serving.store.records import User


def test_with_keys_nothing_but_probes_answers_without_one(tmp_path):
    people = [("ann", "use"), ("ben", "use"), ("root", "administer")]
    with served(tmp_path, keys=people) as client:
        document = client.get("/openapi.json", headers=bearer(client, "ann")).json()
        for path, methods in document["paths"].items():
            for method in methods:
                status = client.request(method, path.replace("{", "").replace("}", "")).status_code
                assert status == (200 if path in {"/health", "/ready"} else 401), path
        assert client.get("/openapi.json").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer al-wrong"}).status_code == 401
        assert client.get("/metrics", headers=bearer(client, "ann")).status_code == 403
        answer = client.post("/predict", json={"messages": MESSAGES}, headers=bearer(client, "ann")).json()["id"]
        body = {"id": answer, "thumb": "up"}
        given = client.post("/feedback", json=body, headers=bearer(client, "ann")).json()
        assert client.post("/feedback", json=body, headers=bearer(client, "ben")).status_code == 404
        for method in ("GET", "DELETE"):
            other = client.request(method, f"/feedback/{given['id']}", headers=bearer(client, "ben"))
            assert other.status_code == 404
        assert client.get("/feedback", headers=bearer(client, "ben")).json() == {"feedback": [], "total": 0}
        assert client.get("/feedback", headers=bearer(client, "root")).json()["total"] == 1
        assert client.delete("/users/ann", headers=bearer(client, "ben")).status_code == 403
        deleted = client.delete("/users/ann", headers=bearer(client, "root")).json()["deleted"]
        assert (deleted["feedback"], deleted["answers"], deleted["keys"]) == (1, 1, 1)
        client.service.keyring.known.clear()
        assert client.get("/v1/models", headers=bearer(client, "ann")).status_code == 401


def test_the_first_key_closes_a_running_server(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "FRESH", 0.0)
    with served(tmp_path) as client:
        assert client.get("/v1/models").status_code == 200
        client.service.store.writer.submit(lambda c: keys.create_key(c, "ann", "use")).result()
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == 200
        client.service.store.writer.submit(lambda c: records.delete_user(c, "ann")).result()
        assert client.get("/v1/models").status_code == 401


def test_wrong_keys_are_limited_by_address_and_keys_that_were_used_go_on(tmp_path):
    with served(tmp_path, "task.wrong_keys_per_minute=30", keys=[("ann", "use"), ("ben", "use")]) as client:
        assert client.get("/v1/models", headers=bearer(client, "ann")).status_code == 200
        key = client.keys["ann"]
        wrong = [key[:-1], key + "x", key.swapcase(), f" {key}x", ""]  # a cookie's key is compared as a whole
        cookies = [client.get("/v1/models", headers={"Cookie": f"alignlab_key={each}"}) for each in wrong]
        assert [response.status_code for response in cookies] == [401] * 5
        assert client.post("/login", content=f"key={key}x").status_code == 401  # the fifth; without a key none counts
        for refused in (
            client.post("/login", content="key=al-1"),
            client.get("/v1/models", headers=bearer(client, "ben")),
        ):
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 2
        client.service.keyring.known[keys.hash_key(key)] = (0.0, User("ann", "use"))  # it was looked up long ago
        assert client.get("/v1/models", headers=bearer(client, "ann")).status_code == 200
        text = client.service.metrics.text().decode()
        assert 'alignlab_wrong_keys_total{outcome="unknown"} 5.0' in text
        assert 'alignlab_wrong_keys_total{outcome="unread"} 2.0' in text
