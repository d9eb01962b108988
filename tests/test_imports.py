"""Which way imports go, what stays light, and how large files may get: read from the source, nothing is imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGES = ("easytransfer", "modelzoo", "appzoo")
# The table of rooms, their floors and what each may import.
TABLE = Path(__file__).resolve().parents[1] / "docs" / "layout.md"
HEAVY = {"tensorflow", "tf_keras", "keras", "tensorflow_text", "tensorflow_hub", "official"}
OPTIONAL = {"matplotlib", "pyarrow", "tensorflow_serving", "horovod", "torch", "transformers"}
OPTIONAL |= {"ai_edge_litert", "faiss", "grpc", "huggingface_hub", "mlflow", "optuna", "prometheus_client", "starlette"}
OPTIONAL |= {"uvicorn", "wandb"}
# All of this package needs one extra; who imports it does so inside a function, after a check.
WHOLLY_OPTIONAL, SETTINGS = "easytransfer.serving", "easytransfer.serving.settings"
LIGHT_PREFIXES = ("easytransfer.config", "easytransfer.data", "easytransfer.presets", "easytransfer.run", "appzoo.cli")
LIGHT_PREFIXES += ("appzoo.tuning", "appzoo.experiment")
LIGHT_MODULES = {
    "easytransfer",
    "easytransfer.errors",
    "easytransfer.serving.settings",
    "easytransfer.text.wordpiece",
    "appzoo",
    "appzoo.discovery",
    "modelzoo.cnn.config",
    "modelzoo.cnn.names",
    "modelzoo.cnn.published",
    "modelzoo.commands",
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "util", "helper"}
FILE_LINES, FUNCTION_LINES = 500, 80


def modules(root: Path) -> dict[str, ast.Module]:
    """Parses every module of our packages below `root`, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree: ast.AST, known: set[str], everywhere: bool, name: str = "") -> set[str]:
    """Modules that module `name` imports; `everywhere` includes those inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A package counts as its own first parent in a relative import.
            parts = [*name.split("."), *(["__init__"] if any(k.startswith(f"{name}.") for k in known) else [])]
            above = parts[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            submodules = {f"{module}.{alias.name}" for alias in node.names}
            names |= (submodules & known) | ({module} if submodules - known else set())
        elif everywhere or not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)):
            names |= imported(node, known, everywhere, name)
    return names


def graph(trees: dict[str, ast.Module], everywhere: bool) -> dict[str, set[str]]:
    return {name: imported(tree, set(trees), everywhere, name) for name, tree in trees.items()}


class Room(NamedTuple):
    """One room of the table: its floor, and the only rooms it may import where the table names them."""

    floor: int
    only: frozenset[str] | None


def rooms(page: str) -> dict[str, Room]:
    """Reads the table: rooms by name, such as `easytransfer/data`, `modelzoo/<family>` or `appzoo/<file>`."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or not cells[0].isdecimal():
            continue
        floor, names, _, may = cells
        assert may.startswith(("below", "`")), line
        only = None if may.startswith("below") else frozenset(re.findall(r"`(\w+)`", may))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), Room(int(floor), only))
    return found


ROOMS = rooms(TABLE.read_text(encoding="utf-8"))


def room_of(module: str, known: set[str]) -> str:
    """Returns the name of a module's room in the table."""
    package, place = module.split(".")[:2]
    if f"{package}/{place}" in ROOMS or package == "easytransfer":
        return f"{package}/{place}"
    if not any(name.startswith(f"{package}.{place}.") for name in known):
        return f"{package}/<file>"
    return f"{package}/<family>" if package == "modelzoo" else f"{package}/<application>"


def arrow_error(source: str, target: str, known: set[str]) -> str | None:
    """Says what is wrong with module `source` importing our module `target`, or None."""
    a, b = source.split("."), target.split(".")
    if PACKAGES.index(a[0]) < PACKAGES.index(b[0]):
        return f"{source} imports {target}: {a[0]} must not know {b[0]}"
    if len(a) < 2 or len(b) < 2 or a[:2] == b[:2]:
        return None
    ours, theirs = room_of(source, known), room_of(target, known)
    for room in (ours, theirs):
        if room not in ROOMS:
            return f"{room} is not in the table of {TABLE.name}; add it there"
    if "<application>" in theirs:
        return f"{source} imports {target}: nothing imports an application by name"
    if "<family>" in theirs and ours == theirs:
        return f"{source} imports {target}: no family of networks knows another"
    if ROOMS[ours].floor < ROOMS[theirs].floor:
        return f"{source} imports {target}: {a[1]} is below {b[1]}"
    if ROOMS[ours].only is not None and b[1] not in ROOMS[ours].only:
        return f"{source} imports {target}: {a[1]} may import {', '.join(sorted(ROOMS[ours].only))} only"
    return None


