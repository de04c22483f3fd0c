"""`task=dashboard` over HTTP: all runs, live, read only, and no path beyond them."""

import json
import os
import re
import shutil
import time

import pytest
from dashboards import dashboard, sample, write_run

from alignlab.dashboard import compare, follow, runs
from alignlab.dashboard.runs import Index

DAY = "outputs/2026-01-02"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / DAY / "10-00-00-ppo", helpful=0.8, harmful=0.1)
    write_run(folder / DAY / "11-00-00-dpo", "dpo", helpful=0.7, harmful=0.2, text="no")
    write_run(folder / DAY / "12-00-00-sft", "sft", helpful=0.9, harmful=0.3, model="smollm2")
    for number in range(3):
        write_run(folder / "multirun" / "seeds" / str(number), helpful=0.6, harmful=0.4)
    (folder / "multirun" / "seeds" / "sweep.yaml").write_text(
        "command: x\nsweep: {objective: null, direction: maximize}\n"
    )
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with dashboard(folder) as client:
        yield client


def names(page):
    """The runs that a table shows."""
    return re.findall(r'name="run" value="([^"]+)"', page.text)


def test_the_table_lists_and_filters_all_runs(client):
    every = client.get("/")
    assert len(names(every)) == 6
    assert "<b>10.0%</b>" in every.text  # a share as the report shows it
    assert "0.1 harm" not in every.text
    assert ": 10.0% harm, 80.0% help" in every.text
    assert names(client.get("/?method=dpo")) == [f"{DAY}/11-00-00-dpo"]
    assert names(client.get("/?q=smollm2+sft")) == [f"{DAY}/12-00-00-sft"]
    assert names(client.get("/?sweep=multirun/seeds&state=finished")) == [f"multirun/seeds/{n}" for n in (2, 1, 0)]
    assert names(client.get("/?q=nothing")) == []


def test_the_pages_of_a_run_a_sweep_and_a_comparison(client):
    first, second = f"{DAY}/10-00-00-ppo", f"{DAY}/11-00-00-dpo"
    page = client.get(f"/run/{first}").text
    assert "helpful completions" in page
    assert "80.0%" in page
    assert "<svg" in page
    shown = client.get(f"/completions/{first}?measure=gold/score&kind=how_to").text
    assert shown.count("<article>") == 2
    assert client.get(f"/completions/{first}?q=question+3").text.count("<article>") == 1
    both = client.get("/compare", params={"run": [first, second]}).text
    assert "80.0%" in both
    assert "70.0%" in both
    assert client.get("/sweep/multirun/seeds").text.count('name="run"') == 3
    assert re.findall(r'text-anchor="middle" x="[^"]+" y="[^"]+">(\d+)</text></svg>', both) == ["2"]  # the last dot
    assert client.get("/compare", params={"run": [first, second], "page": 9}).text.count("<article>") == both.count(
        "<article>"
    )
    assert client.get("/compare", params={"run": [first]}).status_code == 400


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "%2e%2e/%2e%2e/etc", "outputs/../secret", "/etc", "outputs", "outputs/2026-01-02"]
)
def test_a_request_reaches_runs_alone(client, name):
    for page in ("run", "curves", "completions", "events", "sweep", "explain"):
        assert client.get(f"/{page}/{name}").status_code in (404, 405)
    assert client.get(f"/static/{name}").status_code == 404


