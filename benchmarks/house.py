"""Measures the source of one or more checkouts: sizes, import circles, comments, the contract of applications.

    python benchmarks/house.py [FOLDER ...]          # default: this checkout; several are printed side by side

Everything is read from the source, nothing is imported, so any two states of the repository can be compared with
`git worktree add ../before COMMIT` and `python benchmarks/house.py ../before .`.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from pathlib import Path
from typing import Any

PACKAGES = ("easytransfer", "modelzoo", "appzoo")
# Applications whose answer is not a class, several or a number for each row: folders of `appzoo`, modules of the toys.
NON_CLASSIFIERS = {
    *("sequence_labeling", "text_comprehension", "lane_detection", "stereo_matching", "person_reid", "vl_pretraining"),
    *("maps", "gan", "retrieval", "writing"),
}
TOYS = "tests/fixtures/toy_apps"


def modules(root: Path) -> dict[str, Path]:
    """Returns the files of our packages by dotted name; a package has the name of its folder."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, tree: ast.Module, known: dict[str, Path]) -> set[str]:
    """Returns the modules of ours that one imports anywhere: at the top, inside functions, for type checkers."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A package counts as its own first parent in a relative import.
            parts = name.split(".") + (["__init__"] if path.stem == "__init__" else [])
            above = parts[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if inner in known else module)
    return (found & known.keys()) - {name}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Returns the strongly connected components of more than one node (Tarjan 1972): each is a knot of circles."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            knot = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(knot) > 1:
                found.append(sorted(knot))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def between_folders(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the same edges between the folders (and single files) below each package."""
    found: dict[str, set[str]] = {}
    for source, targets in edges.items():
        place = ".".join(source.split(".")[:2])
        # A package itself is no folder of it: what it offers lazily is not an edge of the layout.
        others = {".".join(target.split(".")[:2]) for target in targets if "." in target} - {place}
        if "." in source:
            found.setdefault(place, set()).update(others)
    return found


def comment_share(paths: list[Path]) -> float:
    """Returns lines with a comment per line of code; docstrings and empty lines are neither."""
    comments = code = 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        docstrings = _docstring_lines(ast.parse(text))
        coded: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                # What tools read is no comment for people.
                words = token.string.lstrip("# ")
                comments += not words.startswith(("noqa", "fmt:", "type:", "pragma"))
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                coded |= set(range(token.start[0], token.end[0] + 1)) if token.string else set()
        code += len(coded - docstrings)
    return comments / code


def _docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def contract(trees: dict[str, ast.Module]) -> tuple[int, int, int]:
    """Counts the public members of `App` and of our classes that it inherits from.

    Returns:
        All of them; those that an application may define (not `final`); those of these with a default.
    """
    classes = {n.name: n for tree in trees.values() for n in tree.body if isinstance(n, ast.ClassDef)}
    members: dict[str, bool] = {}
    final: set[str] = set()
    line = ["App"]
    while line:
        node = classes.get(line.pop(0))
        if node is None:
            continue
        line += [ast.unparse(base).split("[")[0] for base in node.bases]
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                marks = [ast.unparse(each) for each in item.decorator_list]
                final |= {item.name} if "final" in marks else set()
                # A body that only raises asks for one of the application's own.
                asks = len(item.body) <= 2 and isinstance(item.body[-1], ast.Raise)
                members.setdefault(item.name, not asks and not any("abstractmethod" in mark for mark in marks))
            elif isinstance(item, ast.Assign | ast.AnnAssign):
                for target in item.targets if isinstance(item, ast.Assign) else [item.target]:
                    members.setdefault(ast.unparse(target), item.value is not None)
    public = {name: default for name, default in members.items() if not name.startswith("_")}
    own = {name: default for name, default in public.items() if name not in final}
    return len(public), len(own), sum(own.values())


def smallest_non_classifier(root: Path) -> tuple[str, int]:
    """Returns lines and name of the smallest complete application that is no classifier, and what it has to know.

    What it has to know are the names of the core and the ModelZoo that it imports.
    """
    folders = [path for path in (root / "appzoo").iterdir() if path.name in NON_CLASSIFIERS]
    found = {path.name: list(path.rglob("*.py")) for path in folders}
    found |= {path.stem: [path] for path in (root / TOYS).glob("*.py") if path.stem in NON_CLASSIFIERS}
    sizes = {name: sum(map(_lines, files)) for name, files in found.items()}
    name = min(sizes, key=sizes.__getitem__)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in found[name]]
    known = {
        f"{node.module}.{alias.name}"
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("easytransfer", "modelzoo")
        for alias in node.names
    }
    return f"{sizes[name]} ({name})", len(known)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def measure(root: Path) -> dict[str, Any]:
    """Returns what is measured of one checkout, by name."""
    paths = modules(root)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    sizes = {name: _lines(path) for name, path in paths.items()}
    # A list: methods of several classes of a module share a name.
    functions = [
        (node.end_lineno - node.lineno + 1, f"{name}.{node.name}")
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    edges = {name: imports(name, paths[name], trees[name], paths) for name in trees}
    knots, folders = circles(edges), circles(between_folders(edges))
    members, own, defaults = contract(trees)
    smallest, known = smallest_non_classifier(root)
    (length, longest), largest = max(functions), max(sizes, key=sizes.__getitem__)
    return {
        "files": len(sizes),
        "lines": sum(sizes.values()),
        "median file": int(statistics.median(sizes.values())),
        "longest file": f"{sizes[largest]} ({largest})",
        "functions": len(functions),
        "median function": int(statistics.median(length for length, _ in functions)),
        "longest function": f"{length} ({longest})",
        "circles of modules": len(knots),
        "circles of folders": "; ".join(" - ".join(knot) for knot in folders) or 0,
        "comment share": f"{comment_share(list(paths.values())):.3f}",
        "contract: members": members,
        "contract: of these not final": own,
        "contract: of these with a default": defaults,
        "smallest complete non-classifier, lines": smallest,
        "names of core and zoo that it imports": known,
    }


def main() -> None:
    """Prints a table with one column for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).resolve().parents[1]])
    roots = parser.parse_args().folders
    found = [measure(root) for root in roots]
    print("| measured | " + " | ".join(root.resolve().name for root in roots) + " |")
    print("| --- |" + " --- |" * len(roots))
    for key in found[0]:
        print(f"| {key} | " + " | ".join(str(each[key]) for each in found) + " |")


if __name__ == "__main__":
    main()
