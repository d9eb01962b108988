"""The CPU image, really built and run, without Docker: Debian's buildah with chroot isolation and vfs storage.

The base image is put together from Debian packages by debootstrap, so no registry of images is needed; packages come
from where this machine gets its own. Takes half an hour and 20 GB, which are given back.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BASE, IMAGE = "localhost/debian-bookworm", "localhost/easytransfer"
TRAIN = ROOT / "docker" / "train.Dockerfile"
# What the build may need to reach its package sources: settings and lists; and certificates, which are added to those
# of the image where a package brings some.
HOST_FILES = {
    "/etc/pip.conf": "/etc/pip.conf",
    "/etc/apt/sources.list": "/etc/apt/sources.list",
    "/etc/apt/sources.list.d": "/etc/apt/sources.list.d",
    "/etc/apt/apt.conf.d": "/etc/apt/apt.conf.d",
    "/etc/ssl/certs/ca-certificates.crt": "/usr/local/share/ca-certificates/machine.crt",
}
NEEDED_GB = 20
# Starts the server, waits until its health check is content, asks it what the export was checked with, ends it.
SERVE = """
easy_transfer_app {serve} & server=$!
until {health} 2>/dev/null; do kill -0 $server && sleep 1 || exit 1; done
{smoke}; code=$?
kill -TERM $server; wait $server && exit $code
"""

# What a pod of an MPIJob does, on two addresses of this machine: the server of a worker, then the launcher.
SSH = """
/usr/sbin/sshd -De -p {port} -f /home/app/.sshd_config -oListenAddress=127.0.0.1 -oListenAddress=127.0.0.2 & server=$!
printf '127.0.0.1 slots=1\\n127.0.0.2 slots=1\\n' >/tmp/hostfile
until ssh -p {port} 127.0.0.2 true; do kill -0 $server && sleep 1 || exit 1; done
{launch} --hostfile=/tmp/hostfile --ssh-port={port} {train}; code=$?
kill $server; exit $code
"""

pytestmark = [pytest.mark.slow, pytest.mark.network]


def why_not() -> str | None:
    """Says why no image can be built here, None when one can."""
    missing = [name for name in ("buildah", "debootstrap", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: sh scripts/debian.sh image"
    if os.geteuid() != 0:
        return "not root: chroot isolation and debootstrap need it"
    free = shutil.disk_usage("/var/tmp").free >> 30
    return f"{free} GB free in /var/tmp, {NEEDED_GB} needed" if free < NEEDED_GB else None


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Function that runs buildah on a storage of its own and returns what it prints."""
    if reason := why_not():
        pytest.skip(reason)
    storage = Path("/var/tmp") / f"easytransfer-image-{os.getpid()}"
    options = ["--storage-driver=vfs", f"--root={storage}/root", f"--runroot={storage}/run"]

    def run(*arguments: object) -> str:
        done = subprocess.run(["buildah", *options, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, f"buildah {arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    yield run
    shutil.rmtree(storage, ignore_errors=True)


@pytest.fixture(scope="module")
def image(buildah: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = tmp_path_factory.mktemp("base") / "tree"
    done = subprocess.run(["debootstrap", "--variant=minbase", "bookworm", tree], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"debootstrap cannot make a base image here: {' '.join(done.stdout.splitlines()[-2:])}")
    container = buildah("from", "scratch")
    buildah("add", container, tree, "/")
    buildah("commit", "--rm", container, BASE)
    shutil.rmtree(tree)
    build(buildah, TRAIN, IMAGE, f"--build-arg=BASE={BASE}")
    return IMAGE


def build(buildah: Callable[..., str], file: Path, name: str, *options: str) -> None:
    volumes = [f"--volume={path}:{there}:ro" for path, there in HOST_FILES.items() if os.path.exists(path)]
    ignored = f"--ignorefile={TRAIN}.dockerignore"
    # One layer a stage: with vfs every layer is a copy of all below it. Only Docker's format keeps the health check.
    how = ["--layers=false", "--format=docker", "--isolation=chroot", "--pull=never", *options, *volumes]
    buildah("build", *how, ignored, "-f", file, "-t", name, ROOT)


@pytest.fixture(scope="module")
def inside(buildah, image, tmp_path_factory) -> Callable[..., str]:
    """Function that runs the entry point in a container with the folders of compose.yaml."""
    return runner(buildah, image, tmp_path_factory)


def runner(buildah, image: str, folders: pytest.TempPathFactory, *volumes: str) -> Callable[..., str]:
    container = buildah("from", "--pull=never", image)
    given = []
    for name in ("data", "models"):
        folder = folders.mktemp(name)
        os.chown(folder, 10001, 10001)
        given.append(f"--volume={folder}:/{name}")
    given += [f"--volume={ROOT / 'examples'}:/data/examples:ro", *volumes]

    def run(*words: str) -> str:
        entry = ["sh", "/usr/local/bin/entrypoint.sh", *words]
        return buildah("run", "--isolation=chroot", *given, container, "--", *entry)

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_image_runs_our_command_as_a_plain_user(inside):
    assert inside("id", "-u") == "10001"
    assert inside("--version").startswith("2.")
    assert "text_classify_bert" in inside("apps")
    assert "True" in inside("python", "-c", "import horovod.tensorflow as hvd; print(hvd.gloo_built())")
    assert inside("sh", "-c", "command -v g++ cmake || echo none") == "none"
    with pytest.raises(AssertionError):
        inside("touch", "/usr/local/bin/entrypoint.sh")


def test_the_way_of_compose_from_training_to_a_question(inside):
    """The command lines of compose.yaml, the training shorter and on two workers."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    command = {
        name: [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in services[name].get("command", ())]
        for name in services
    }
    trained = json.loads(inside(*command["train"], "--numEpochs=0.2", "--workerCount=2").splitlines()[-1])
    assert trained["mode"] == "train" and trained["step"] > 0
    assert inside("python", "/usr/local/bin/health.py", "/data") == ""
    exported = json.loads(inside(*command["export"]).splitlines()[-1])
    assert exported["mode"] == "export"
    assert "FAIL" not in inside("serve-check", "/models/text_classify_bert/1")
    rest, grpc = free_port(), free_port()
    ports = [f"--restPort={rest}", f"--grpcPort={grpc}"]
    _, *health = services["embedded"]["healthcheck"]["test"]
    words = {
        "serve": [word.replace("0.0.0.0", "127.0.0.1") for word in command["embedded"]] + ports,
        "health": [word.replace(":8501/", f":{rest}/") for word in health],
        "smoke": [word.replace("embedded:8501", f"127.0.0.1:{rest}") for word in command["embedded-smoke"]],
    }
    line = inside("sh", "-c", SERVE.format(**{name: shlex.join(words[name]) for name in words})).splitlines()
    answered = [json.loads(text) for text in line if text.startswith('{"model"')]
    assert answered == [{"model": "text_classify_bert", "version": 1, "ok": True, "differing_outputs": []}]


def test_workers_of_the_image_with_ssh_reach_each_other(buildah, image, tmp_path, tmp_path_factory):
    """The stage for several hosts, with keys that belong to root as those of a mounted secret, and horovodrun."""
    stage = TRAIN.read_text(encoding="utf-8").split("FROM common AS ssh\n")[1].split("\nFROM ")[0]
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nUSER 0:0\n{stage}\n")
    build(buildah, tmp_path / "Dockerfile", f"{image}-ssh")
    keys = tmp_path / "keys"
    keys.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", keys / "id_rsa"], check=True)
    shutil.copy(keys / "id_rsa.pub", keys / "authorized_keys")
    for path in keys.iterdir():
        os.chown(path, 0, 10001)
        path.chmod(0o440)
    run = runner(buildah, f"{image}-ssh", tmp_path_factory, f"--volume={keys}:/home/app/.ssh:ro")
    train = "easy_transfer_app train --config=examples/text_classify/config.yaml --set=checkpoint_dir=/data/run"
    launch = "horovodrun --gloo --num-proc=2"
    out = run("sh", "-c", SSH.format(port=free_port(), launch=launch, train=f"{train} --numEpochs=0.2"))
    results = dict(re.findall(r"^\[(\d)\]<stdout>:(\{.*\})$", out, re.MULTILINE))
    assert json.loads(results["0"])["step"] > 0 and json.loads(results["1"]) == {"mode": "train", "rank": 1}
