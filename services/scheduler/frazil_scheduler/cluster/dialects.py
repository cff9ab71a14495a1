"""What Slurm, PBS and LSF call things: how jobs are listed, and how the lists are read. Pure.

Each dialect reads the lists of its own standard commands and, by the same table of state words, those of a site's own command:
a line counts when it begins with a job's number and has a state word; one of our names or a reason in it is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from frazil_scheduler.lanes import NAME, ClusterEntry, ClusterState

_PENDING, _RUNNING = ClusterState.PENDING, ClusterState.RUNNING
_FAILED, _LOST = ClusterState.FAILED, ClusterState.LOST

_NUMBER = re.compile(r"(\d+)(?:\[\])?(?:[.;]\S*)?")
_HEADING = re.compile(r"(?i)^\W*$|job\s?id|req'd|^\S+:$")  # rulers, titles of columns, PBS's server
_REASON = re.compile(r"\(([^()]+)\)\s*$")
_DAYS = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")

SLURM_STATES: Mapping[str, ClusterState] = {
    **dict.fromkeys(("PD", "PENDING", "CF", "CONFIGURING", "RQ", "REQUEUED", "RF", "REQUEUE_FED"), _PENDING),
    **dict.fromkeys(("RD", "RESV_DEL_HOLD", "RH", "REQUEUE_HOLD", "SE", "SPECIAL_EXIT"), _PENDING),
    **dict.fromkeys(("R", "RUNNING", "CG", "COMPLETING", "S", "SUSPENDED", "ST", "STOPPED", "SI", "SIGNALING"), _RUNNING),
    **dict.fromkeys(("SO", "STAGE_OUT", "RS", "RESIZING"), _RUNNING),
    **dict.fromkeys(("CD", "COMPLETED"), ClusterState.COMPLETED),
    **dict.fromkeys(("F", "FAILED", "OOM", "OUT_OF_MEMORY", "DL", "DEADLINE"), _FAILED),
    **dict.fromkeys(("TO", "TIMEOUT"), ClusterState.TIMEOUT),
    **dict.fromkeys(("CA", "CANCELLED"), ClusterState.CANCELLED),
    **dict.fromkeys(("NF", "NODE_FAIL", "BF", "BOOT_FAIL", "LF", "LAUNCH_FAILED", "PR", "PREEMPTED", "RV", "REVOKED"), _LOST),
}
PBS_STATES: Mapping[str, ClusterState] = {
    **dict.fromkeys("QHWTM", _PENDING),  # queued, held, waiting, being moved
    **dict.fromkeys("RESUB", _RUNNING),  # running, exiting, suspended by a person or for the workstation's user, array begun
    **dict.fromkeys("CFX", ClusterState.COMPLETED),  # Torque's, OpenPBS's and its subjobs'
}
LSF_STATES: Mapping[str, ClusterState] = {
    **dict.fromkeys(("PEND", "PSUSP", "WAIT", "PROV", "FWD_PEND"), _PENDING),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP", "UNKWN", "ZOMBI"), _RUNNING),  # the last two: its host does not answer
    "DONE": ClusterState.COMPLETED,
    "EXIT": _FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One batch system's words. Commands are Jinja templates; `submit_options` goes between submit program and script."""

    title: str
    submit: str
    submit_options: str  # of `name`, `drain_seconds`
    list_all: str  # every job of this user
    list_ended: str = ""  # of `names`: what has ended and is no longer in the first list
    cancel: str  # of `cluster_job_id`, several separated by blanks
    states: Mapping[str, ClusterState]
    none_listed: str = "^$"  # what the list command says, perhaps as an error, when there is nothing


