"""What the packages never call, read from their source; and SECURITY.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

PACKAGES = ("easytransfer", "modelzoo", "appzoo")
# Calls that run what they read, or a shell; what to use instead is in SECURITY.md.
FORBIDDEN_CALLS = re.compile(
    r"eval|exec|compile|__import__|os\.(system|popen)|subprocess\.getoutput|yaml\.(load|full_load|unsafe_load)(_all)?"
    r"|torch\.load|.*\.(extractall|extract|unpack_archive)|tempfile\.mktemp|.*\.enable_unsafe_deserialization"
    r"|(pd|pandas)\.read_pickle"
)
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "xmlrpc", "telnetlib"}
# Values between the workers of one job, which never come from a file; see SECURITY.md.
ALLOWED = {"easytransfer.distributed.horovod_workers": {"pickle"}}
# The only places that open addresses.
NETWORK = {"urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "tensorflow_hub"}
ADDRESSES = {"easytransfer.presets.download", "modelzoo.cnn.saved_model"}


def modules(root: Path) -> dict[str, ast.Module]:
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def problems(name: str, tree: ast.AST) -> list[str]:
    """Says what a module does that none of ours may do."""
    packages = {imported.split(".")[0] for imported in imports(tree)}
    found = [f"imports {bad}" for bad in packages & FORBIDDEN_IMPORTS - ALLOWED.get(name, set())]
    if imports(tree) & NETWORK and name not in ADDRESSES:
        found.append(f"opens addresses: {imports(tree) & NETWORK}")
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func)
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        if FORBIDDEN_CALLS.fullmatch(function):
            found.append(f"calls {function}")
        if options.get("shell") == "True":
            found.append(f"starts a shell with {function}")
        if function in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            found.append("np.load without allow_pickle=False")
        if options.get("verify") == "False" or "_create_unverified_context" in function:
            found.append("does not check certificates")
    return [f"{name}: {problem}" for problem in found]


def test_nothing_runs_what_it_reads(repository):
    found = modules(repository)
    assert len(found) > 200
    assert [problem for name, tree in found.items() for problem in problems(name, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "subprocess.run(line, shell=True)",
        "import urllib.request",
        "requests.get(url, verify=False)",
    ],
)
def test_the_test_above_finds(line):
    assert problems("easytransfer.other", ast.parse(line))


def test_every_threat_names_a_test_that_exists(repository):
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", row)
        assert named, f"no test is named: {row}"
        for path, function in named:
            assert (repository / path).is_file(), path
            assert not function or f"def {function}(" in (repository / path).read_text(encoding="utf-8"), function
    listed = {path for path, _ in re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", text)}
    here = {str(path.relative_to(repository)) for path in (repository / "tests" / "security").glob("test_*.py")}
    assert here - {"tests/security/test_audit.py"} <= listed
