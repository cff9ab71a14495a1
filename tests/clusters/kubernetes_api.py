"""A Kubernetes API server in a thread that knows Jobs and their pods, and runs their commands as processes here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate

TOKEN = "a-token"
_PATH = re.compile(
    r"/(?:api|apis/batch)/v1/namespaces/(?P<namespace>[\w-]+)/(?P<kind>jobs|pods)(?:/(?P<name>[\w-]+))?(?:\?(.*))?$"
)


class KubernetesApi:
    """Jobs with one pod each; `slots` pods run at a time. `lose_replies` creations are done without an answer."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.environ = environ
        self.slots = 4
        self.lose_replies = 0
        self.refuse = ""
        self.walltime = 0.0
        self.lists = 0
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self.server.daemon_threads = True
        self.kubeconfig = folder / "kubeconfig"
        self.options = {"kubeconfig": str(self.kubeconfig)}  # of a lane
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "frazil"}}],
                    "current-context": "x",
                }
            )
        )
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.server.serve_forever), threading.Thread(target=self._run)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.ending.set()
        self.server.shutdown()
        for thread in self.threads:
            thread.join()
        self.server.server_close()
        for process in self.processes.values():
            _signal(process, signal.SIGKILL)
            process.wait()

    def running(self) -> set[str]:
        """Return the names of the jobs whose pods run."""
        with self.lock:
            return {name for name, job in self.jobs.items() if job["phase"] == "Running"}

    # ------------------------------------------------------------------------------------------------------------ calls
    def create(self, namespace: str, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        kubernetes_validate.validate(manifest, "1.33", strict=True)
        name = manifest["metadata"]["name"]
        if self.refuse:
            return 403, {"message": self.refuse}
        if name in self.jobs:
            return 409, {"message": f'jobs.batch "{name}" already exists'}
        self.jobs[name] = {**manifest, "status": {}, "phase": "Pending", "namespace": namespace}
        return 201, manifest

    def delete(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return 404, {"message": f'jobs.batch "{name}" not found'}
        self.jobs[name]["metadata"].setdefault("deletionTimestamp", _now())
        return 200, {}

    def pod(self, job: dict[str, Any]) -> dict[str, Any]:
        name, status = job["metadata"]["name"], {"phase": job["phase"]}
        if job["phase"] == "Pending":
            message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            status["conditions"] = [condition]
        code = job.get("exit_code")
        if code is not None:
            ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
            status["containerStatuses"] = [{"name": "agent", "state": {"terminated": ended}}]
        labels = {**job["spec"]["template"]["metadata"]["labels"], "job-name": name}
        return {"metadata": {"name": f"{name}-x", "labels": labels}, "spec": {}, "status": status}

    # ------------------------------------------------------------------------------------------- controller and kubelet
    def _run(self) -> None:
        while not self.ending.wait(0.03):
            with self.lock:
                for name, job in list(self.jobs.items()):
                    self._advance(name, job)

    def _advance(self, name: str, job: dict[str, Any]) -> None:
        process = self.processes.get(name)
        deleted = "deletionTimestamp" in job["metadata"]
        if process is not None and process.poll() is not None and job["phase"] == "Running":
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            timed_out = job.pop("timed_out", False)
            job |= {"phase": "Failed" if code or timed_out else "Succeeded", "exit_code": code}
            kind, reason = ("Complete", "") if job["phase"] == "Succeeded" else ("Failed", "BackoffLimitExceeded")
            reason = "DeadlineExceeded" if timed_out else reason
            job["status"] = {**job["status"], "conditions": [{"type": kind, "status": "True", "reason": reason}]}
        if deleted:
            if process is None or process.poll() is not None:
                del self.jobs[name]
            elif not job.get("told"):
                job["told"] = True
                _signal(process, signal.SIGTERM)
            return
        walltime = self.walltime or job["spec"].get("activeDeadlineSeconds", 0)
        if job["phase"] == "Running" and walltime and time.monotonic() > job["started"] + walltime and process is not None:
            job["timed_out"] = True
            _signal(process, signal.SIGTERM)
        running = sum(other["phase"] == "Running" for other in self.jobs.values())
        if job["phase"] == "Pending" and running < self.slots:
            command = job["spec"]["template"]["spec"]["containers"][0]["command"]
            with (self.folder / f"{name}.log").open("wb") as log:
                self.processes[name] = subprocess.Popen(
                    command, env=self.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            job |= {"phase": "Running", "started": time.monotonic(), "status": {"startTime": _now(), "active": 1}}


class _Handler(BaseHTTPRequestHandler):
    api: KubernetesApi

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        found = _PATH.match(self.path)
        with self.api.lock:
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, reply = 401, {"message": "Unauthorized"}
            elif found is None:
                status, reply = 404, {"message": "the server could not find the requested resource"}
            elif self.command == "POST":
                status, reply = self.api.create(found["namespace"], body)
                if self.api.lose_replies:
                    self.api.lose_replies -= 1
                    self.close_connection = True
                    return
            elif self.command == "DELETE":
                assert body["propagationPolicy"] == "Foreground"
                status, reply = self.api.delete(found["name"])
            else:
                self.api.lists += 1
                items = list(self.api.jobs.values())
                status, reply = 200, {"items": items if found["kind"] == "jobs" else [self.api.pod(job) for job in items]}
        raw = json.dumps(reply, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