SLURM = Dialect(
    title="Slurm",
    submit="sbatch {{ script_path_abs }}",
    submit_options="--parsable --no-requeue --job-name={{ name }} --signal=B:TERM@{{ drain_seconds }}",
    list_all="squeue --me --states=all --noheader --format=%i,%T,%L,%j,%r",
    list_ended="sacct -X --noheader --parsable2 --starttime=now-7days --format=JobID,State,JobName --name={{ names }}",
    cancel="scancel {{ cluster_job_id }}",
    states=SLURM_STATES,
)
PBS = Dialect(
    title="PBS",
    submit="qsub {{ script_path_abs }}",
    submit_options="-N {{ name }} -r n",
    list_all="qstat",
    cancel="qdel {{ cluster_job_id }}",
    states=PBS_STATES,
)
LSF = Dialect(
    title="LSF",
    submit="bsub < {{ script_path_abs }}",
    submit_options="-J {{ name }} -rn",
    list_all="bjobs -a -w",
    cancel="bkill {{ cluster_job_id }}",
    states=LSF_STATES,
    none_listed=r"[Nn]o (\w+ )?job found",
)
BY_PROGRAM: Mapping[str, Dialect] = {"sbatch": SLURM, "qsub": PBS, "bsub": LSF}


def job_number(text: str) -> str:
    """Return the number in a submit command's answer or at the start of a list's first column; empty when there is none."""
    found = re.search(r"<(\d+)>", text) or _NUMBER.search(text)
    return found.group(1) if found else ""


def read_list(dialect: Dialect, text: str) -> tuple[list[ClusterEntry], int]:
    """Return the entries in a list, and how many lines made no sense; headings do not count.

    Only names of our form are taken; entries of other jobs have none.
    """
    entries: list[ClusterEntry] = []
    senseless = 0
    for line in text.splitlines():
        entry = next((entry for read in _READERS if (entry := read(dialect, line))), None)
        if entry is not None:
            entries.append(entry)
        elif not _HEADING.search(line):
            senseless += 1
    return entries, senseless


def _read_squeue(dialect: Dialect, line: str) -> ClusterEntry | None:
    """Read a line of `SLURM.list_all`: number, state, time left, name, reason."""
    columns = line.strip().split(",", 4)
    if len(columns) != 5 or columns[1] not in dialect.states:
        return None
    reason = columns[4].strip()
    return ClusterEntry(
        cluster_job_id=job_number(columns[0]),
        name=_name(columns[3]),
        state=dialect.states[columns[1]],
        reason="" if reason in ("None", "(null)") else reason,
        seconds_left=_seconds(columns[2]),
    )


def _read_sacct(dialect: Dialect, line: str) -> ClusterEntry | None:
    """Read a line of `SLURM.list_ended`: number, state ("CANCELLED by 1000"), name."""
    columns = line.strip().split("|")
    word = columns[1].split()[0] if len(columns) == 3 and columns[1] else ""
    if word not in dialect.states:
        return None
    return ClusterEntry(cluster_job_id=job_number(columns[0]), name=_name(columns[2]), state=dialect.states[word])


def _read_table(dialect: Dialect, line: str) -> ClusterEntry | None:
    """Read a line of a table for people: the number first, one state word, perhaps our name and a reason in brackets."""
    reason = _REASON.search(line)
    words = line.split()
    if not words or not _NUMBER.fullmatch(words[0].rstrip("*")):
        return None
    known = [word for word in words[1:] if word in dialect.states]
    if not known:
        return None
    return ClusterEntry(
        cluster_job_id=job_number(words[0]),
        name=next(filter(None, map(_name, words)), ""),
        state=dialect.states[known[-1]],
        reason=reason.group(1) if reason else "",
    )


_READERS: Sequence[Callable[[Dialect, str], ClusterEntry | None]] = (_read_squeue, _read_sacct, _read_table)


def _name(word: str) -> str:
    return word if NAME.fullmatch(word) else ""


def _seconds(text: str) -> float | None:
    """Return the seconds in Slurm's [days-][hours:]minutes:seconds; None for UNLIMITED and the like."""
    found = _DAYS.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