def test_stages_named_by_a_plan_and_links_lead_nowhere_else(tmp_path):
    run = write_run(tmp_path / DAY / "1-ppo")
    secret = write_run(tmp_path / "secret", text="hidden")
    (run / "plan.json").write_text(json.dumps([{"stage": "../../../secret/ppo", "action": "ran"}]))
    (run / "linked").symlink_to(secret / "ppo")
    (run / "ppo" / "samples.jsonl").unlink()
    (run / "ppo" / "samples.jsonl").symlink_to(secret / "ppo" / "samples.jsonl")
    for name, row in (("metrics", {"step": 1, "hidden/metric": 0.5}), ("gates", {"gate": "hidden"})):
        (secret / f"{name}.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"step": 2}) + "\n")
        (run / "ppo" / f"{name}.jsonl").unlink(missing_ok=True)
        (run / "ppo" / f"{name}.jsonl").symlink_to(secret / f"{name}.jsonl")
    (tmp_path / "outputs" / "elsewhere").symlink_to(secret)
    index = Index({"outputs": tmp_path / "outputs"})
    assert [each.stages for each in index.runs().values()] == [("ppo",)]
    with dashboard(tmp_path) as client:
        for page in ("run", "curves", "completions"):
            answer = client.get(f"/{page}/{DAY}/1-ppo")
            assert (answer.status_code, "hidden" in answer.text) == (200, False)


def test_a_run_that_has_just_begun_is_found(tmp_path):
    write_run(tmp_path / "outputs" / "1-ppo")
    index = Index({"outputs": tmp_path / "outputs"})
    assert list(index.runs()) == ["outputs/1-ppo"]
    write_run(tmp_path / "outputs" / "2-ppo", finished=False)
    assert index.get("outputs/2-ppo").state == "running"
    assert index.get("outputs/3-ppo") is None


@pytest.mark.parametrize(
    "name", ["result.json", "plan.json", "config.yaml", "ppo/metrics.jsonl", "ppo/samples.jsonl", "ppo/result.json"]
)
@pytest.mark.parametrize("content", [b'{"half": ', b'{"measurements": [{"name": 1}]}\n'])
def test_half_written_files_and_those_of_other_versions_are_survived(damaged, name, content):
    client, run = damaged
    before = (run / name).read_bytes()
    (run / name).write_bytes(content)
    time.sleep(runs.FRESH / 10)
    try:
        for page in (
            "/",
            f"/run/{DAY}/1-ppo",
            f"/completions/{DAY}/1-ppo",
            f"/compare?run={DAY}/1-ppo&run={DAY}/2-ppo",
        ):
            assert client.get(page).status_code == 200, page
    finally:
        (run / name).write_bytes(before)


@pytest.mark.parametrize("name", ["result.json", "ppo/metrics.jsonl", "ppo/samples.jsonl"])
def test_a_file_beyond_all_bounds_is_named_and_not_read(damaged, name):
    client, run = damaged
    before = (run / name).read_bytes()
    os.truncate(run / name, runs.MOST + 1)
    try:
        assert f"{name} is larger than 64 MB and is not shown" in client.get(f"/run/{DAY}/1-ppo").text
        assert client.get(f"/completions/{DAY}/1-ppo").text.count("<article>") == (0 if "samples" in name else 4)
    finally:
        (run / name).write_bytes(before)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    run = write_run(folder / DAY / "1-ppo")
    write_run(folder / DAY / "2-ppo")
    runs_fresh, runs.FRESH = runs.FRESH, 0.0
    with dashboard(folder) as client:
        yield client, run
    runs.FRESH = runs_fresh


def test_a_deleted_run_is_gone_and_a_new_one_appears(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FRESH", 0.0)
    gone = write_run(tmp_path / DAY / "1-ppo")
    with dashboard(tmp_path) as client:
        assert client.get(f"/run/{DAY}/1-ppo").status_code == 200
        shutil.rmtree(gone)
        assert client.get(f"/run/{DAY}/1-ppo").status_code == 404
        write_run(tmp_path / DAY / "2-ppo", finished=False)
        assert "running" in client.get(f"/run/{DAY}/2-ppo").text
        old = time.time() - 2 * runs.SILENT
        for file in (tmp_path / DAY / "2-ppo").rglob("*"):
            os.utime(file, (old, old))
        assert "unfinished" in client.get(f"/run/{DAY}/2-ppo").text


def test_a_run_is_followed_while_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FRESH", 0.0)
    monkeypatch.setattr(follow, "INTERVAL", 0.02)
    run = write_run(tmp_path / DAY / "1-ppo", finished=False)
    with dashboard(tmp_path) as client, client.stream("GET", f"/events/{DAY}/1-ppo") as stream:
        lines = stream.iter_lines()
        assert next_event(lines) == ("state", "running")
        with (run / "ppo" / "metrics.jsonl").open("a") as metrics:
            metrics.write('{"step": 10, "train/loss": 0.5}\n{"step": 11, "train/l')
        assert next_event(lines) == ("steps", [{"step": 10, "train/loss": 0.5, "stage": "ppo"}])
        with (run / "ppo" / "metrics.jsonl").open("a") as metrics:
            metrics.write('oss": 0.4}\n')
        assert next_event(lines) == ("steps", [{"step": 11, "train/loss": 0.4, "stage": "ppo"}])
        (run / "result.json").write_text("{}")
        (run / "result.json").write_text('{"stage": "ppo", "measurements": []}')
        assert next_event(lines) == ("state", "finished")


def next_event(lines):
    """The kind and the data of the next event."""
    for line in lines:
        if line.startswith("event: "):
            return line[7:], json.loads(next(lines)[6:])
    raise AssertionError("the stream ended")


def test_beyond_the_loopback_a_token_is_needed(folder):
    with dashboard(folder, token="a" * 32) as client:
        assert client.get("/").status_code == 401
        page = client.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login")
        assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/", headers={"Authorization": f"Bearer {'a' * 32}"}).status_code == 200
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        assert client.post("/login", data={"token": "a" * 32}).status_code == 303
        assert client.get("/").status_code == 200  # by the cookie
    with dashboard(folder, hosts=("127.0.0.1",)) as client:
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_text_of_runs_stays_text_and_nothing_is_written(tmp_path):
    attack = "<script>alert(1)</script>"
    run = write_run(tmp_path / "outputs" / "2026-01-02" / "<img src=x onerror=alert(1)>", text=attack, model=attack)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    name = f"{DAY}/{run.name}"
    with dashboard(tmp_path) as client:
        for page in ("/", f"/run/{name}", f"/completions/{name}"):
            answer = client.get(page)
            assert answer.status_code == 200
            assert attack not in answer.text
            assert "<img" not in answer.text
            assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert client.post("/").status_code == 405
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_pareto_front_and_the_flips_by_hand(folder):
    every = Index({"outputs": folder / "outputs"}).runs()
    best = {
        point.run.folder.name: point.best
        for point in compare.points(list(every.values()), "gold/harmful_compliance", "gold/helpful")
    }
    assert best == {"10-00-00-ppo": True, "11-00-00-dpo": False, "12-00-00-sft": True}  # 0.1/0.8, 0.2/0.7, 0.3/0.9


def test_flips_are_found_by_prompt_and_worse_ones_come_first(tmp_path):
    first, second = write_run(tmp_path / DAY / "1-ppo"), write_run(tmp_path / DAY / "2-ppo")
    rows = [sample(number) for number in range(4)]
    for row, value in zip(rows, (1.0, 1.0, 0.0, 0.0), strict=True):  # before: 0, 1, 0, 1
        row["scores"]["gold/helpful"] = value
    (second / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    older = [sample(number) for number in range(4)]
    for row in older:
        row["scores"]["gold/helpful"] = row["scores"]["gold/score"]
    (first / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in older))
    one, two = Index({"outputs": tmp_path / "outputs"}).runs().values()
    one, two = sorted((one, two))
    assert compare.better_of([one, two], "gold/helpful") == "higher"
    flips = compare.flips(compare.last_samples(one), compare.last_samples(two), "gold/helpful", "higher")
    assert [(flip.prompt[0]["content"], flip.verdict) for flip in flips] == [
        ("yes question 3", "worse"),
        ("yes question 0", "better"),
    ]


def test_a_typed_prompt_is_explained_and_forms_of_other_sites_are_refused(folder):
    def explain(run, prompt, completion):
        tracks = [{"name": "attribution", "unit": "", "values": [0.5]}]
        about = {
            "method": run.method,
            "shows": "",
            "cannot_show": "",
            "figures": {},
            "tokens": [completion or "likeliest"],
        }
        return {"prompt": [{"content": prompt}], "completion": "", "explanations": [about | {"tracks": tracks}]}

    place = f"/explain/{DAY}/10-00-00-ppo"
    with dashboard(folder, explain=explain) as client:
        assert "<textarea" in client.get(place).text
        answer = client.post(place, json={"prompt": "<b>why</b>", "completion": ""})
        assert "&lt;b&gt;why&lt;/b&gt;" in answer.text
        assert 'class="p5" title="+0.500">likeliest' in answer.text
        assert client.post(place, data={"prompt": "why"}).status_code == 415
        assert client.post(place, json={"prompt": " "}).status_code == 400
        assert client.post(place, json=["why"]).status_code == 400
