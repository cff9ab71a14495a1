"""Lists of batch systems as they are printed, and a site's own templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frazil.model.errors import FrazilError
from frazil_scheduler.cluster.dialects import LSF, PBS, SLURM, Dialect, job_number, read_list
from frazil_scheduler.cluster.templates import duration, read_templates
from frazil_scheduler.lanes import ClusterState, cluster_of, load

SQUEUE = """\
12,RUNNING,59:30,frazil-1a2b3c4d,None
13,PENDING,1-00:00:00,frazil-1a2b3c4e,QOSMaxGRESPerUser
14,PENDING,UNLIMITED,other,Nodes required for job are DOWN, DRAINED or reserved
15,COMPLETING,0:00,frazil-1a2b3c50,None
"""
SQUEUE_TABLE = """\
             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)
                12      live frazil-1     root PD       0:00      1 (Resources)
                11      live frazil-1     root  R       2:00      1 gpu1
"""
SACCT = """\
12|TIMEOUT|frazil-1a2b3c4d
13|CANCELLED by 1000|frazil-1a2b3c4e
14|NODE_FAIL|frazil-1a2b3c4f
15|OUT_OF_MEMORY|frazil-1a2b3c50
"""
QSTAT = """\
Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
123.pbs01         frazil-1a2b3c4d  frazil            00:00:12 R gpuq
124[].pbs01       frazil-1a2b3c4e  frazil                   0 Q gpuq
"""
QSTAT_WITH_COMMENTS = """\

pbs01:
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
130.pbs01       frazil   gpuq     frazil-1a*    --    1   4   32gb 24:00 Q   --
"""
BJOBS = """\
JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME
77      frazil  PEND  gpu        login1                  frazil-1a2b3c4d Nov 25 10:00
78      frazil  EXIT  gpu        login1      node1       frazil-1a2b3c4e Nov 25 10:01
79      frazil  ZOMBI gpu        login1      node2       frazil-1a2b3c4f Nov 25 10:02
"""


@pytest.mark.parametrize(
    ("dialect", "text", "states"),
    [
        (SLURM, SQUEUE, {"12": "RUNNING", "13": "PENDING", "14": "PENDING", "15": "RUNNING"}),
        (SLURM, SQUEUE_TABLE, {"12": "PENDING", "11": "RUNNING"}),
        (SLURM, SACCT, {"12": "TIMEOUT", "13": "CANCELLED", "14": "LOST", "15": "FAILED"}),
        (PBS, QSTAT, {"123": "RUNNING", "124": "PENDING"}),
        (PBS, QSTAT_WITH_COMMENTS, {"130": "PENDING"}),
        (LSF, BJOBS, {"77": "PENDING", "78": "FAILED", "79": "RUNNING"}),  # a zombie's host does not answer: it may live
    ],
)
def test_lists_are_read_line_by_line_without_their_headings(dialect: Dialect, text: str, states: dict[str, str]) -> None:
    entries, senseless = read_list(dialect, text)
    assert {entry.cluster_job_id: entry.state.value for entry in entries} == states
    assert senseless == 0


def test_squeue_tells_reasons_names_and_the_time_left() -> None:
    running, pending, foreign, _ = read_list(SLURM, SQUEUE)[0]
    assert (running.name, running.reason, running.seconds_left) == ("frazil-1a2b3c4d", "", 3570.0)
    assert (pending.reason, pending.seconds_left) == ("QOSMaxGRESPerUser", 86400.0)
    assert (foreign.name, foreign.reason) == ("", "Nodes required for job are DOWN, DRAINED or reserved")
    assert foreign.seconds_left is None


def test_what_makes_no_sense_is_counted() -> None:
    assert read_list(PBS, "<Data><Job><Job_Id>1.pbs</Job_Id></Job></Data>\n") == ([], 1)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("123\n", "123"),
        ("123;cluster2\n", "123"),
        ("Submitted batch job 123\n", "123"),
        ("123.pbs01.example\n", "123"),
        ("Job <123> is submitted to queue <gpu>.\n", "123"),
        ("no\n", ""),
    ],
)
def test_the_number_in_a_submit_commands_answer(answer: str, number: str) -> None:
    assert job_number(answer) == number


def site(folder: Path, script: str = "#!/bin/bash\n{{ run_cmd }}\n", **info: str) -> Path:
    (folder / "cluster_info.json").write_text(json.dumps({"qsub_cmd_tpl": "sbatch {{ script_path_abs }}", **info}))
    (folder / "cluster_script.sh").write_text(script)
    return folder


def test_a_sites_commands_keep_their_folder_and_their_way_there(tmp_path: Path) -> None:
    info = {"send_cmd_tpl": "ssh login {{ command }}", "qsub_cmd_tpl": "/opt/slurm/bin/sbatch {{ script_path_abs }}"}
    templates = read_templates(site(tmp_path, **info), "big", {})
    submit = templates.command(templates.submit, script_path_abs="/data/job.sh", name="frazil-1a2b3c4d", drain_seconds=180)
    assert submit == (
        "ssh login /opt/slurm/bin/sbatch --parsable --no-requeue --job-name=frazil-1a2b3c4d --signal=B:TERM@180 /data/job.sh"
    )
    assert templates.command(templates.list_all).startswith("ssh login /opt/slurm/bin/squeue --me ")
    assert templates.command(templates.cancel, cluster_job_id="1 2") == "ssh login /opt/slurm/bin/scancel 1 2"


def test_a_list_command_for_one_job_is_not_used_for_all(tmp_path: Path) -> None:
    assert "squeue --me" in read_templates(site(tmp_path, qstat_cmd_tpl="squeue -j {{ cluster_job_id }}"), "big", {}).list_all
    assert read_templates(site(tmp_path, qstat_cmd_tpl="squeue -u frazil"), "big", {}).list_all == "squeue -u frazil"


def test_cryosparcs_variables_fill_a_sites_script(tmp_path: Path) -> None:
    script = """#!/bin/bash
