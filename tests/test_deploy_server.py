"""The server in containers: manifests that validate, whose commands compose, and which agree with the code."""

import json
import re
import shutil
import subprocess
from functools import cache

import kubernetes_validate
import pytest
import yaml
from command import ROOT, config

from alignlab.config.compose import bind_tree, check
from alignlab.errors import Mistake
from alignlab.runtime.signals import EX_TEMPFAIL
from alignlab.serving.keys import create_key, find, hash_key, revoke_keys
from alignlab.serving.metrics import Metrics
from alignlab.serving.store.database import connect

DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
OVERLAYS = sorted(folder.name for folder in (DEPLOY / "kubernetes" / "overlays").iterdir())
SCHEMAS_OF_OTHERS = {"Kustomization", "ScaledObject", "InferenceService", "JobSet"}  # which Kubernetes does not have
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    monkeypatch.setenv("ALIGNLAB_STORE", "postgresql://alignlab@database/alignlab")
    monkeypatch.setenv("ALIGNLAB_KEY", "k" * 32)


def objects(text: str) -> dict[str, dict]:
    """Return the objects of a manifest by their kinds."""
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@cache
def base() -> dict[str, dict]:
    """Return the objects of the base by their kinds."""
    files = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    every = [each for file in files for each in yaml.safe_load_all((BASE / file).read_text())]
    return {each["kind"]: each for each in reversed(every)}  # the first of each kind


def pod(manifest: dict) -> dict:
    """Return the pod of a Deployment, a CronJob or an InferenceService."""
    spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
    return spec["predictor"] if "predictor" in spec else spec["template"]["spec"]


@cache
def metrics() -> set[str]:
    """Return the names of the samples that a server reports."""
    reported = Metrics()
    reported.watch({})
    return {name for names in reported.registry._collector_to_names.values() for name in names}


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(DEPLOY) for path in DEPLOY.rglob("kubernetes/**/*.yaml")), ids=str
)
def test_a_manifest_is_valid(file):
    for manifest in yaml.safe_load_all((DEPLOY / file).read_text()):
        if manifest["kind"] not in SCHEMAS_OF_OTHERS:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize(
    "overlay", [OVERLAYS[0], *(pytest.param(name, marks=pytest.mark.runs) for name in OVERLAYS[1:])]
)
def test_an_overlay_builds_and_its_command_composes(overlay):
    command = ["kubectl", "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay]
    built = objects(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for kind, manifest in built.items():
        if kind not in SCHEMAS_OF_OTHERS:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        assert manifest["metadata"].get("namespace", "alignlab") == "alignlab"
    assert ("InferenceService" in built) == (overlay == "kserve") != ("Deployment" in built)
    server = pod(built.get("Deployment") or built["InferenceService"])
    for container in (*server["initContainers"], *server["containers"]):
        bound = bind_tree(check(container["args"], binds=True).trees[0])
        wants_gpu = "nvidia.com/gpu" in container.get("resources", {}).get("limits", {})
        assert (bound.hardware.device == "cuda") == wants_gpu == (overlay == "gpu" and "resources" in container)
        tag = container["image"].removeprefix("alignlab:")
        assert tag == ("gpu" if overlay == "gpu" else "cpu")
    retrain = pod(built["CronJob"])
    for container in (*retrain["initContainers"], *retrain["containers"]):
        check(container["args"], binds=False)  # its folders are on the cluster
    assert ("task.engine=url" in server["containers"][0]["args"]) == (overlay == "vllm-by-url")


def test_no_pod_runs_as_root_or_writes_outside_its_volumes():
    service = yaml.safe_load((BASE.parent / "overlays" / "kserve" / "inference-service.yaml").read_text())
    for each in (pod(base()["Deployment"]), pod(base()["CronJob"]), pod(service)):
        assert each["securityContext"]["runAsNonRoot"]
        assert not each["automountServiceAccountToken"]
        for container in (*each.get("initContainers", ()), *each["containers"]):
            confined = container["securityContext"]
            assert (confined["readOnlyRootFilesystem"], confined["allowPrivilegeEscalation"]) == (True, False)
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
        user = each["securityContext"]["runAsUser"]
    stages = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)[-2:]
    assert [(stage.split()[0], stage.rstrip().split("\n")[-1]) for stage in stages] == [
        ("cpu", f"USER {user}"),
        ("gpu", f"USER {user}"),
    ]


def test_probes_ask_what_the_server_answers_without_a_key():
    (server,) = pod(base()["Deployment"])["containers"]
    probes = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health",
        "readiness": "/ready",
        "liveness": "/health",
    }
    assert {probe["port"] for probe in probes.values()} == {server["ports"][0]["name"]}
    assert f"task.port={server['ports'][0]['containerPort']}" in server["args"]


