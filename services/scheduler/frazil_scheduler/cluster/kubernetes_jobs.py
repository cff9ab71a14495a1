"""A Kubernetes Job that carries an agent: its manifest, and what its status means. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from frazil_scheduler.cluster.options import ClusterOptions
from frazil_scheduler.lanes import ClusterEntry, ClusterPolicy, ClusterRequest, ClusterState

LANE_LABEL = "frazil/lane"
POD_JOB_LABEL = "job-name"  # set by Kubernetes on a Job's pods
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions(ClusterOptions):
    """Options of a lane of a Kubernetes cluster. By default pods are like those of k8s/base."""

    image: str = ""  # for every program; or one each:
    images: dict[str, Any] = field(default_factory=lambda: {
        "frazil-preprocess": "frazil/preprocess:local-cuda12",
        "frazil-reconstruct": "frazil/reconstruct:local-cuda12",
    })  # fmt: skip
    namespace: str = ""  # empty: that of the kubeconfig's context, or of the scheduler's pod
    kubeconfig: str = ""  # empty: the service account of the scheduler's pod
    queue: str = ""  # of Kueue
    priority_class: str = ""
    runtime_class: str = ""  # "nvidia" where it is not the default one
    service_account: str = ""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_memory_label: str = "nvidia.com/gpu.memory"  # of nodes, MiB (GPU feature discovery); empty: not asked for
    node_selector: dict[str, Any] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(
        default_factory=lambda: [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    )
    volumes: list[dict[str, Any]] = field(default_factory=lambda: [
        {"name": "data", "persistentVolumeClaim": {"claimName": "frazil-data"}},
        {"name": "movies", "persistentVolumeClaim": {"claimName": "frazil-movies", "readOnly": True}},
    ])  # fmt: skip
    volume_mounts: list[dict[str, Any]] = field(default_factory=lambda: [
        {"name": "data", "mountPath": "/data"},
        {"name": "movies", "mountPath": "/movies", "readOnly": True},
    ])  # fmt: skip


def manifest(request: ClusterRequest, lane: str, options: KubernetesOptions, policy: ClusterPolicy) -> dict[str, Any]:
    """Return the Job. It never starts a second pod: a new attempt is a new cluster job."""
    labels = {
        "app.kubernetes.io/name": "frazil-agent",
        "app.kubernetes.io/part-of": "frazil",
        LANE_LABEL: lane,
        **({_QUEUE_LABEL: options.queue} if options.queue else {}),
    }
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "ttlSecondsAfterFinished": _DAY_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": _pod(request, options, policy)},
    }
    if policy.walltime_seconds:
        spec["activeDeadlineSeconds"] = round(policy.walltime_seconds)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": request.name, "labels": labels}, "spec": spec}


def entry(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], now: float) -> ClusterEntry:
    """Return what a Job and its pods say; it is over only when no pod of it can run any more. `now` is seconds since 1970."""
    name = job["metadata"]["name"]
    status, spec = job.get("status", {}), job["spec"]
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    running = [pod for pod in alive if pod.get("status", {}).get("phase") == "Running"]
    ended = next(
        (c for c in status.get("conditions") or () if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None
    )
    if ended is not None and not alive:
        return ClusterEntry(cluster_job_id=name, name=name, state=_end(ended), reason=_end_words(ended, pods))
    if running or ended is not None or (alive and job["metadata"].get("deletionTimestamp")):
        left = None
        if "activeDeadlineSeconds" in spec and "startTime" in status:
            started = datetime.fromisoformat(status["startTime"].replace("Z", "+00:00")).timestamp()
            left = max(0.0, started + spec["activeDeadlineSeconds"] - now)
        return ClusterEntry(cluster_job_id=name, name=name, state=ClusterState.RUNNING, seconds_left=left)
    reason = "suspended, by its queue" if spec.get("suspend") else _pending_words(alive)
    return ClusterEntry(cluster_job_id=name, name=name, state=ClusterState.PENDING, reason=reason)


def _pod(request: ClusterRequest, options: KubernetesOptions, policy: ClusterPolicy) -> dict[str, Any]:
    command = ["frazil-agent", "--once", "--node-id", request.name, "--scheduler", request.scheduler_address]
    command += ["--programs", request.program, "--lock-dir", "/tmp/locks", "--idle-seconds", f"{policy.idle_seconds:g}"]  # noqa: S108 in the pod
    command += ["--drain-seconds", f"{max(1.0, policy.drain_seconds - 15):g}"]
    if options.num_gpu:
        command.append("--require-gpu")
    limits: dict[str, Any] = {"memory": f"{options.ram_gb}Gi"}
    if options.num_gpu:
        limits[options.gpu_resource] = options.num_gpu
    container = {
        "name": "agent",
        "image": options.image or options.images.get(request.program, ""),
        "command": command,
        "resources": {"requests": {"cpu": str(options.num_cpu), "memory": f"{options.ram_gb}Gi"}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *options.volume_mounts],  # noqa: S108 in the pod
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": round(policy.drain_seconds) + 15,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *options.volumes],
    }  # fmt: skip
    if options.num_gpu:
        pod["tolerations"] = options.tolerations
    optional = {
        "nodeSelector": options.node_selector,
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class if options.num_gpu else "",
        "serviceAccountName": options.service_account,
    }
    pod |= {name: value for name, value in optional.items() if value}
    if options.num_gpu and options.gpu_memory_label and request.gpu_memory_min_mib:
        # Gt is strict and compares whole numbers
        need = {"key": options.gpu_memory_label, "operator": "Gt", "values": [str(request.gpu_memory_min_mib - 1)]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [need]}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return pod


def _end(condition: Mapping[str, Any]) -> ClusterState:
    if condition["type"] == "Complete":
        return ClusterState.COMPLETED
    return ClusterState.TIMEOUT if condition.get("reason") == "DeadlineExceeded" else ClusterState.FAILED


def _end_words(condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    if condition["type"] == "Complete":
        return ""
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or ():
            ended = container.get("state", {}).get("terminated")
            if ended:
                return f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}"
        if pod.get("status", {}).get("reason"):
            return str(pod["status"]["reason"])
    return str(condition.get("reason") or "Failed")


def _pending_words(pods: Sequence[Mapping[str, Any]]) -> str:
    """Return why a pod does not run: the scheduler's message, or what its image or volumes lack."""
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or ():
            waiting = container.get("state", {}).get("waiting")
            if waiting and waiting.get("reason") != "ContainerCreating":
                return f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] != "True":
                return str(condition.get("message") or condition.get("reason") or "")
    return ""
