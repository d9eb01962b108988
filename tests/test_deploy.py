"""The examples for clusters: their form, and that the commands in them are ours."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appzoo.cli.reader import JobReader
from easytransfer.config.fields import settings_of
from easytransfer.config.job import JobConfig

ROOT = Path(__file__).resolve().parents[1]
MPIJOB = ROOT / "deploy" / "k8s" / "mpijob.yaml"


@pytest.fixture
def job() -> dict:
    return yaml.safe_load(MPIJOB.read_text(encoding="utf-8"))


def pods(job: dict) -> dict[str, dict]:
    return {role: spec["template"]["spec"] for role, spec in job["spec"]["mpiReplicaSpecs"].items()}


def test_mpijob_has_the_fields_of_the_operator(job):
    """MPIJob v2beta1: launcher and workers, the number of processes equal to the slots."""
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    assert job["spec"].keys() == {"slotsPerWorker", "sshAuthMountPath", "runPolicy", "mpiReplicaSpecs"}
    assert job["spec"]["runPolicy"].keys() <= {
        *("cleanPodPolicy", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "suspend"),
    }
    roles = job["spec"]["mpiReplicaSpecs"]
    assert roles.keys() == {"Launcher", "Worker"} and roles["Launcher"]["replicas"] == 1
    command = pods(job)["Launcher"]["containers"][0]["command"]
    processes = int(command[command.index("-np") + 1])
    assert processes == roles["Worker"]["replicas"] * job["spec"]["slotsPerWorker"]
    assert command[command.index("-p") + 1] == pods(job)["Worker"]["containers"][0]["command"][3]


@pytest.mark.parametrize("role", ["Launcher", "Worker"])
def test_mpijob_pods_are_confined(job, role):
    pod = pods(job)[role]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["resources"].keys() == {"requests", "limits"} and not container["image"].endswith(":latest")
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def words_of(job: dict) -> list[str]:
    return pods(job)["Launcher"]["containers"][0]["args"]


def test_mpijob_runs_a_command_line_of_ours(job, tmp_path):
    program, verb, flag = words_of(job)
    assert (program, verb, flag.partition("=")[0]) == ("easy_transfer_app", "train", "--config")
    assert JobReader(verb, [f"--config={ROOT / 'examples/text_classify/config.yaml'}"], []).read().config


def test_slurm_starts_a_worker_on_every_node(tmp_path):
    """The script with a Slurm of its own: `scontrol` lists nodes, the program prints its arguments."""
    for name, text in {
        "bin/scontrol": 'test "$3" = "n[1-3]" && printf "n1\\nn2\\nn3\\n"',
        ".venv/bin/easy_transfer_app": 'printf "%s\\n" "$@"',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_NUM_NODES": "3"}
    script = ROOT / "deploy" / "slurm" / "train.sbatch"
    output = subprocess.check_output(["sh", str(script), "my job.yaml"], cwd=tmp_path, env=environment, text=True)
    words = output.splitlines()
    assert words == "train|--config|my job.yaml|--workerCount|3|--set|distribution.hosts=n1:1,n2:1,n3:1".split("|")


def test_the_page_about_layouts_names_settings_that_exist():
    page = (ROOT / "docs" / "distribution.md").read_text(encoding="utf-8")
    known = {setting.path for setting in settings_of(JobConfig)}
    named = set(re.findall(r"distribution\.[a-z_]+(?==)", page))
    assert named and named <= known
    short = {path.rpartition(".")[2] for path in known}
    assert {"min_workers", "save_checkpoint_steps", "sparse_gradients", "wire_dtype"} <= short


def test_commands_of_the_page_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "distribution.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in page.splitlines() if " easy_transfer_app train" in f" {line}" and "`" not in line]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        words = words[words.index("easy_transfer_app") + 1 :]
        words[words.index("job.yaml")] = "examples/text_classify/config.yaml"
        assert JobReader(words[0], words[1:], []).read().config.distribution.worker_count in (1, 4), sys.executable
