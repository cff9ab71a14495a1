"""A batch system's commands and job script, as CryoSPARC keeps them: cluster_info.json and cluster_script.sh (Jinja).

The variables are CryoSPARC's, so that a site's files can be used again: run_cmd, num_cpu, num_gpu, ram_gb, job_dir_abs,
project_dir_abs, job_log_path_abs, script_path_abs, worker_bin_path, run_args, project_uid, job_uid, job_creator,
cryosparc_username, command, cluster_job_id, and what the site adds. Ours are name, walltime and gpu_memory_min_mib.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from frazil.model.errors import FrazilError
from frazil_scheduler.cluster.dialects import BY_PROGRAM, SLURM, Dialect

BUILT_IN = Path(__file__).parent / "slurm"
INFO = "cluster_info.json"
SCRIPT = "cluster_script.sh"

_SAFE = re.compile(r"[\w.,:=/@%+-]*", re.ASCII)
_SUBMIT_PROGRAM = re.compile(rf"(?:^|(?<=[\s/]))({'|'.join(BY_PROGRAM)})(?=\s|$)")
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The templates of one lane."""

    dialect: Dialect
    send: str
    submit: str
    list_all: str
    list_ended: str
    cancel: str
    script: str
    variables: Mapping[str, Any] = field(default_factory=dict)  # the site's own

    def command(self, template: str, **variables: object) -> str:
        """Return a command line, ready for a shell."""
        for name, value in variables.items():
            require_safe(name, str(value))
        return render(self.send, {**self.variables, "command": render(template, {**self.variables, **variables})}).strip()

    def job_script(self, variables: Mapping[str, object]) -> str:
        """Return the job script."""
        return render(self.script, {**self.variables, **variables, "vars": self.variables})


def read_templates(folder: Path | None, lane: str, variables: Mapping[str, Any]) -> Templates:
    """Read a site's files, or Slurm's built-in ones. `variables` are the lane's own and come before the site's.

    Raises FrazilError CONFIG_INVALID naming the file and what is wrong with it.
    """
    where = folder or BUILT_IN
    try:
        info = json.loads((where / INFO).read_text())
        script = (where / SCRIPT).read_text()
    except (OSError, ValueError) as error:
        sentence = f"[lanes.{lane}] cannot use {where} with its {INFO} and {SCRIPT}: {error}."
        raise FrazilError("CONFIG_INVALID", sentence) from error
    if not isinstance(info, dict):
        raise FrazilError("CONFIG_INVALID", f"{where / INFO} must be a JSON object.")
    submit = str(info.get("qsub_cmd_tpl") or SLURM.submit)
    program = _SUBMIT_PROGRAM.search(submit)
    if program is None:
        known = ", ".join(BY_PROGRAM)
        raise FrazilError("CONFIG_INVALID", f"qsub_cmd_tpl in {where / INFO} must use one of {known}, to be understood.")
    dialect = BY_PROGRAM[program.group(1)]
    if folder is not None and "run_cmd" not in script:
        raise FrazilError("CONFIG_INVALID", f"{where / SCRIPT} must run {{{{ run_cmd }}}}.")
    custom = info.get("custom_vars") or {}
    prefix = _folder_of(submit[: program.end()])
    own_list = str(info.get("qstat_cmd_tpl") or "")
    lists_all = own_list and "cluster_job_id" not in own_list
    return Templates(
        dialect=dialect,
        send=str(info.get("send_cmd_tpl") or "{{ command }}"),
        submit=f"{submit[: program.end()]} {dialect.submit_options}{submit[program.end() :]}",
        list_all=own_list if lists_all else prefix + dialect.list_all,
        list_ended=prefix + dialect.list_ended if dialect.list_ended else "",
        cancel=str(info.get("qdel_cmd_tpl") or prefix + dialect.cancel),
        script=script,
        variables={**(custom if isinstance(custom, dict) else {}), **variables},
    )


def render(template: str, variables: Mapping[str, object]) -> str:
    """Fill a template; raises FrazilError CONFIG_INVALID naming the variable that is not there."""
    try:
        return _ENVIRONMENT.from_string(template).render(variables)
    except TemplateError as error:
        known = ", ".join(sorted(variables))
        raise FrazilError(
            "CONFIG_INVALID", f"A cluster template cannot be filled: {error.message}; it may use {known}."
        ) from error


def require_safe(name: str, value: str) -> None:
    """Refuse what a shell could take for more than a word: nothing is quoted, since a command may pass several shells (ssh)."""
    if not all(_SAFE.fullmatch(word) for word in value.split(" ")):
        raise FrazilError(
            "CONFIG_INVALID", f"{name} is {value!r}; for a cluster's shells it may hold letters, digits and .,:=/@%+-_ only."
        )


def duration(seconds: float) -> str:
    """Return hours:minutes:seconds, as batch systems write a walltime; nothing for 0."""
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def _folder_of(command: str) -> str:
    """Return the folder of the submit program, with which the others lie: "/opt/slurm/bin/" of "/opt/slurm/bin/sbatch"."""
    return command.split()[-1].rpartition("/")[0] + "/" if "/" in command.split()[-1] else ""
