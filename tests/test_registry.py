"""The registry of models in service: its entries, its pointer, two writers, and crashes; a server that follows it."""

import json
import threading
import time

import httpx
import pytest
from command import config
from served import MESSAGES, served
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Failure, Mistake
from alignlab.pipeline import registry as registry_module
from alignlab.pipeline.candidates import lineage
from alignlab.pipeline.registry import Registry


def model(folder, content="weights"):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "config.json").write_text("{}")
    return folder


def test_versions_count_up_refusals_change_nothing_and_rollback_goes_to_the_version_before(tmp_path):
    registry = Registry(tmp_path / "registry")
    assert registry.current() is None
    registry.promote(model(tmp_path / "a", "a"), {"stages": ["data-1"]}, None)
    registry.refuse({"decision": "no"})
    registry.promote(model(tmp_path / "b", "b"), {}, 1)
    registry.promote(model(tmp_path / "c", "c"), {}, 2)
    assert registry.rollback(None)["version"] == 2
    assert registry.rollback(None)["version"] == 1  # not 3: the version that 2 has replaced
    assert registry.rollback(3)["version"] == 3
    assert registry.current()["version"] == 3
    assert (registry.model_folder(registry.current()) / "model.safetensors").read_text() == "c"
    assert [(entry["action"], entry["previous"], entry["version"]) for entry in registry.entries()] == [
        ("promoted", None, 1),
        ("refused", 1, 1),
        ("promoted", 1, 2),
        ("promoted", 2, 3),
        ("rolled back", 3, 2),
        ("rolled back", 2, 1),
        ("rolled back", 1, 3),
    ]
    assert registry.entries()[0]["facts"] == {"stages": ["data-1"]}
    with pytest.raises(Mistake, match=r"task\.version: there is no version 7; there are 1, 2, 3"):
        registry.rollback(7)


def test_the_lineage_of_a_model_passes_through_the_registry(tmp_path):
    """KTO starts from the version in service, whose stages are in its entry; settings are those of each stage."""

    def stage(name, policy, fed_by, method, stages):
        folder = model(tmp_path / name / "model").parent
        facts = {"stage": name, "fingerprint": f"{name}-1", "data": f"data of {name}", "seed": 0, "alignlab": "1"}
        settings = {"method": {"name": method, "beta": 0.2}, "stages": stages}
        inputs = {"policy": {"path": str(policy), "fingerprint": "p"}}
        more = {"git": None, "inputs": inputs, "config": settings, "feedback_from": fed_by}
        (folder / "provenance.json").write_text(json.dumps({**facts, **more}))
        return folder / "model"

    first = stage("sft", "owner/name", "", "dpo", {"sft": {"name": "sft", "batch_size": 8}})
    registry = Registry(tmp_path / "registry")
    registry.promote(first, {"stages": lineage(first)}, None)
    second = stage("kto", registry.folder / "models" / "1", "users", "kto", {})
    assert [(row["stage"], row["data"], row["feedback_from"], row["settings"]) for row in lineage(second)] == [
        ("sft", "data of sft", "", {"name": "sft", "batch_size": 8}),
        ("kto", "data of kto", "users", {"name": "kto", "beta": 0.2}),
    ]
    assert lineage(tmp_path / "elsewhere") == []


def test_a_first_version_has_none_to_go_back_to(tmp_path):
    registry = Registry(tmp_path / "registry")
    with pytest.raises(Mistake, match="no earlier version was in service; promote a model first"):
        registry.rollback(None)
    assert not registry.folder.exists()  # no lock either
    registry.promote(model(tmp_path / "a"), {}, None)
    with pytest.raises(Mistake, match="no earlier version was in service; there are 1"):
        registry.rollback(None)


def test_of_two_promoters_that_compared_with_the_same_version_one_is_told_to_compare_again(tmp_path):
    registry = Registry(tmp_path / "registry")
    registry.promote(model(tmp_path / "a"), {}, None)
    candidates = [model(tmp_path / f"candidate-{n}") for n in range(4)]
    outcomes = []

    def promote(candidate):
        try:
            outcomes.append(Registry(registry.folder).promote(candidate, {}, 1)["version"])
        except Failure as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=promote, args=(each,)) for each in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(2) == 1
    assert sum("compared with version 1; give the same command again" in str(one) for one in outcomes) == 3
    assert [entry["number"] for entry in registry.entries()] == [1, 2]


def test_a_crash_between_entry_and_pointer_is_completed_and_a_torn_line_is_cut(tmp_path, monkeypatch):
    registry = Registry(tmp_path / "registry")
    registry.promote(model(tmp_path / "a"), {}, None)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(registry_module, "write_json", crash)
        registry.promote(model(tmp_path / "b"), {}, 1)
    assert registry.current()["version"] == 1
    with (registry.folder / "registry.jsonl").open("a") as log:
        log.write('{"number": 3, "act')
    registry.refuse({})  # the next writer
    assert registry.current()["version"] == 2
    assert [entry["action"] for entry in registry.entries()] == ["promoted", "promoted", "refused"]
    log = registry.folder / "registry.jsonl"
    log.write_text(log.read_text().replace('"version": 2', '"version": 1', 1))
    with pytest.raises(Failure, match=r"registry\.jsonl:2: is damaged; restore the file from a backup"):
        registry.rollback(None)