#SBATCH --job-name cryosparc_{{ project_uid }}_{{ job_uid }}
#SBATCH --gres=gpu:{{ num_gpu }} -n {{ num_cpu }} --mem={{ (ram_gb)|int }}GB
#SBATCH --partition={{ queue }}
{{ run_cmd }}
"""
    variables = {"project_uid": "P1", "job_uid": "J2", "num_gpu": 1, "num_cpu": 4, "ram_gb": 32.0, "run_cmd": "agent --once"}
    text = read_templates(site(tmp_path, script), "big", {"queue": "gpu"}).job_script(variables)
    assert text.splitlines()[1:] == [
        "#SBATCH --job-name cryosparc_P1_J2",
        "#SBATCH --gres=gpu:1 -n 4 --mem=32GB",
        "#SBATCH --partition=gpu",
        "agent --once",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"qsub_cmd_tpl": "submit {{ script_path_abs }}"}, "must use one of sbatch, qsub, bsub"),
        ({"script": "#!/bin/bash\nsleep 1\n"}, "must run {{ run_cmd }}"),
    ],
)
def test_a_sites_wrong_files_are_one_sentence(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    with pytest.raises(FrazilError) as caught:
        read_templates(site(tmp_path, **change), "big", {})
    assert sentence in caught.value.sentence


def test_a_variable_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FrazilError, match="'account' is undefined"):
        read_templates(site(tmp_path, "{{ account }} {{ run_cmd }}"), "big", {}).job_script({"run_cmd": "agent"})


@pytest.mark.parametrize("value", ["a; rm -rf /", "$(id)", "a`id`", "a\nb", "a'b", "a|b", "a>b"])
def test_nothing_that_a_shell_would_take_for_more_than_a_word_gets_there(tmp_path: Path, value: str) -> None:
    templates = read_templates(site(tmp_path), "big", {})
    with pytest.raises(FrazilError, match="may hold letters"):
        templates.command(templates.submit, script_path_abs=value, name="n", drain_seconds=1)
    with pytest.raises(FrazilError, match="may hold letters"):
        load("slurm")("big", {"vars": {"partition": value}})


def test_walltimes() -> None:
    assert (duration(0), duration(90), duration(86400 * 2)) == ("", "00:01:30", "48:00:00")


def test_half_of_a_short_walltime_is_left_for_work() -> None:
    lane = cluster_of(load("slurm")("big", {"walltime_seconds": 600}))
    assert lane is not None
    assert (lane.policy.handover_seconds, lane.policy.drain_seconds) == (300.0, 150.0)


def test_every_state_is_either_alive_or_over() -> None:
    assert {state for state in ClusterState if not state.terminal} == {ClusterState.PENDING, ClusterState.RUNNING}
