"""The CPU image, really built and run, without Docker: Debian's buildah with chroot isolation and vfs storage.

The base image is put together from Debian packages by debootstrap, so no registry of images is needed; packages come
from where this machine gets its own. Takes half an hour and 15 GB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE, IMAGE = "localhost/debian-bookworm", "localhost/easytransfer"
# What the build may need to reach its package sources: certificates, mirrors, proxies.
HOST_FILES = ("/etc/pip.conf", "/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d")
NEEDED_GB = 15

pytestmark = [pytest.mark.slow, pytest.mark.network]


def why_not() -> str | None:
    """Says why no image can be built here, None when one can."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (Debian: apt-get install buildah debootstrap)"
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
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", tree], check=True, capture_output=True)
    container = buildah("from", "scratch")
    buildah("add", container, tree, "/")
    buildah("commit", "--rm", container, BASE)
    shutil.rmtree(tree)
    volumes = [f"--volume={path}:{path}:ro" for path in HOST_FILES if os.path.exists(path)]
    file = ROOT / "docker" / "train.Dockerfile"
    options = ["--isolation=chroot", "--pull=never", f"--build-arg=BASE={BASE}", *volumes]
    buildah("build", *options, f"--ignorefile={file}.dockerignore", "-f", file, "-t", IMAGE, ROOT)
    return IMAGE


def test_the_image_runs_our_command_as_a_plain_user(buildah, image):
    container = buildah("from", "--pull=never", image)

    def inside(*words: str) -> str:
        return buildah("run", "--isolation=chroot", container, "--", "sh", "/usr/local/bin/entrypoint.sh", *words)

    assert inside("id", "-u") == "10001"
    assert inside("--version").startswith("2.")
    assert "text_classify_bert" in inside("apps")
    assert "True" in inside("python", "-c", "import horovod.tensorflow as hvd; print(hvd.gloo_built())")
    assert inside("sh", "-c", "command -v g++ cmake || echo none") == "none"
    with pytest.raises(AssertionError):
        inside("touch", "/usr/local/bin/entrypoint.sh")