def arrow_errors(imports: dict[str, set[str]]) -> list[str]:
    pairs = ((source, target) for source in imports for target in sorted(imports[source]))
    errors = (arrow_error(s, t, set(imports)) for s, t in pairs if t.split(".")[0] in PACKAGES)
    return [error for error in errors if error]


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Every cycle that a depth-first search closes, each as the path around it."""
    found, path, done = [], [], set()

    def visit(node: str) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            path.append(node)
            for target in sorted(edges.get(node, ())):
                visit(target)
            done.add(path.pop())

    for node in sorted(edges):
        visit(node)
    return found


def package_edges(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph between the subpackages of easytransfer."""
    edges: dict[str, set[str]] = {}
    for source, targets in imports.items():
        a = source.split(".")
        if a[0] == "easytransfer" and len(a) > 1:
            ours = {t.split(".")[1] for t in targets if t.startswith("easytransfer.")}
            edges.setdefault(a[1], set()).update(ours - {a[1]})
    return edges


def heavy_path(name: str, imports: dict[str, set[str]], seen: set[str]) -> list[str] | None:
    """The chain of module-level imports from `name` to a heavy package, or None. Parents of a module count too."""
    if name.split(".")[0] in HEAVY:
        return [name]
    if name in seen or name.split(".")[0] not in PACKAGES:
        return None
    seen.add(name)
    parents = [name.rsplit(".", 1)[0]] if "." in name else []
    for target in [*parents, *sorted(imports.get(name, ()))]:
        chain = heavy_path(target, imports, seen)
        if chain:
            return [name, *chain]
    return None


def is_light(name: str) -> bool:
    parts = name.split(".")
    app_config = len(parts) == 3 and parts[0] == "appzoo" and parts[2] == "config"
    return app_config or name in LIGHT_MODULES or any(f"{name}.".startswith(f"{p}.") for p in LIGHT_PREFIXES)


@pytest.fixture(scope="module")
def trees(repository: Path) -> dict[str, ast.Module]:
    return modules(repository)


def test_imports_point_down(trees):
    assert arrow_errors(graph(trees, everywhere=True)) == []


def test_the_table_has_the_rooms_there_are(trees):
    places = {room_of(name, set(trees)) for name in trees if "." in name}
    assert set(ROOMS) == places
    named = {name for room in ROOMS.values() if room.only for name in room.only}
    assert named <= {room.split("/")[1] for room in ROOMS}


def test_what_checks_an_export_stands_on_tensorflow_alone(trees):
    """It runs in a process without this package: only relative imports, and only of these two folders."""
    alone = ("easytransfer.savedmodel.", "easytransfer.export.selfcheck.")
    free = {name: tree for name, tree in trees.items() if name.startswith(alone)}
    del free["easytransfer.savedmodel.loading"]
    absolute = {
        name
        for name, tree in free.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in PACKAGES
    }
    ours = {t for targets in graph(free, everywhere=True).values() for t in targets if t.split(".")[0] in PACKAGES}
    others = {target for target in ours if not f"{target}.".startswith(alone)}
    assert len(free) > 15 and absolute == set() and others == set()


def test_what_the_page_says_of_ways_is_there(repository, trees):
    """Files of the two ways are there, and so are the members of `App`."""
    ways = TABLE.read_text(encoding="utf-8").partition("## The way of a batch")[2]
    named = re.findall(r"`([^`]+)`", ways)
    files = [name for name in named if re.fullmatch(r"[a-z_]+(/[a-z_]+)+", name)]
    assert len(files) > 20
    assert [f for f in files if not any((repository / base / f"{f}{end}").exists()
            for base in ("", "easytransfer") for end in ("", ".py"))] == []  # fmt: skip
    contract = {n.name: n for m in ("app.contract", "train.task") for n in trees[f"easytransfer.{m}"].body
                if isinstance(n, ast.ClassDef)}  # fmt: skip
    members = {item.name for name in ("App", "Task") for item in contract[name].body if hasattr(item, "name")}
    assert {name.removeprefix("App.") for name in named if name.startswith("App.")} <= members


def test_no_import_cycles(trees):
    """Imports inside functions and for type checkers count: a circle is one however late it closes."""
    imports = graph(trees, everywhere=True)
    assert cycles(imports) == []
    assert cycles(package_edges(imports)) == []


