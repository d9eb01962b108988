"""The examples for clusters: their form, and that the commands in them are ours."""

import copy
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes_form import object_problems, pods

from appzoo.cli.reader import JobReader
from easytransfer.config.fields import settings_of
from easytransfer.config.job import JobConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "k8s"
RENDERER = runpy.run_path(str(FOLDER / "render.py"))
MANIFESTS = RENDERER["MANIFESTS"]
VALUES = RENDERER["load_values"]([], [])


def objects(manifest: str, **values) -> dict[str, dict]:
    """The objects of a manifest by kind."""
    return {found["kind"]: found for found in RENDERER["render"](manifest, VALUES | values)}


def containers(found: dict) -> list[dict]:
    return [container for pod in pods(found) for container in pod["spec"]["containers"]]


def test_there_are_manifests_for_every_way_to_run():
    assert MANIFESTS == ["job", "mpijob", "predict", "serving"]
    assert list(objects("serving")) == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    assert list(objects("mpijob")) == ["MPIJob", "NetworkPolicy"]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_objects_have_the_form_of_the_api(manifest):
    for found in objects(manifest).values():
        assert object_problems(found) == []


def broken(change):
    found = copy.deepcopy(objects("job")["Job"])
    change(found, found["spec"]["template"]["spec"]["containers"][0])
    return object_problems(found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda job, pod: job["spec"].update(backofLimit=1), "unknown field backofLimit"),
        (lambda job, pod: job["spec"].pop("template"), "template is missing"),
        (lambda job, pod: job["spec"].update(backoffLimit="3"), "'3' is no int"),
        (lambda job, pod: job.update(apiVersion="batch/v1beta1"), "is none of batch/v1"),
        (lambda job, pod: pod["args"].append(8), "8 is no str"),
        (lambda job, pod: pod["resources"]["limits"].update(memory="8 GB"), "is no quantity"),
        (lambda job, pod: pod["volumeMounts"].append({"name": "other", "mountPath": "/x"}), "no volume other"),
        (lambda job, pod: job["metadata"].update(name="Has_Capitals"), "is no name"),
        (lambda job, pod: job["metadata"]["labels"].update(version=2), "not a map of strings"),
    ],
)
def test_the_check_of_the_form_finds(change, problem):
    assert any(problem in found for found in broken(change)), broken(change)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_pods_are_confined(manifest):
    for found in objects(manifest).values():
        for pod in pods(found):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["automountServiceAccountToken"] is False
        for container in containers(found):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].keys() == {"requests", "limits"}
            assert not container["image"].endswith(":latest") and ":" in container["image"]


def test_values_reach_the_objects_with_their_types():
    job = objects("mpijob", workers=7, cpu="500m", name="mine")["MPIJob"]
    roles = job["spec"]["mpiReplicaSpecs"]
    assert roles["Worker"]["replicas"] == 7 and job["metadata"]["name"] == "mine-train"
    (launcher,) = roles["Launcher"]["template"]["spec"]["containers"]
    assert "--num-proc=7" in launcher["command"] and job["spec"]["slotsPerWorker"] == 1
    (worker,) = roles["Worker"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["cpu"] == "500m"
    assert f"--ssh-port={worker['command'][3]}" in launcher["command"]


def test_values_cannot_add_to_a_manifest():
    text = "x\nprivileged: true\n- !!python/object/apply:os.system [true]"
    for manifest in MANIFESTS:
        plain, hostile = objects(manifest), objects(manifest, config=text, model=text, predict_input=text)
        assert shape(hostile) == shape(plain)


def shape(node):
    """Everything of a tree but its texts."""
    if isinstance(node, dict):
        return {key: shape(item) for key, item in node.items()}
    return [shape(item) for item in node] if isinstance(node, list) else type(node)


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, FOLDER / "render.py", *arguments], capture_output=True, text=True)


def test_render_command(tmp_path):
    (tmp_path / "mine.yaml").write_text("workers: 2\nname: mine\n")
    done = render("mpijob", "--values", str(tmp_path / "mine.yaml"), "--set", "workers=3")
    job, policy = yaml.safe_load_all(done.stdout)
    assert job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == 3 and policy["metadata"]["name"] == "mine-train"
    (tmp_path / "wrong.yaml").write_text("worker: 2\n")
    for arguments in (["--values", str(tmp_path / "wrong.yaml")], ["--set", "worker=2"]):
        done = render("mpijob", *arguments)
        assert done.returncode == 2 and "unknown value worker; accepted: name, image" in done.stderr
    assert "no value for image" in render("job", "--set", "image=").stderr


def test_every_value_is_used_and_every_placeholder_has_one():
    texts = [(FOLDER / f"{name}.yaml").read_text(encoding="utf-8") for name in MANIFESTS]
    assert set(re.findall(r"\$\{(\w+)\}", "".join(texts))) == set(VALUES)


@pytest.mark.parametrize(("manifest", "kind"), [("job", "Job"), ("predict", "Job"), ("mpijob", "MPIJob")])
def test_jobs_run_command_lines_of_ours(manifest, kind, tmp_path):
    config = ROOT / "examples" / "text_classify" / "config.yaml"
    words = containers(objects(manifest, config=str(config), predict_checkpoint=str(tmp_path))[kind])[0]["args"]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in words if word != "easy_transfer_app"]
    if manifest == "predict":
        (tmp_path / "train_config.json").write_text('{"schema_version": 2, "model_name": "text_classify_bert"}')
        found = JobReader(words[0], words[1:], []).read().config
        assert (found.distribution.worker_count, found.distribution.task_index) == (4, 1)
    else:
        assert JobReader(words[0], words[1:], []).read().config.model_name == "text_classify_bert"


@pytest.mark.parametrize("manifest", ["job", "predict"])
def test_exit_codes_decide_what_is_tried_again(manifest):
    """Usage, data and model fail the job at once; what was saved after a signal goes on, as does an evicted pod."""
    from easytransfer import errors

    job = objects(manifest)["Job"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "a failure policy needs it"
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule}
    hopeless = [kind.exit_code for kind in (errors.ConfigError, errors.DataError, errors.ModelError)]
    assert rules["FailJob"]["onExitCodes"]["values"] == hopeless
    assert rules["Ignore"]["onExitCodes"]["values"] == [errors.Interrupted.exit_code]
    (container,) = containers(objects(manifest)["Job"])
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules.values())
    assert any("onPodConditions" in rule for rule in job["podFailurePolicy"]["rules"])


def test_parts_of_the_server_belong_together():
    found = objects("serving", name="n", model="m")
    deployment, service, scaler, budget = found.values()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "n-serving"
    assert scaler["spec"]["minReplicas"] == deployment["spec"]["replicas"] > budget["spec"]["maxUnavailable"]
    (container,) = containers(deployment)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    text = (ROOT / "docker" / "serve.Dockerfile").read_text(encoding="utf-8")
    assert f"--port={ports['grpc']}" in text and f"--rest_api_port={ports['http']}" in text
    assert container["startupProbe"]["httpGet"] == {"path": "/v1/models/m", "port": "http"}
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}
    stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert stop < deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_only_workers_of_a_job_reach_each_other():
    found = objects("mpijob")
    policy = found["NetworkPolicy"]["spec"]
    own = policy["podSelector"]["matchLabels"]
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": own}}]}]
    for pod in pods(found["MPIJob"]):
        assert own.items() <= pod["metadata"]["labels"].items()
    other = objects("serving")["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert not own.items() <= other.items()


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
