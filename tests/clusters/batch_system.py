"""A batch system in a folder: sbatch, squeue, sacct, scancel, and the same as PBS and LSF know them.

Each job is a process that waits for a free slot, runs the script, warns it before the end of its time, ends it at the end, and
kills whatever the script has started before it calls the job over. Started as a program it is one of the commands; imported it
is the operator's hand: `BatchSystem`.
"""

# ruff: noqa: T201, PTH208 commands print; /proc is read by names only

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "BATCH_SYSTEM_JOB"  # in the environment of all that a job starts
KILL_WAIT_SECONDS = 1.0
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "qsub", "qstat", "qdel", "bsub", "bjobs", "bkill")
PBS_LETTERS = {
    "PENDING": "Q",
    "RUNNING": "R",
    "COMPLETED": "F",
    "FAILED": "F",
    "TIMEOUT": "F",
    "CANCELLED": "F",
    "NODE_FAIL": "F",
}
LSF_WORDS = {"PENDING": "PEND", "RUNNING": "RUN", "COMPLETED": "DONE"}
RULES: dict[str, Any] = {
    "slots": 4,
    "walltime": 0.0,  # of every job, seconds; 0: what its script says
    "accounting": True,
    "keep_seconds": 300.0,  # that ended jobs stay in squeue
    "lose_replies": 0,  # submissions that are taken without an answer
    "refuse": "",
    "down": False,
}


class BatchSystem:
    """The operator's hand on a batch system in a folder."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "jobs").mkdir()
        self.rule(**{**RULES, **rules})
        for name in COMMANDS:
            program = self.bin / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {folder} {name} "$@"\n')
            program.chmod(0o755)

    def rule(self, **rules: Any) -> None:
        """Change how it behaves."""
        with locked(self.folder):
            path = self.folder / "rules.json"
            known = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**known, **rules}))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return every job by its number."""
        with locked(self.folder):
            return {job["id"]: job for job in all_jobs(self.folder)}

    def calls(self, name: str) -> int:
        """Count the calls of a command."""
        log = self.folder / "calls.log"
        return log.read_text().split().count(name) if log.exists() else 0

    def strike(self, number: str, state: str = "NODE_FAIL") -> None:
        """Kill a job without a warning, as when its node dies; one that is not there is nobody's."""
        if load(self.folder, number) is not None:
            change(self.folder, number, strike=state)

    def cancel(self, number: str) -> None:
        """Cancel a job, as a person might."""
        change(self.folder, number, cancelled=True)

    def close(self) -> None:
        """Kill everything."""
        for job in self.jobs().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(job["keeper"], signal.SIGKILL)
            kill_all(self.folder, job["id"])


# ------------------------------------------------------------------------------------------------------------- the folder
@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def all_jobs(folder: Path) -> list[dict[str, Any]]:
    jobs = [json.loads(path.read_text()) for path in (folder / "jobs").glob("*.json")]
    return sorted(jobs, key=lambda job: int(job["id"]))


def save(folder: Path, job: dict[str, Any]) -> None:
    path = folder / "jobs" / f"{job['id']}.json"
    path.with_suffix(".new").write_text(json.dumps(job))
    path.with_suffix(".new").replace(path)


def load(folder: Path, number: str) -> dict[str, Any] | None:
    path = folder / "jobs" / f"{number}.json"
    job: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return job


def change(folder: Path, number: str, **values: Any) -> dict[str, Any]:
    with locked(folder):
        job = {**(load(folder, number) or {}), **values}
        save(folder, job)
        return job


def kill_all(folder: Path, number: str) -> None:
    """Kill all that a job has started, sessions of their own included, and return when the kernel has forgotten them."""
    mark = f"{MARK}={folder}/{number}".encode()
    while True:
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _marked(pid, mark)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


