"""A real Kubernetes control plane, with a node of ours whose kubelet runs the pods' commands as processes here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

INFRA = Path(__file__).parents[1] / "system/infra/k8s"
GPU = "nvidia.com/gpu"
GPU_MEMORY_MIB = 81559
_TAINTS = [{"key": GPU, "effect": "NoSchedule"}]
_BEAT_SECONDS = 10.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def control_plane(programs: Path, folder: Path) -> Iterator[Path]:
    """Run etcd, API server, controllers and scheduler out of `programs`; yield the kubeconfig."""
    script = INFRA / "control-plane.sh"
    subprocess.run([script, "up", folder, programs], check=True, capture_output=True)
    try:
        yield folder / "kubeconfig"
    finally:
        subprocess.run([script, "down", folder], check=True, capture_output=True)


class Cluster:
    """Calls to the API server as its administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"]
        self._client = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {user['token']}"},
            verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
            timeout=30.0,
            trust_env=False,
        )

    def call(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> httpx.Response:
        """Make a call; a status that is an error and not in `accept` raises httpx.HTTPStatusError."""
        kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body)
        reply = self._client.request(method, path, content=content, headers={"Content-Type": kind})
        if reply.status_code not in accept:
            reply.raise_for_status()
        return reply

    def close(self) -> None:
        self._client.close()


class Namespace:
    """One test's namespace and node: `gpus` can be changed, jobs counted to none, and a creation's answer lost."""

    def __init__(self, kubeconfig: Path, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = f"frazil-{uuid.uuid4().hex[:8]}"
        self.node = f"node-{self.name}"
        self.folder = folder
        folder.mkdir(parents=True)
        self.cluster = Cluster(kubeconfig)
        self.cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.name}})
        _until(lambda: self.cluster.call("GET", f"{self._path}/serviceaccounts/default", accept=(404,)).is_success)
        self._add_node()
        self.gpus(4)
        self._kubelet = _Kubelet(Cluster(kubeconfig), self, environ)
        self.proxy = _Proxy(Cluster(kubeconfig))
        self.kubeconfig = folder / "kubeconfig"
        self.options = {  # of a lane
            "kubeconfig": str(self.kubeconfig),
            "image": "frazil/agent",
            "node_selector": {"test": self.name},
            "ram_gb": 1,
            "volumes": [],
            "volume_mounts": [],
        }
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "c", "cluster": {"server": self.proxy.address}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": self.name}}],
                    "current-context": "x",
                }
            )
        )

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    @property
    def pods(self) -> str:
        """The path of the pods."""
        return f"{self._path}/pods"

    def gpus(self, count: int) -> None:
        """Let the node have so many GPUs."""
        amounts = {"cpu": "32", "memory": "512Gi", "pods": "110", GPU: str(count)}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
        self.cluster.call("PATCH", f"/api/v1/nodes/{self.node}/status", {"status": status})

    def refuse(self) -> str:
        """Let no job be created; returns the words of the refusal."""
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        self.cluster.call("POST", f"{self._path}/resourcequotas", quota)
        _until(
            lambda: "hard" in self.cluster.call("GET", f"{self._path}/resourcequotas/none").json().get("status", {}),
        )
        return "exceeded quota: none"

    def running(self) -> set[str]:
        """Return the names of the jobs whose pods run."""
        pods = self.cluster.call("GET", self.pods).json()["items"]
        return {pod["metadata"]["labels"]["job-name"] for pod in pods if pod["status"].get("phase") == "Running"}

    @property
    def jobs(self) -> set[str]:
        """Return the names of the jobs."""
        return {
            job["metadata"]["name"]
            for job in self.cluster.call("GET", f"/apis/batch/v1/namespaces/{self.name}/jobs").json()["items"]
        }

    def close(self) -> None:
        self.proxy.close()
        self._kubelet.close()
        self.cluster.call("DELETE", f"/api/v1/namespaces/{self.name}")
        self.cluster.call("DELETE", f"/api/v1/nodes/{self.node}")
        self.cluster.close()

    def _add_node(self) -> None:
        labels = {"kubernetes.io/hostname": self.node, "nvidia.com/gpu.memory": str(GPU_MEMORY_MIB), "test": self.name}
        node = {"metadata": {"name": self.node, "labels": labels}, "spec": {"taints": _TAINTS}}
        self.cluster.call("POST", "/api/v1/nodes", node)


class _Kubelet:
    """Runs the pods that the scheduler has bound to the node, ends them when they are deleted, and reports."""

    def __init__(self, cluster: Cluster, namespace: Namespace, environ: Mapping[str, str]) -> None:
        self._cluster, self._namespace, self._environ = cluster, namespace, environ
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        for process in self._processes.values():
            _signal(process, signal.SIGKILL)
            process.wait()
        self._cluster.close()

    def _run(self) -> None:
        beaten = 0.0
        while not self._ending.wait(_POLL_SECONDS):
            if time.monotonic() > beaten + _BEAT_SECONDS:
                beaten = time.monotonic()
                self._beat()
            pods = self._cluster.call("GET", f"{self._namespace.pods}?fieldSelector=spec.nodeName={self._namespace.node}")
            for pod in pods.json()["items"]:
                self._advance(pod)

    def _beat(self) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": _now()}
        self._cluster.call("PATCH", f"/api/v1/nodes/{self._namespace.node}/status", {"status": {"conditions": [ready]}})

    def _advance(self, pod: Mapping[str, Any]) -> None:
        name, phase = pod["metadata"]["name"], pod["status"].get("phase")
        process = self._processes.get(name)
        if pod["metadata"].get("deletionTimestamp"):
            if process is None or process.poll() is not None:
                path, now = f"{self._namespace.pods}/{name}", {"gracePeriodSeconds": 0}
                self._cluster.call("DELETE", path, now, accept=(404,))
            elif name not in self._told:
                self._told.add(name)
                _signal(process, signal.SIGTERM)
        elif process is None and phase == "Pending":
            with (self._namespace.folder / f"{name}.log").open("wb") as log:
                command = pod["spec"]["containers"][0]["command"]
                self._processes[name] = subprocess.Popen(
                    command, env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            self._report(name, "Running", {"running": {"startedAt": _now()}})
        elif process is not None and process.poll() is not None and phase == "Running":
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": _now()}
            self._report(name, "Failed" if code else "Succeeded", {"terminated": ended})

    def _report(self, name: str, phase: str, state: Mapping[str, Any]) -> None:
        container = {"name": "agent", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status = {"phase": phase, "containerStatuses": [container], "startTime": _now()}
        self._cluster.call("PATCH", f"{self._namespace.pods}/{name}/status", {"status": status}, accept=(404,))


class _Proxy:
    """Passes calls on to the API server; counts lists, and swallows the answers to creations that shall be lost."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.lists = 0
        self.lose_replies = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def break_down(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def close(self) -> None:
        if self._thread.is_alive():
            self.break_down()
        self.cluster.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: _Proxy

    def do_GET(self) -> None:
        self.proxy.lists += 1
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _pass_on(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        everything = tuple(range(400, 600))
        body = json.loads(raw) if raw else None
        reply = self.proxy.cluster.call(self.command, self.path, body, accept=everything)
        if self.command == "POST" and self.proxy.lose_replies:
            self.proxy.lose_replies -= 1
            self.close_connection = True
            return
        self.send_response(reply.status_code)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the control plane does not get ready"
        time.sleep(0.1)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
