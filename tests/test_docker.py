"""The container files, without a container engine: linted, parsed, their start command run outside of a container."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from app.settings import Settings
from tests.e2e.service import serving

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
BIN = Path(sys.executable).parent

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[list[Instruction]]:
    """(instruction, value) of each stage, the last one being what runs."""
    copy = tmp_path_factory.mktemp("docker") / "Dockerfile"
    shutil.copy(DOCKERFILE, copy)  # the parser opens its file for writing
    parsed = DockerfileParser(path=str(copy)).structure
    found: list[list[Instruction]] = [[]]
    for entry in parsed:
        if entry["instruction"] == "FROM":
            found.append([])
        if entry["instruction"] != "COMMENT":
            found[-1].append((entry["instruction"], entry["value"]))
    return found[1:]


def value(stage: list[Instruction], instruction: str) -> str:
    """The value of an instruction that a stage has once."""
    (only,) = [content for name, content in stage if name == instruction]
    return only


def environment(stage: list[Instruction]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in value(stage, "ENV").split())


def healthcheck(stage: list[Instruction]) -> list[str]:
    """The command that asks whether the container is well."""
    command: list[str] = json.loads(value(stage, "HEALTHCHECK").partition(" CMD ")[2])
    return command


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors merged."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.skipif(not (BIN / "hadolint").exists(), reason="hadolint comes for Linux on x86-64 only")
def test_the_dockerfile_passes_the_linter() -> None:
    done = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_runs_is_small_and_has_no_rights(stages: list[list[Instruction]]) -> None:
    """Built in a stage of its own, from which only the environment is taken; a user by number, not root."""
    build, final = stages
    assert value(build, "FROM").endswith("AS build")
    for stage in stages:
        assert "slim" in value(stage, "FROM")
        assert not any(name == "ADD" for name, _ in stage)
    assert [content for name, content in final if name == "COPY"] == ["--from=build /opt/warmstart /opt/warmstart"]
    assert int(value(final, "USER")) > 0
    assert value(final, "STOPSIGNAL") == "SIGTERM"
    order = [name for name, _ in final]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_both_variants_are_built_from_one_file(stages: list[list[Instruction]], compose: dict[str, Any]) -> None:
    arguments = {content.partition("=")[0]: content.partition("=")[2] for name, content in stages[0] if name == "ARG"}
    assert arguments["VARIANT"] == "cpu"
    variants = {compose["services"][name]["build"]["args"]["VARIANT"] for name in ("service", "service-gpu")}
    assert variants == {"cpu", "cuda"}
    for name in variants:
        assert name in " ".join(content for instruction, content in stages[0] if instruction == "RUN")


def test_only_settings_that_there_are_are_set(stages: list[list[Instruction]], compose: dict[str, Any]) -> None:
    known = {f"WARMSTART_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in environment(stages[-1]) if name.startswith("WARMSTART_")}
    for service in compose["services"].values():
        given |= {name for name in service.get("environment", {}) if name.startswith("WARMSTART_")}
    assert given <= known


def test_everything_copied_into_the_image_is_let_through_by_dockerignore(stages: list[list[Instruction]]) -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    for name, content in stages[0]:
        if name == "COPY":
            for source in content.split()[:-1]:
                assert f"!{source}" in ignore
                assert (ROOT / source).exists()


def test_everything_but_torch_is_installed_by_digest(stages: list[list[Instruction]]) -> None:
    """From the lock, and nothing beside it: what our own package asks for must be there already."""
    installs = [
        part for name, content in stages[0] if name == "RUN" for part in content.split("&&") if "pip install" in part
    ]
    torch, locked, own = (" ".join(part.split()) for part in installs)
    assert '"torch>=' in torch
    assert locked == "pip install --require-hashes --no-deps --requirement requirements.lock"
    assert own == "pip install --no-deps ."


@pytest.mark.parametrize("name", ["service", "service-gpu", "migrate"])
def test_our_containers_are_locked_down(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert "privileged" not in service
    for port in service.get("ports", []):
        assert port.startswith("${WARMSTART_PUBLISH:-127.0.0.1}:")


def test_migrations_come_between_the_database_and_the_service(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["migrate"]["command"] == ["db", "upgrade"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("service", "service-gpu"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert services[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
        assert (
            services[name]["environment"]["WARMSTART_DATABASE_URL"]
            == (services["migrate"]["environment"]["WARMSTART_DATABASE_URL"])
        )
    for name in ("postgres", "redis"):
        assert services[name]["healthcheck"]["test"]
        assert ":" in services[name]["image"]


def test_passwords_are_asked_for_and_not_in_the_file(compose: dict[str, Any]) -> None:
    assert compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert ":${POSTGRES_PASSWORD:?" in compose["services"]["service"]["environment"]["WARMSTART_DATABASE_URL"]


def test_the_service_gets_its_first_key_as_a_secret(compose: dict[str, Any]) -> None:
    """And is otherwise as it is anywhere: where it listens for others, it asks for keys."""
    for name in ("service", "service-gpu"):
        service = compose["services"][name]
        (secret,) = service["secrets"]
        assert service["environment"]["WARMSTART_BOOTSTRAP_ADMIN_KEY_FILE"] == f"/run/secrets/{secret}"
        assert "WARMSTART_ACCESS" not in service["environment"]
        assert "admin.key" in compose["secrets"][secret]["file"]


def test_the_gpu_variant_is_the_service_with_a_device(compose: dict[str, Any]) -> None:
    """Asked for by its profile or name only."""
    gpu = compose["services"]["service-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["environment"]["WARMSTART_DEVICE"] == "cuda"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    same = compose["services"]["service"].keys() - {"image", "build", "environment"}
    assert all(gpu[key] == compose["services"]["service"][key] for key in same)


def test_every_named_volume_is_declared_and_belongs_to_the_service(
    compose: dict[str, Any], stages: list[list[Instruction]]
) -> None:
    """A fresh volume has the owner that its mount point has in the image."""
    used = {
        volume.partition(":")[0]: volume.partition(":")[2]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert set(used) == set(compose["volumes"])
    assert used["checkpoints"] == f"{environment(stages[-1])['WARMSTART_DATA_DIR']}/checkpoints"
    (made,) = [content for name, content in stages[-1] if name == "RUN"]
    assert f"--owner=warmstart --group=warmstart {used['checkpoints']}" in made


@pytest.mark.e2e
def test_the_start_command_runs_outside_of_a_container(stages: list[list[Instruction]], tmp_path: Path) -> None:
    """ENTRYPOINT and CMD under the image's environment, but for the address, port and folder; the health check agrees,
    and SIGTERM ends it in good order."""
    final = stages[-1]
    command = json.loads(value(final, "ENTRYPOINT")) + json.loads(value(final, "CMD"))
    given = environment(final) | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "WARMSTART_HOST": "127.0.0.1",
        "WARMSTART_DATA_DIR": str(tmp_path),
        "WARMSTART_DEVICE": "cpu",
    }
    run = ["env", "WARMSTART_PORT={port}", *command]
    with serving(run, tmp_path / "log", environment=given) as server:
        check = {**os.environ, **given, "WARMSTART_PORT": str(server.port)}
        assert subprocess.run(healthcheck(final), env=check, check=False).returncode == 0
        nobody = subprocess.run(
            healthcheck(final), env=check | {"WARMSTART_PORT": "1"}, stderr=subprocess.DEVNULL, check=False
        )
        assert nobody.returncode != 0
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert '"event": "stopped"' in server.log.read_text(encoding="utf-8").splitlines()[-1]
