"""The lock files agree with setup.py, miss nothing but what is excluded on purpose, and the wheel is complete."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import setuptools  # noqa: F401 - provides distutils
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from easytransfer.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
RUN_EXTRAS = ("plot", "parquet", "hub", "litert")
# What only tests and the documentation use.
BESIDE = ("test", "docs")
PACKAGES = ("easytransfer", "modelzoo", "appzoo")
# What stands beside the packages in a source archive.
SINGLE_FILES = (
    *("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
)
# Distributions by the module they are imported as, where it is not the same word.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "google": "protobuf",
    "ai_edge_litert": "ai-edge-litert",
    "faiss": "faiss-cpu",
    "grpc": "grpcio",
    "markdown_it": "markdown-it-py",
    "mlflow": "mlflow-skinny",
    "official": "tf-models-official",
    "tensorflow_serving": "tensorflow-serving-api",
    "yaml": "pyyaml",
}
# Used where it is installed (docs/serving.md) and declared nowhere.
OPTIONAL = {"grpc-health"}
# Declared without being imported: tensorflow-hub needs pkg_resources and does not say so.
FOR_OTHERS = {"setuptools"}


def locked(name: str) -> dict[str, str]:
    """Returns version by package of a lock file, as it applies to this Python."""
    found = {}
    for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([a-z0-9][\w.-]*)==([^ ;]+)( ;[^\\]*)?", line):
            requirement = Requirement(match.group().strip())
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(match[1])] = match[2]
    return found


def lines_of(name: str) -> list[str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def excluded() -> set[str]:
    return {Requirement(line).name for line in lines_of("excluded.txt")}


def model_packages() -> set[str]:
    """Returns the packages of pre-trained models that presets name and that are read where they are installed."""
    found = [json.loads(path.read_text(encoding="utf-8"))["presets"] for path in ROOT.glob("modelzoo/*/presets.json")]
    origins = [preset["origin"] for presets in found for preset in presets]
    return {origin["package"] for origin in origins if origin["kind"] == "python-package" and "folder" in origin}


@cache
def declared() -> dict[str, list[Requirement]]:
    """Returns the requirements of setup.py by extra, those of the core under ""."""
    from distutils.core import run_setup

    setup = run_setup(str(ROOT / "setup.py"), stop_after="init")
    groups = {"": setup.install_requires, **setup.extras_require}
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


def test_locks_hold_what_setup_declares():
    run, test = locked("run.txt"), locked("run.txt") | locked("test.txt")
    needed = [(run, r) for group in ("", *RUN_EXTRAS) for r in declared()[group]]
    models = [Requirement(line) for line in lines_of("models.txt")]
    assert {str(r) for r in models} == model_packages()
    needed += [(run, r) for r in models]
    here = [r for group in ("tune", "mlflow", "wandb", "faiss", *BESIDE) for r in declared()[group]]
    here = [r for r in here if r.marker is None or r.marker.evaluate()]
    needed += [(test, r) for r in here if r.name not in excluded()]
    wrong = [str(r) for lock, r in needed if not r.specifier.contains(lock.get(canonicalize_name(r.name), "0"))]
    assert wrong == []


def imported() -> dict[str, set[str]]:
    """Returns the files that import a distribution of other people, by its name."""
    found: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in {name.partition(".")[0] for name in _modules(node)} - sys.stdlib_module_names - {*PACKAGES}:
                name = canonicalize_name(DISTRIBUTIONS.get(module, module))
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.level == 0 else []
    called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
    if called in ("import_module", "find_spec", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
        return [node.args[0].value]
    return []


def test_setup_declares_what_is_imported_and_nothing_else():
    """Examples, tests and the site may need more, which is in the extras `test` and `docs`."""
    names = {canonicalize_name(r.name) for group, lines in declared().items() if group not in BESIDE for r in lines}
    found = imported()
    assert {name: files for name, files in found.items() if name not in names | OPTIONAL} == {}
    assert names - set(found) == FOR_OTHERS


def test_serving_is_imported_only_where_its_extra_is_needed():
    """A package of an extra must not stop a program that was installed without it."""
    core = {canonicalize_name(r.name) for r in declared()[""]}
    code = "import easytransfer, modelzoo.loading, appzoo.discovery, appzoo.cli.main, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    loaded = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in loaded.split()}
    extras = {
        canonicalize_name(r.name) for group in ("serving", "plot", "parquet", "horovod") for r in declared()[group]
    }
    assert loaded & (extras - core) == set()


def test_torch_is_the_same_everywhere():
    (torch,) = [str(r) for r in declared()["test"] if r.name == "torch"]
    assert torch in (ROOT / "requirements" / "peer.txt").read_text(encoding="utf-8").splitlines()


def test_the_zoo_needs_no_pytorch_and_no_cuda():
    """What pip takes for the wheel with the extra hub, through what installed packages say they need.

    Packages that are left out of the locks are named and, not being here, not followed.
    """
    waiting, found = [*declared()[""], *declared()["hub"]], set()
    while waiting:
        requirement = waiting.pop()
        found.add(name := canonicalize_name(requirement.name))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert name in {canonicalize_name(left_out) for left_out in excluded()}, name
            continue
        for further in map(Requirement, lines):
            extras = ("", *requirement.extras)
            applies = further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras)
            if applies and canonicalize_name(further.name) not in found:
                waiting.append(further)
    assert {"tensorflow", "tensorflow-text", "huggingface-hub", "safetensors"} <= found
    assert [name for name in sorted(found) if re.search("torch|cuda|nvidia|triton|sentence-transformers", name)] == []


def test_every_locked_package_has_hashes():
    for name in ("run.txt", "test.txt", "gpu.txt"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert all("==" in line and "--hash=sha256:" in line for line in lines), name


@pytest.mark.parametrize("name", ["run.txt", "test.txt"])
def test_lock_is_closed(name):
    """What an installed package of the lock requires is in the lock too, or is excluded with a reason."""
    known = {canonicalize_name(p) for p in excluded() | set(locked("run.txt")) | set(locked("test.txt"))}
    if name == "run.txt":
        known -= set(locked("test.txt")) - set(locked("run.txt"))
    missing = set()
    for package in locked(name):
        try:
            lines = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed; the environment was not made from the lock")
        for requirement in map(Requirement, lines):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) not in known:
                missing.add(f"{package} -> {requirement}")
    assert missing == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from its source archive; a copy of the checkout lies beside it as `source`."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("easytransfer", "modelzoo", "appzoo", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SINGLE_FILES:
        shutil.copy(ROOT / name, source)
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, archive], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_holds_every_file_of_the_packages(wheel: Path):
    source = wheel.with_name("source")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert wheel.name.startswith("easytransfer_tf2-")
    built = {"easytransfer_tf2.egg-info"}
    files = {path.relative_to(source) for path in source.glob("*/**/*") if path.is_file()}
    names = {path.as_posix() for path in files if path.parts[0] not in built}
    assert packed == {f"appzoo/{name}" if name.startswith("examples/") else name for name in names}


def test_both_archives_are_of_the_version_of_the_changelog(wheel: Path):
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (newest, *_) = re.findall(r"^## (\S+)", changes, re.MULTILINE)
    dockerfile = (ROOT / "docker" / "train.Dockerfile").read_text(encoding="utf-8")
    assert newest == VERSION and f"ARG VERSION={VERSION}\n" in dockerfile
    assert wheel.name.startswith(f"easytransfer_tf2-{VERSION}-")
    with tarfile.open(wheel.with_name(f"easytransfer_tf2-{VERSION}.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*SINGLE_FILES, "examples/text_classify/train.tsv"} <= names


def test_readme_of_the_wheel_has_no_link_that_leads_nowhere(wheel: Path):
    metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode("utf-8").partition("\n\n")[2]
    readme, link = (ROOT / "README.md").read_text(encoding="utf-8"), re.compile(r"\[[^\]]+\]\(([^)]+)\)")
    assert [target for target in link.findall(text) if not target.startswith(("https:", "#"))] == []
    away = [target for target in link.findall(readme) if target.startswith("https:")]
    assert away and link.findall(text) == away
    assert len(text.splitlines()) == len(readme.splitlines())


def test_an_installed_wheel_runs_the_smoke_configurations(wheel: Path, tmp_path: Path):
    """What `pip install` of the wheel gives, used from a folder that is no checkout."""
    site, work = tmp_path / "site", tmp_path / "work"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    work.mkdir()

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, site / "bin" / "easy_transfer_app", *words]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)

    smoke = Path("appzoo", "image_classify", "configs", "smoke.yaml")
    early = run("train", "--config", site / smoke)
    assert early.returncode == 3, early.stderr
    assert early.stderr.splitlines()[-1].endswith("written into this folder by: easy_transfer_app examples")
    written = run("examples")
    assert written.returncode == 0 and "image_classify" in json.loads(written.stdout)["examples"], written.stderr
    assert run("examples").returncode == 2  # nothing is replaced unasked
    tables = {
        table
        for path in work.glob("appzoo/*/configs/smoke*.yaml")
        for tables in re.findall(r"_table: (examples/\S+)", path.read_text(encoding="utf-8"))
        for table in tables.split(",")
    }
    assert len(tables) > 10 and [table for table in tables if not (work / table).is_file()] == []
    done = run("train", "--config", smoke, "--dryRun")
    assert done.returncode == 0 and json.loads(done.stdout)["dry_run"] is True, done.stderr