def test_more_servers_by_the_queue_and_no_more_than_the_database_was_asked_for():
    scaled = base()["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == base()["Deployment"]["metadata"]["name"]
    assert "replicas" not in base()["Deployment"]["spec"]  # or each apply would undo what KEDA did
    (server,) = pod(base()["Deployment"])["containers"]
    assert f"task.replicas={scaled['maxReplicaCount']}" in server["args"]
    (trigger,) = scaled["triggers"]
    assert names_in(trigger["metadata"]["query"]) == {"alignlab_queue_waiting"} <= metrics()
    service = yaml.safe_load((BASE.parent / "overlays" / "kserve" / "inference-service.yaml").read_text())
    (metric,) = service["spec"]["predictor"]["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == trigger["metadata"]["query"]
    assert service["spec"]["predictor"]["maxReplicas"] == scaled["maxReplicaCount"]
    assert pod(service)["containers"][0]["args"] == server["args"]


def test_the_network_lets_nobody_in_but_clients_and_prometheus():
    policy = base()["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == base()["Deployment"]["spec"]["selector"]
    (rule,) = policy["ingress"]
    assert all(source for source in rule["from"])  # an empty one would be everybody
    assert [port["port"] for port in rule["ports"]] == [8000]
    retrain = list(yaml.safe_load_all((BASE / "network.yaml").read_text()))[1]["spec"]
    labels = base()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert (retrain["podSelector"]["matchLabels"], retrain.get("ingress")) == (labels, None)
    assert retrain["egress"] == policy["egress"]


def test_retraining_waits_for_somebody_to_start_it_and_never_runs_twice():
    spec = base()["CronJob"]["spec"]
    assert (spec["suspend"], spec["concurrencyPolicy"]) == (True, "Forbid")
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule["onExitCodes"]["values"]) for rule in rules] == [
        ("Ignore", [EX_TEMPFAIL]),
        ("FailJob", [3]),
    ]
    steps = [*pod(base()["CronJob"])["initContainers"], *pod(base()["CronJob"])["containers"]]
    assert [rule["onExitCodes"]["containerName"] for rule in rules] == [step["name"] for step in steps]
    (server,) = pod(base()["Deployment"])["containers"]
    assert set(steps[1]["args"]) & set(server["args"]) == {"task.registry=/data/registry"}
    assert steps[0]["args"][-2:] == ["dataset=feedback", "dataset.store_env=ALIGNLAB_STORE"]


def test_retraining_measures_what_a_promotion_asks_for():
    """On feedback there is no gold; what is not measured is never promoted."""
    (promote,) = pod(base()["CronJob"])["containers"]
    given = [each for each in promote["args"] if "/data" not in each or each.startswith("task.")]
    bound = config(*given, "model.path=any", "evaluation.reward_model=any", f"evaluation.data={ROOT}")
    measured = {"perplexity": "eval"} | {name: name for name in ("reward", "refusal")}
    places = {measured[name] for name in bound.measure}
    parts = [bound.task.objective, *(bound.measures for bound in bound.task.bounds.values())]
    assert all(places & {name.partition("/")[0] for name in names} for names in parts)


def test_compose_starts_the_same_server_on_this_machine_alone():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"server", "keys", "database", "prometheus", "grafana"}
    for name in ("server", "keys"):
        command = [
            word.replace("${ALIGNLAB_MODEL:-/data/outputs/latest}", "/data") for word in services[name]["command"]
        ]
        bind_tree(check(command, binds=True).trees[0])
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    mounted = [volume.split(":")[0] for name in ("prometheus", "grafana") for volume in services[name]["volumes"]]
    assert all((DEPLOY / path).is_file() for path in mounted if path.startswith("."))


def test_the_dashboard_asks_for_what_the_server_reports():
    panels = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in names_in(target["expr"])}
    assert asked <= metrics()
    assert len({panel["id"] for panel in panels}) == len(panels) == 9


def names_in(query: str) -> set[str]:
    """Return the metrics that a query of Prometheus names."""
    return set(re.findall(r"alignlab_\w+", query))


def test_the_image_has_the_versions_that_are_tested():
    """Every file comes with its hash, but torch for the CPU, which has an index of its own."""
    installs = re.findall(r"pip install (?:.*\\\n)*.*", DOCKERFILE)
    assert sum("--require-hashes" in line for line in installs) == 2
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    (pattern,) = re.findall(r"sed -E '/(.+)/,/(.+)/d'", DOCKERFILE)
    left, removed, skip = [], [], False
    for line in (DEPLOY / "requirements.txt").read_text().splitlines():
        skip = skip or bool(re.search(pattern[0], line))
        (removed if skip else left).append(line)
        skip = skip and not re.search(pattern[1], line)
    names = {line.split("==")[0] for line in removed if "==" in line}
    assert {"torch", "triton", "deepspeed", "nvidia-cublas"} <= names
    assert all(re.match("torch$|triton$|deepspeed$|nvidia-|cuda-", name) for name in names)
    kept = {line.split("==")[0] for line in left if re.match(r"[\w.-]+==", line)}
    assert {"transformers", "trl", "hydra-core"} <= kept
    assert not any(name.startswith(("nvidia", "cuda")) for name in kept)


def test_several_servers_are_refused_without_postgresql(monkeypatch, tmp_path):
    with pytest.raises(Mistake, match="2 servers cannot share an SQLite file; name a PostgreSQL database"):
        config("task=serve", "task.replicas=2")
    assert config("task=serve", "task.replicas=2", "task.store_env=ALIGNLAB_STORE").task.replicas == 2
    monkeypatch.setenv("ALIGNLAB_STORE", str(tmp_path / "feedback.db"))
    with pytest.raises(Mistake, match="2 servers cannot share"):
        config("task=serve", "task.replicas=2", "task.store_env=ALIGNLAB_STORE")


def test_a_key_of_ones_own_is_created_once(tmp_path, monkeypatch):
    engine = connect(str(tmp_path / "feedback.db"))
    with engine.begin() as connection:
        assert create_key(connection, "ann", "administer", "k" * 32) == "k" * 32
        create_key(connection, "ann", "administer", "k" * 32)
        assert find(connection, hash_key("k" * 32)) == ("ann", "administer")
        assert revoke_keys(connection, "ann") == 1  # and there is no other
        create_key(connection, "ann", "administer", "k" * 32)
        assert find(connection, hash_key("k" * 32)) is None  # what is revoked stays revoked
    engine.dispose()
    monkeypatch.setenv("ALIGNLAB_KEY", "short")
    with pytest.raises(Mistake, match="ALIGNLAB_KEY holds no key of 32 characters"):
        config("task=key", "task.user=ann", "task.key_env=ALIGNLAB_KEY")