def test_light_modules_do_not_import_tensorflow(trees):
    imports = graph(trees, everywhere=False)
    light = [name for name in trees if is_light(name)]
    assert len(light) > 10
    chains = [heavy_path(name, imports, set()) for name in light]
    assert [" -> ".join(chain) for chain in chains if chain] == []


def test_only_one_module_picks_a_keras(trees):
    offenders = []
    for name, tree in trees.items():
        if name == "easytransfer.keras":
            continue
        if {target.split(".")[0] for target in imported(tree, set(trees), True)} & {"keras", "tf_keras"}:
            offenders.append(name)
        if any(isinstance(n, ast.Attribute) and ast.unparse(n) == "tf.keras" for n in ast.walk(tree)):
            offenders.append(f"{name} (tf.keras)")
    assert offenders == []


@pytest.mark.parametrize("package", ["appzoo", "modelzoo"])
def test_each_package_sets_tensorflows_environment_first(trees, package):
    """`easytransfer` does; without it TensorFlow loads Keras 3 and computes with other kernels."""
    assert "easytransfer" in imported(trees[package], set(trees), False)


def test_optional_packages_are_imported_inside_functions(trees):
    imports = graph(trees, everywhere=False)
    others = {name: targets for name, targets in imports.items() if not name.startswith(WHOLLY_OPTIONAL)}
    used = {name: {t.split(".")[0] for t in targets} & OPTIONAL for name, targets in others.items()}
    assert {name: found for name, found in used.items() if found} == {}
    behind = {
        name: {t for t in targets if t.startswith(WHOLLY_OPTIONAL)} - {SETTINGS} for name, targets in others.items()
    }
    assert {name: found for name, found in behind.items() if found} == {}


def test_size_and_names(repository: Path, trees):
    errors = []
    for path in (p for package in PACKAGES for p in sorted((repository / package).rglob("*.py"))):
        place = path.relative_to(repository)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            errors.append(f"{place}: {lines} lines")
        if path.stem in FORBIDDEN_NAMES:
            errors.append(f"{place}: name the subject of the file")
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (size := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
                errors.append(f"{name}.{node.name}: {size} lines")
    assert errors == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("easytransfer/data/a.py", "from modelzoo.bert import backbone", "easytransfer must not know modelzoo"),
        ("easytransfer/config/a.py", "def f():\n    import easytransfer.train.loop", "config is below train"),
        ("modelzoo/a.py", "import appzoo.jobs", "modelzoo must not know appzoo"),
        ("appzoo/one/app.py", "from appzoo.two.app import Two", "nothing imports an application by name"),
        ("appzoo/jobs/a.py", "from appzoo.two import app", "nothing imports an application by name"),
        ("appzoo/one/app.py", "from appzoo.jobs.train import train", "one is below jobs"),
        ("modelzoo/bert/a.py", "from modelzoo.cnn import b", "no family of networks knows another"),
        ("easytransfer/serving/a.py", "from easytransfer.data import table", "may import config, deferred"),
        ("easytransfer/savedmodel/a.py", "from ..train import b", "savedmodel is below train"),
        ("easytransfer/novel/a.py", "import easytransfer.errors", "easytransfer/novel is not in the table"),
    ],
)
def test_checker_finds_an_arrow_that_points_back(tmp_path, file, text, expected):
    others = ("appzoo/two/app.py", "appzoo/jobs/train.py", "modelzoo/cnn/b.py", "modelzoo/bert/backbone.py")
    for other in (*others, "easytransfer/train/b.py", "easytransfer/data/table.py"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (error,) = arrow_errors(graph(modules(tmp_path), everywhere=True))
    assert expected in error


def test_checker_finds_cycles_and_heavy_imports(tmp_path):
    for file, text in {
        "easytransfer/data/a.py": "from easytransfer.data import b",
        "easytransfer/data/b.py": "import easytransfer.data.a\nimport easytransfer.keras",
        "easytransfer/keras.py": "import tf_keras",
        "easytransfer/data/c.py": "def f():\n    import tensorflow",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    imports = graph(modules(tmp_path), everywhere=False)
    assert cycles(imports) == [["easytransfer.data.a", "easytransfer.data.b", "easytransfer.data.a"]]
    chain = heavy_path("easytransfer.data.a", imports, set())
    assert chain == ["easytransfer.data.a", "easytransfer.data.b", "easytransfer.keras", "tf_keras"]
    assert heavy_path("easytransfer.data.c", imports, set()) is None
