"""Lane backend "kubernetes": GPU slots as Jobs of a Kubernetes cluster, one Job and one pod for each lease."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from frazil_scheduler.cluster.kubernetes_api import KubernetesApi, read_access
from frazil_scheduler.cluster.kubernetes_jobs import LANE_LABEL, POD_JOB_LABEL, KubernetesOptions, entry, manifest
from frazil_scheduler.cluster.options import read_options
from frazil_scheduler.lanes import ClusterEntry, ClusterPolicy, ClusterRequest


class Backend:
    """A lane of a Kubernetes cluster's GPU slots; see `KubernetesOptions` and `ClusterOptions` for its options."""

    operator_options = frozenset({"kubeconfig", "image", "images", "service_account", "volumes", "volume_mounts"})

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """Read the options; raises FrazilError CONFIG_INVALID. The cluster is not asked anything yet."""
        self._lane = name
        self._options = read_options(KubernetesOptions, name, options)
        self._policy = self._options.policy("Kubernetes")
        self._opened: tuple[KubernetesApi, str] | None = None

    @property
    def policy(self) -> ClusterPolicy:
        """How the lane uses its cluster."""
        return self._policy

    def accepts(self, node_id: str) -> bool:  # noqa: ARG002 the protocol's
        """Tell that no node belongs to the lane by its name."""
        return False

    def node_globs(self) -> Sequence[str]:
        """Return no pattern."""
        return ()

    async def submit(self, request: ClusterRequest) -> str:
        """Create the Job; its name is its identity, so a repeat does nothing."""
        api, namespace = self._open()
        await api.create(_jobs(namespace), manifest(request, self._lane, self._options, self._policy))
        return request.name

    async def list(self, names: Sequence[str]) -> Sequence[ClusterEntry]:  # noqa: ARG002 one call tells all
        """List the lane's Jobs, and their pods for the reasons."""
        api, namespace = self._open()
        selector = f"{LANE_LABEL}={self._lane}"
        jobs = await api.list(_jobs(namespace), selector)
        pods: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for pod in await api.list(f"/api/v1/namespaces/{namespace}/pods", selector):
            pods[pod["metadata"]["labels"].get(POD_JOB_LABEL, "")].append(pod)
        return [entry(job, pods[job["metadata"]["name"]], time.time()) for job in jobs]

    async def cancel(self, cluster_job_ids: Sequence[str]) -> None:
        """Delete Jobs with their pods."""
        api, namespace = self._open()
        for name in cluster_job_ids:
            await api.delete(f"{_jobs(namespace)}/{name}")

    def _open(self) -> tuple[KubernetesApi, str]:
        """Read who we are when first needed: the kubeconfig may come after the scheduler. Raises FrazilError CONFIG_INVALID."""
        if self._opened is None:
            access = read_access(self._options.kubeconfig, self._lane)
            self._opened = KubernetesApi(access), self._options.namespace or access.namespace
        return self._opened


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"
