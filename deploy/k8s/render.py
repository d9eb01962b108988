"""Fills a manifest of this folder with values: python deploy/k8s/render.py serving | kubectl apply -f -

    python deploy/k8s/render.py mpijob --values mine.yaml --set workers=8 --set image=registry.example/ez:2.0.0

`values.yaml` has every value with what it means; `--values` is a file with some of them, `--set` is one. Values are put
in after the manifest is parsed, so none can add to it: a text that is `${name}` and nothing else becomes the value with
its type, and in a longer text the value is written out. Needs PyYAML, which EasyTransfer needs too.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
MANIFESTS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "values")
_NAME = re.compile(r"\$\{(\w+)\}")


class Refused(Exception):
    """Values that do not fit; the message is for the user."""


def load_values(files: list[Path], settings: list[str]) -> dict[str, Any]:
    """Returns the values of `values.yaml`, then of the files, then of `name=value` settings; later ones win."""
    values = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))
    given = [(str(path), yaml.safe_load(path.read_text(encoding="utf-8"))) for path in files]
    for text in settings:
        name, _, value = text.partition("=")
        given.append((f"--set {text}", {name: yaml.safe_load(value)}))
    for source, changes in given:
        if not isinstance(changes, dict) or set(changes) - set(values):
            unknown = ", ".join(sorted(set(changes) - set(values))) if isinstance(changes, dict) else changes
            raise Refused(f"{source}: unknown value {unknown}; accepted: {', '.join(values)}")
        values.update(changes)
    missing = [name for name, value in values.items() if value is None or value == ""]
    if missing:
        raise Refused(f"no value for {', '.join(missing)}; write it into a file for --values")
    return values


def fill(node: Any, values: dict[str, Any]) -> Any:
    """Returns a parsed manifest with every `${name}` replaced."""
    if isinstance(node, dict):
        return {fill(key, values): fill(item, values) for key, item in node.items()}
    if isinstance(node, list):
        return [fill(item, values) for item in node]
    if not isinstance(node, str):
        return node
    whole = _NAME.fullmatch(node)
    return values[whole[1]] if whole else _NAME.sub(lambda found: str(values[found[1]]), node)


def render(manifest: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the objects of a manifest."""
    text = (FOLDER / f"{manifest}.yaml").read_text(encoding="utf-8")
    return [fill(document, values) for document in yaml.safe_load_all(text)]


def main() -> int:
    """Prints the objects; returns 2 for values that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", choices=MANIFESTS)
    parser.add_argument("--values", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    try:
        objects = render(options.manifest, load_values(options.values, options.set))
    except (Refused, OSError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
