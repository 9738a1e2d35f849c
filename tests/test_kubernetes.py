"""The manifests for Kubernetes, without a cluster: held against its schemas, each other and the service."""

import copy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from app import cli
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docker" / "kubernetes"
VERSION = kubernetes_validate.latest_version()
Resource = dict[str, Any]


def kustomization() -> Resource:
    made: Resource = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    return made


RESOURCES: list[Resource] = [
    resource for name in kustomization()["resources"] for resource in yaml.safe_load_all((FOLDER / name).read_text())
]
PODS = {r["metadata"]["name"]: r["spec"]["template"]["spec"] for r in RESOURCES if "template" in r.get("spec", {})}
OURS = ["warmstart", "warmstart-migrate"]


def resource(kind: str, name: str) -> Resource:
    (found,) = [r for r in RESOURCES if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    return found


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("number", range(len(RESOURCES)), ids=lambda n: RESOURCES[n]["kind"])
def test_each_is_what_kubernetes_has_a_schema_for(number: int) -> None:
    """And a field that it does not know is found."""
    kubernetes_validate.validate(RESOURCES[number], VERSION, strict=True)
    wrong = copy.deepcopy(RESOURCES[number])
    wrong["metadata"]["lables"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_file_is_listed() -> None:
    assert sorted(kustomization()["resources"]) == sorted({p.name for p in FOLDER.iterdir()} - {"kustomization.yaml"})


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_they_are_put_together() -> None:
    done = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True)
    made = [r for r in yaml.safe_load_all(done.stdout) if r["kind"] != "Namespace"]
    assert len(made) == len(RESOURCES) - 1
    assert {r["metadata"]["namespace"] for r in made} == {"warmstart"}


@pytest.mark.parametrize("name", PODS)
def test_containers_are_locked_down(name: str) -> None:
    """As the namespace's `restricted` demands, and read-only besides; with limits of memory."""
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert ":" in container["image"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_the_image_as_it_is_built(name: str) -> None:
    """Its user; the folders that it writes to; commands that there are."""
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    pod = PODS[name]
    assert f"USER {pod['securityContext']['runAsUser']}\n" in dockerfile
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in containers(pod):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) <= volumes
        assert mounts["tmp"] == "/tmp"
        if "checkpoints" in mounts:
            assert f" {mounts['checkpoints']}\n" in dockerfile
        command: Any = typer.main.get_command(cli.app)
        for word in container.get("args", ["serve"]):
            command = command.commands[word]


@pytest.mark.parametrize("name", OURS)
def test_settings_are_ours_and_not_those_of_kubernetes(name: str) -> None:
    """A service named `warmstart` would put its address into WARMSTART_PORT of every pod beside it."""
    assert PODS[name]["enableServiceLinks"] is False
    known = {f"WARMSTART_{field.upper()}" for field in Settings.model_fields}
    given = set(resource("ConfigMap", "warmstart-settings")["data"])
    for container in containers(PODS[name]):
        assert container["envFrom"] == [{"configMapRef": {"name": "warmstart-settings"}}]
        given |= {variable["name"] for variable in container["env"]}
    assert "WARMSTART_DATABASE_URL" in given <= known


def test_secrets_are_in_no_file_and_made_as_the_page_says() -> None:
    """The command of docs/operations.md makes all the keys that are read."""
    assert not [r for r in RESOURCES if r["kind"] == "Secret"]
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("kubectl create secret")]
    words = shlex.split(line)
    made = {word.partition("=")[2].partition("=")[0] for word in words if word.startswith("--from-")}
    pod = PODS["warmstart"]
    read = {v["valueFrom"]["secretKeyRef"]["key"] for container in containers(pod) for v in container["env"]}
    read |= {item["key"] for volume in pod["volumes"] if "secret" in volume for item in volume["secret"]["items"]}
    assert made == read
    assert {"generic", "warmstart"} <= set(words)
    mounted = resource("ConfigMap", "warmstart-settings")["data"]["WARMSTART_BOOTSTRAP_ADMIN_KEY_FILE"]
    assert mounted == "/run/secrets/warmstart/admin-key"


def test_probes_ask_for_what_the_service_answers_and_leave_time_to_leave() -> None:
    """Readiness is lost, and seen to be, before the listener closes; requests under way end before the kill."""
    pod = PODS["warmstart"]
    (container,) = pod["containers"]
    paths = create_app(Settings()).openapi()["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] in [port["name"] for port in container["ports"]]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    data = resource("ConfigMap", "warmstart-settings")["data"]
    drain = float(data["WARMSTART_DRAIN_SECONDS"])
    ready = container["readinessProbe"]
    assert ready["failureThreshold"] * ready["periodSeconds"] + ready["timeoutSeconds"] < drain
    assert drain + Settings().deadline_seconds < pod["terminationGracePeriodSeconds"]


def test_the_service_comes_after_the_migrations_and_stays_while_nodes_go() -> None:
    deployment = resource("Deployment", "warmstart")
    assert [c["args"] for c in deployment["spec"]["template"]["spec"]["initContainers"]] == [["db", "check"]]
    assert [c["args"] for c in PODS["warmstart-migrate"]["containers"]] == [["db", "upgrade"]]
    assert deployment["spec"]["replicas"] > resource("PodDisruptionBudget", "warmstart")["spec"]["minAvailable"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for other in (resource("Service", "warmstart"), resource("PodDisruptionBudget", "warmstart")):
        selector = other["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()
