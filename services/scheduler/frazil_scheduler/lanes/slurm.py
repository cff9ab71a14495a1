"""Lane backend "slurm": GPU slots asked for by a batch system's commands: Slurm as it is, PBS and LSF by template.

With option `templates`, a folder with CryoSPARC's cluster_info.json and cluster_script.sh, a site's own commands and script are
used; the batch system is known by its submit program: sbatch, qsub or bsub.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frazil_scheduler.cluster.commands import refused, run, unavailable
from frazil_scheduler.cluster.dialects import job_number, read_list
from frazil_scheduler.cluster.options import ClusterOptions, read_options
from frazil_scheduler.cluster.templates import duration, read_templates, require_safe
from frazil_scheduler.lanes import ClusterEntry, ClusterPolicy, ClusterRequest

_SCRIPT_MODE = 0o755
_AMBIGUOUS = ("timed out", "Unable to contact", "Connection refused", "connection reset", "Communication failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions(ClusterOptions):
    """Options of a lane of a batch system."""

    templates: str = ""  # folder with cluster_info.json and cluster_script.sh; empty: Slurm as built in
    vars: dict[str, Any] = field(default_factory=dict)  # for the templates; built in: partition, account, qos, constraint, ...
    agent: str = ""  # the program frazil-agent on the cluster's machines; empty: beside this Python, else on their PATH


class Backend:
    """A lane of a batch system's GPU slots; see `SlurmOptions` and `ClusterOptions` for its options."""

    operator_options = frozenset({"templates", "agent"})

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """Read options and templates; raises FrazilError CONFIG_INVALID."""
        self._options = read_options(SlurmOptions, name, options)
        folder = Path(self._options.templates) if self._options.templates else None
        self._templates = read_templates(folder, name, self._options.vars)
        self._policy = self._options.policy(self._templates.dialect.title)
        beside = Path(sys.executable).with_name("frazil-agent")
        self._agent = self._options.agent or (str(beside) if beside.exists() else beside.name)
        require_safe(f"agent in [lanes.{name}]", self._agent)
        for variable, value in self._options.vars.items():
            require_safe(f"{variable} of vars in [lanes.{name}]", str(value))
        self._accounting = bool(self._templates.list_ended)

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
        """Write the job's script and submit it."""
        script = request.folder / "cluster_script.sh"
        variables = self._variables(request, script)
        text = self._templates.job_script(variables)
        command = self._templates.command(
            self._templates.submit,
            **{name: value for name, value in variables.items() if name != "run_cmd"},
        )
        try:
            request.folder.mkdir(parents=True, exist_ok=True)
            script.write_text(text)
            script.chmod(_SCRIPT_MODE)
        except OSError as error:
            raise refused(f"The job's script {script} cannot be written: {error.strerror}.") from error
        output = await run(command)
        if output.code == 0 and (number := job_number(output.stdout)):
            return number
        sentence = f"{self._policy.title} did not take the job: {output.words}"
        if output.code == 0 or any(words in output.stderr for words in _AMBIGUOUS):
            raise unavailable(sentence)
        raise refused(sentence)

    async def list(self, names: Sequence[str]) -> Sequence[ClusterEntry]:
        """Ask for all jobs of this user at once, and for the ended ones that are no longer among them."""
        templates = self._templates
        output = await run(templates.command(templates.list_all))
        nothing = re.search(templates.dialect.none_listed, output.stdout + output.stderr)
        if output.code != 0 and not nothing:
            raise unavailable(f"{self._policy.title} cannot be asked: {output.words}")
        entries, senseless = read_list(templates.dialect, output.stdout)
        if senseless and not entries and not nothing:
            raise unavailable(f"The list of {self._policy.title} makes no sense: {output.words}")
        missing = sorted(set(names) - {entry.name for entry in entries})
        if missing and self._accounting:
            entries += await self._ended(missing)
        return entries

    async def cancel(self, cluster_job_ids: Sequence[str]) -> None:
        """Cancel jobs; what the command says of jobs that are over does not matter: the list tells."""
        await run(self._templates.command(self._templates.cancel, cluster_job_id=" ".join(cluster_job_ids)))

    async def _ended(self, names: Sequence[str]) -> Sequence[ClusterEntry]:
        """Ask the accounting; a cluster without one is asked once."""
        output = await run(self._templates.command(self._templates.list_ended, names=",".join(names)))
        if output.code != 0:
            self._accounting = "disabled" not in output.stderr
            return ()
        return read_list(self._templates.dialect, output.stdout)[0]

    def _variables(self, request: ClusterRequest, script: Path) -> dict[str, object]:
        policy, options = self._policy, self._options
        arguments = (
            f"--once --node-id {request.name} --scheduler {request.scheduler_address} --programs {request.program}"
            f" --idle-seconds {policy.idle_seconds:g} --drain-seconds {max(1.0, policy.drain_seconds - 15):g}"
        ) + (" --require-gpu" if policy.gpus else "")
        return {
            "name": request.name,
            "run_cmd": f"{self._agent} {arguments}",
            "run_args": arguments,
            "worker_bin_path": self._agent,
            "num_cpu": options.num_cpu,
            "num_gpu": options.num_gpu,
            "ram_gb": options.ram_gb,
            "walltime": duration(policy.walltime_seconds),
            "drain_seconds": round(policy.drain_seconds),
            "gpu_memory_min_mib": request.gpu_memory_min_mib,
            "script_path_abs": script,
            "job_dir_abs": request.folder,
            "project_dir_abs": request.folder.parent,
            "job_log_path_abs": request.folder / "job.log",
            "project_uid": request.session_id,
            "job_uid": request.job_id or request.name,
            "job_creator": "frazil",
            "cryosparc_username": "frazil",
        }
