"""The Kubernetes base and its variations render and validate strictly; the compose file is sound."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
SERVICES = {"ingest", "preprocess", "reconstruct", "scheduler", "web"}

pytestmark = pytest.mark.system


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """kubectl from PATH, else unpacked from Debian."""
    found = subprocess.run(["sh", "-c", "command -v kubectl"], capture_output=True, text=True, check=False).stdout.strip()
    if found:
        return found
    folder = tmp_path_factory.mktemp("kubectl")
    script = f". {REPOSITORY}/tests/system/infra/debian.sh; debian_unpack trixie {folder} kubectl"
    subprocess.run(["bash", "-euc", script], check=True)
    return str(folder / "usr/bin/kubectl")


def render(kubectl: str, folder: str) -> list[dict[str, Any]]:
    text = subprocess.run([kubectl, "kustomize", folder], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize(
    "folder", ["k8s/base", "k8s/components/gpu", "k8s/components/kubernetes-lane", "k8s/components/postgresql"]
)
def test_every_manifest_is_valid(kubectl: str, folder: str) -> None:
    documents = render(kubectl, folder)
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)
    workloads = {d["metadata"]["name"] for d in documents if d["kind"] in ("Deployment", "StatefulSet")}
    assert workloads == {f"frazil-{name}" for name in SERVICES}


def test_workloads_are_unprivileged_and_movies_are_read_only(kubectl: str) -> None:
    for document in render(kubectl, "k8s/base"):
        if document["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert all(m.get("readOnly") for m in container["volumeMounts"] if m["name"] == "movies")


def test_gpu_variation_asks_for_one_gpu_per_worker(kubectl: str) -> None:
    limits = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        for d in render(kubectl, "k8s/components/gpu")
        if d["kind"] == "Deployment"
    }
    assert {name for name, limit in limits.items() if limit.get("nvidia.com/gpu") == 1} == {
        "frazil-preprocess",
        "frazil-reconstruct",
    }


def test_with_postgresql_the_scheduler_has_no_ledger_of_its_own(kubectl: str) -> None:
    (scheduler,) = [d for d in render(kubectl, "k8s/components/postgresql") if d["kind"] == "StatefulSet"]
    assert "volumeClaimTemplates" not in scheduler["spec"]
    (container,) = scheduler["spec"]["template"]["spec"]["containers"]
    assert "ledger" not in str(container["args"])
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["FRAZIL_SCHEDULER_LEDGER"]["value"].startswith("postgresql://")
    assert "secretKeyRef" in environment["PGPASSWORD"]["valueFrom"]


def test_dockerfile_has_a_target_per_service_and_needs_no_frontend() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert "# syntax" not in text
    assert "<<" not in text
    assert {f"AS {name}\n" in text for name in SERVICES} == {True}


@pytest.mark.parametrize(
    ("profile", "workers"), [("cpu", {"preprocess", "reconstruct"}), ("gpu", {"preprocess-gpu", "reconstruct-gpu"})]
)
def test_compose_profiles(profile: str, workers: set[str], compose: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "FRAZIL_DATA": str(tmp_path), "FRAZIL_MOVIES": str(tmp_path)}
    command = [*compose, "--profile", profile, "config", "--format", "json"]
    text = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"scheduler", "ingest", "web"} | workers
    environment |= {"FRAZIL_LEDGER_PASSWORD": "secret"}
    files = ["-f", "compose.yaml", "-f", "examples/compose.postgresql.yaml"]
    command = [*compose, *files, "--profile", profile, "config", "--format", "json"]
    text = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    scheduler = yaml.safe_load(text)["services"]["scheduler"]
    assert scheduler["environment"]["FRAZIL_SCHEDULER_LEDGER"] == "postgresql://frazil@ledger/frazil"
    assert scheduler["environment"]["FRAZIL_SCHEDULER_ADDRESS"]  # the base's own is still there
    assert scheduler["depends_on"] == {"ledger": {"condition": "service_healthy", "required": True}}
    for service in services.values():
        assert service["read_only"] is True
        for volume in service.get("volumes", []):
            assert volume["target"] != "/movies" or volume["read_only"] is True
            assert "docker.sock" not in volume["source"]