# -------------------------------------------------------------------------------------------------------------- one job
def keep(folder: Path, number: str) -> None:
    """Bring a job through its life."""
    while not _start(folder, number):
        time.sleep(0.05)
    job = load(folder, number) or {}
    if job["state"] != "RUNNING":
        return
    log = re.search(r"^#(?:SBATCH --output=|PBS -o |BSUB -o )(\S+)", job["script"], re.MULTILINE)
    with Path(log.group(1) if log else os.devnull).open("ab") as output:
        shell = subprocess.Popen(
            ["/bin/bash", str(folder / "jobs" / f"{number}.sh")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {MARK: f"{folder}/{number}", "SLURM_JOB_ID": number},
        )
    state = _watch(folder, number, shell)
    kill_all(folder, number)
    shell.wait()
    change(folder, number, state=state, ended=time.time())


def _start(folder: Path, number: str) -> bool:
    """Let a job run, or end it before it has, and tell whether it did either."""
    with locked(folder):
        rules = json.loads((folder / "rules.json").read_text())
        job = load(folder, number)
        assert job is not None
        ahead = [other for other in all_jobs(folder) if other["state"] == "RUNNING" or int(other["id"]) < int(number)]
        active = [other for other in ahead if other["state"] in ("PENDING", "RUNNING")]
        if job.get("cancelled"):
            save(folder, {**job, "state": "CANCELLED", "ended": time.time()})
        elif len(active) < rules["slots"]:
            walltime = rules["walltime"] or job["walltime"]
            save(folder, {**job, "state": "RUNNING", "started": time.time(), "walltime": walltime, "reason": ""})
        else:
            return False
        return True


def _watch(folder: Path, number: str, shell: subprocess.Popen[bytes]) -> str:
    """Return the state in which a running job ends."""
    warned = False
    while True:
        code = shell.poll()
        job = load(folder, number) or {}
        if job.get("strike"):
            return str(job["strike"])
        if job.get("cancelled"):
            return _end(shell, "CANCELLED")
        left = job["started"] + job["walltime"] - time.time() if job["walltime"] else float("inf")
        if code is not None:
            return "COMPLETED" if code == 0 else "FAILED"
        if left <= 0:
            return _end(shell, "TIMEOUT")
        if job["warn"] and left <= job["warn"] and not warned:
            warned = True
            shell.terminate()  # the batch shell only
        time.sleep(0.05)


def _end(shell: subprocess.Popen[bytes], state: str) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        shell.wait(KILL_WAIT_SECONDS)
    return state


# ------------------------------------------------------------------------------------------------------------- commands
def submit(folder: Path, rules: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    if rules["refuse"]:
        sys.exit(rules["refuse"])
    script = Path(arguments[-1]).read_text() if Path(arguments[-1]).is_file() else sys.stdin.read()
    given = " ".join(arguments)
    name = re.search(r"(?:--job-name=|-N |-J )(\S+)", given)
    warn = re.search(r"--signal=B:TERM@(\d+)", given)
    time_limit = re.search(r"(?:--time=|walltime=|#BSUB -W )(\d+):(\d+)(?::(\d+))?", script)
    hours, minutes, seconds = (int(part or 0) for part in time_limit.groups()) if time_limit else (0, 0, 0)
    with locked(folder):
        number = str(len(all_jobs(folder)) + 1)
        (folder / "jobs" / f"{number}.sh").write_text(script)
        job = {
            "id": number,
            "name": name.group(1) if name else "script",
            "script": script,
            "state": "PENDING",
            "reason": "Resources",
            "walltime": hours * 3600 + minutes * 60 + seconds,
            "warn": int(warn.group(1)) if warn else 0,
            "keeper": 0,
        }
        save(folder, job)
    keeper = subprocess.Popen(
        [sys.executable, "-IS", __file__, str(folder), "keep", number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    job = change(folder, number, keeper=keeper.pid)
    if rules["lose_replies"]:
        BatchSystem.rule(_at(folder), lose_replies=rules["lose_replies"] - 1)
        sys.exit("error: Batch job submission failed: Socket timed out on send/recv operation")
    return job


def _at(folder: Path) -> BatchSystem:
    system = BatchSystem.__new__(BatchSystem)
    system.folder = folder
    return system


def shown(folder: Path, rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the jobs that a list shows."""
    with locked(folder):
        jobs = all_jobs(folder)
    return [job for job in jobs if "ended" not in job or time.time() - job["ended"] < rules["keep_seconds"]]


def squeue(folder: Path, rules: dict[str, Any], _: list[str]) -> None:
    for job in shown(folder, rules):
        left = "UNLIMITED"
        if job["walltime"]:
            seconds = max(0, round(job.get("started", time.time()) + job["walltime"] - time.time()))
            left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        print(f"{job['id']},{job['state']},{left},{job['name']},{job['reason'] or 'None'}")


def sacct(folder: Path, rules: dict[str, Any], arguments: list[str]) -> None:
    if not rules["accounting"]:
        sys.exit("Slurm accounting storage is disabled")
    names = next(a.removeprefix("--name=") for a in arguments if a.startswith("--name=")).split(",")
    with locked(folder):
        jobs = all_jobs(folder)
    for job in jobs:
        if job["name"] in names:
            print(f"{job['id']}|{'CANCELLED by 0' if job['state'] == 'CANCELLED' else job['state']}|{job['name']}")


def qstat(folder: Path, rules: dict[str, Any], _: list[str]) -> None:
    jobs = shown(folder, rules)
    if jobs:
        print("Job id            Name             User              Time Use S Queue")
        print("----------------  ---------------- ----------------  -------- - -----")
    for job in jobs:
        print(f"{job['id']}.batch".ljust(18), job["name"].ljust(16), "frazil 00:00:00", PBS_LETTERS[job["state"]], "gpu")


def bjobs(folder: Path, rules: dict[str, Any], _: list[str]) -> None:
    jobs = shown(folder, rules)
    if not jobs:
        sys.exit("No job found")
    print("JOBID      USER     STAT   QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME")
    for job in jobs:
        print(
            job["id"].ljust(10), "frazil  ", LSF_WORDS.get(job["state"], "EXIT"), "gpu login node", job["name"], "Nov 25 10:00"
        )


def cancel(folder: Path, _: dict[str, Any], arguments: list[str]) -> None:
    for number in arguments:
        if load(folder, number.partition(".")[0]) is None:
            sys.exit(f"error: Kill job error on job id {number}: Invalid job id specified")
        change(folder, number.partition(".")[0], cancelled=True)


def main(folder: Path, command: str, arguments: list[str]) -> None:
    if command == "keep":
        keep(folder, arguments[0])
        return
    rules = json.loads((folder / "rules.json").read_text())
    with locked(folder), (folder / "calls.log").open("a") as log:
        log.write(command + "\n")
    if rules["down"]:
        sys.exit(f"{command}: error: Unable to contact the controller (connect failure)")
    answers: dict[str, Callable[[dict[str, Any]], str]] = {
        "sbatch": lambda job: str(job["id"]),
        "qsub": lambda job: f"{job['id']}.batch",
        "bsub": lambda job: f"Job <{job['id']}> is submitted to queue <gpu>.",
    }
    if command in answers:
        print(answers[command](submit(folder, rules, arguments)))
        return
    actions = {"squeue": squeue, "sacct": sacct, "qstat": qstat, "bjobs": bjobs}
    actions.get(command, cancel)(folder, rules, arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
