"""No password, key or token is written or printed, wherever it is put."""

import base64
import os
from functools import cache

import pytest
from command import alignlab, config

from alignlab.config import credentials
from alignlab.config.compose import bind_tree, check
from alignlab.errors import Mistake

COMMANDS = [
    ("method=ppo", "reward=url", "reward.url=http://127.0.0.1/", "sweep=dpo_beta"),
    ("task=preferences", "judge=openai", "judge.url=http://127.0.0.1/", "judge.model=m"),
    ("method=cai", "model=local", "model.path=/x", "dataset=hub", "dataset.path=a/b", "hardware=zero3_offload"),
    ("task=generate", "task.model=x", "task.prompts=y", "dataset=hh_rlhf"),
    ("method=sft", "dataset=file", "dataset.path=/x", "model/adapter=lora"),
]
PLANTED = "pl4nted"
ADDRESSES = [
    f"postgresql://me:{PLANTED}@db/x", f"postgresql://me:{PLANTED}/{PLANTED}@db/x", f"https://{PLANTED}@host/v1",
    f"http://host/v1?a=1&token={PLANTED}", f"http://host/?api-key={PLANTED}", f"http://host/#accessToken={PLANTED}",
    f"http://host/?X-Amz-Signature={PLANTED}", f"http://host/?tok%65n={PLANTED}", f"HTTP://me:{PLANTED}@host",
    f"s3://{PLANTED}:{PLANTED}@bucket", f"http://h/a;password={PLANTED}", f"see http://me:{PLANTED}@host for more",
    f"hf_{PLANTED}{PLANTED}{PLANTED}", f"sk-{PLANTED}{PLANTED}{PLANTED}",
]  # fmt: skip
HARMLESS = [
    "postgresql://me@db/x", "http://host:80/v1?page=2", "sqlite:////data/a.db", "me@host", "a/b@main", "why? yes; no=1",
    "Tell me the password: a=b", "https://huggingface.co/a/b@v1", "http://host/monkey?design=3",
]  # fmt: skip


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_with_secrets_are_seen_and_redacted(text):
    assert credentials.secret_in(text)
    assert PLANTED not in credentials.redacted(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert not credentials.secret_in(text)


def test_what_a_server_repeats_of_a_key_is_replaced(monkeypatch):
    monkeypatch.setenv("SCORE_KEY", f"{PLANTED} and more")
    login = base64.b64encode(f"me:{PLANTED}".encode()).decode()
    text = f"no {{'Authorization': 'Basic {login}'}}, bearer {PLANTED}+/=, {PLANTED} and more; http://me:{PLANTED}@h/x"
    expected = "no {'Authorization': 'Basic ***'}, bearer ***, ***; http://***@h/x"
    assert credentials.without_keys(text) == expected


@cache
def tree(command):
    return check(list(command), binds=False).trees[0]


def places(value, above=()):
    """Every place of a tree, and every element of a list, that could hold a text."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*above, name))
    elif isinstance(value, list):
        yield from ((*above, position) for position in range(len(value)))
    else:
        yield above


def planted(value, place, text):
    """A copy of a tree with a text in one place."""
    if not place:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = planted(value[place[0]], place[1:], text)
    return copy


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_secret_is_refused_in_every_setting(command):
    """The message names the setting and does not repeat the secret, whatever else is wrong with the value."""
    for place in places(tree(command)):
        for text in (ADDRESSES[0], ADDRESSES[3]):
            whole = planted(tree(command), place, text)
            faults = list(credentials.faults(whole))
            assert [fault.where for fault in faults] == [".".join(part for part in place if isinstance(part, str))]
            assert PLANTED not in str(faults)


def test_messages_about_other_faults_do_not_repeat_the_secret():
    with pytest.raises(Mistake) as error:
        check([f"hardware.device=http://me:{PLANTED}@x", f"method.batch_size=http://x?token={PLANTED}"], binds=True)
    assert PLANTED not in str(error.value)
    assert "hardware.device: holds a password" in str(error.value)


@pytest.mark.parametrize("setting", ["tracking.project", "dataset.path", "sweep.storage", "hydra.job.name", "seed"])
def test_a_variable_is_named_and_its_value_is_not_written(setting, monkeypatch):
    monkeypatch.setenv("MY_LOGIN", PLANTED)
    for value in ("${oc.env:MY_LOGIN}", "a-${oc.env:MY_LOGIN,x}-b", "${oc.env: MY_LOGIN }"):
        with pytest.raises(Mistake, match=f"{setting}: takes its value from the variable MY_LOGIN") as error:
            check([f"{setting}='{value}'", "dataset=file"], binds=True)
        assert PLANTED not in str(error.value)


def test_folders_may_come_from_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    bound = config("method=dpo", "model=scratch", "dataset=file", "dataset.path='${oc.env:MY_DATA}/rows.jsonl'")
    assert bound.dataset.path == (tmp_path / "rows.jsonl",)


def test_a_key_in_place_of_its_variables_name_is_not_printed():
    with pytest.raises(Mistake, match="key_env: is not the name of an environment variable") as error:
        bind_tree(planted(tree(COMMANDS[0]), ("reward", "key_env"), f"sk-{PLANTED}"))
    assert PLANTED not in str(error.value)


@pytest.mark.runs
def test_keys_of_the_environment_are_in_no_file_and_no_output(place, monkeypatch):
    """Every tracker is on, the server repeats the key in its answer, and home is empty."""
    from hostile_server import hostile_server
    from running import SFT, tiny

    names = ["WANDB_API_KEY", "HF_TOKEN", "SCORE_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"]
    for name in names:
        monkeypatch.setenv(name, f"{PLANTED}{name}".ljust(40, "x"))
    monkeypatch.setenv("HOME", str(place / "home"))
    (place / "home").mkdir()
    body = f'{{"error": "wrong key {os.environ["SCORE_KEY"]}"}}'.encode()
    answer = [b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
    every = ["tracking=wandb", "tracking.to=[wandb,tensorboard]"]
    done = alignlab(
        *[part for part in tiny(*SFT, "method.max_steps=2") if "tracking" not in part],
        *every,
        folder=place,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr
    with hostile_server(answer) as address:
        server = ["reward=url", f"reward.url={address}", "reward.key_env=SCORE_KEY", "method.total_episodes=8"]
        scored = alignlab(
            *tiny("method=ppo", "method.batch_size=8", "method.gates.before=off", *server), folder=place, timeout=560
        )
    assert "answers 403" in scored.stderr
    assert PLANTED not in done.stdout + done.stderr + scored.stdout + scored.stderr
    holding = [file for file in place.rglob("*") if file.is_file() and PLANTED.encode() in file.read_bytes()]
    assert holding == []