@pytest.mark.parametrize("damaged", ["[]", '{"version": 1}', "{"])
def test_a_damaged_pointer_is_one_sentence_and_the_next_writer_mends_it(tmp_path, damaged):
    registry = Registry(tmp_path / "registry")
    pointer = registry.promote(model(tmp_path / "a"), {}, None)
    (registry.folder / "current.json").write_text(damaged)
    with pytest.raises(Failure, match=r"current\.json"):
        registry.current()
    assert registry.rollback(1) == registry.current() == pointer


@pytest.fixture
def followed(tmp_path):
    """A registry with one real model in service, and how the server follows it."""
    from alignlab.tasks.serve import followed_registry

    for seed in (0, 1):
        folder = tmp_path / f"model-{seed}"
        tiny_model(seed, context=256).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    registry = Registry(tmp_path / "helper")
    registry.promote(tmp_path / "model-0", {}, None)
    chosen = config("task=serve", f"task.registry={registry.folder}", "task.registry_poll=0.05", "hardware.device=cpu")
    return followed_registry(chosen, chosen.task)


def ask(client, seed, stream):
    """Return the version and the text of an answer; raises where any is dropped."""
    if not stream:
        done = client.post("/predict", json={"messages": MESSAGES, "seed": seed, "max_tokens": 24}).raise_for_status()
        return done.json()["version"], done.json()["completion"]
    body = {"model": "helper", "messages": MESSAGES, "seed": seed, "max_tokens": 24, "stream": True}
    done = client.post("/v1/chat/completions", json=body).raise_for_status()
    events = [line.removeprefix("data: ") for line in done.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    parts = [json.loads(event) for event in events]
    (version,) = {part["system_fingerprint"] for part in parts}
    return version, "".join(part["choices"][0]["delta"].get("content", "") for part in parts)


def test_a_switch_and_a_rollback_drop_no_request_and_each_answer_is_that_of_its_version(followed, tmp_path):
    registry, stop, answers, errors = followed.registry, threading.Event(), [], []

    def chat(url, number):
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                own = []
                while not stop.is_set():
                    seed = len(own) % 4
                    own.append((seed, *ask(client, seed, stream=number % 2)))
                answers.append(own)
        except Exception as error:
            errors.append(error)

    with served(tmp_path, "task.requests_per_minute=1000000", followed=followed) as client:
        clients = [threading.Thread(target=chat, args=(client.url, number)) for number in range(6)]
        for thread in clients:
            thread.start()
        expected = {version: {seed: ask(client, seed, False)[1] for seed in range(4)} for version in [wait(client, 1)]}
        registry.promote(tmp_path / "model-1", {}, 1)
        second = wait(client, 2)
        expected[second] = {seed: ask(client, seed, False)[1] for seed in range(4)}
        registry.rollback(None)
        wait(client, 1)
        (registry.folder / "current.json").write_text('{"version": 9, "model": "models/9", "fingerprint": "x"}')
        wait_for(lambda: 'alignlab_model_switches_total{outcome="failed"} 1.0' in client.get("/metrics").text)
        assert wait(client, 1)  # a model that cannot be loaded replaces none
        stop.set()
        for thread in clients:
            thread.join()
        wait_for(lambda: not client.service.engines.retiring)
        assert [thread.name for thread in threading.enumerate()].count("decode") == 1
    assert errors == []
    assert len(answers) == 6
    assert all(expected[version][seed] == text for own in answers for seed, version, text in own)
    versions = [[version for _, version, _ in own] for own in answers]
    changes = [[a for a, b in zip(own, [*own[1:], ""], strict=True) if a != b] for own in versions]
    first = next(version for version in expected if version != second)
    order = [first, second, first]
    allowed = [order[start:end] for start in range(3) for end in range(start + 1, 4)]
    assert [own for own in changes if own not in allowed] == []  # no answer of a version after its end
    assert sum(map(len, answers)) > 30


def wait(client, version):
    """Wait until a version of the registry answers; return its name."""
    wait_for(lambda: ask(client, 0, False)[0].startswith(f"v{version}-"))
    return ask(client, 0, False)[0]


def wait_for(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_model_that_differs_from_its_hash_is_not_loaded(followed):
    weights = followed.registry.model_folder(followed.loaded) / "generation_config.json"
    weights.write_text(weights.read_text() + " ")
    with pytest.raises(Failure, match="differs from its hash in the registry"):
        followed.load(followed.loaded)
