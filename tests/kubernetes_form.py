"""Checks Kubernetes objects against the excerpt of the API in tests/fixtures/kubernetes.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

API = yaml.safe_load((Path(__file__).parent / "fixtures" / "kubernetes.yaml").read_text(encoding="utf-8"))
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_SIMPLE = {"str": str, "int": int, "bool": bool, "port": (int, str)}


def problems(value: Any, kind: Any, place: str) -> list[str]:
    """Returns what is wrong with a value of a type of the excerpt; empty when nothing is."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{place}: not a list"]
        return [problem for i, item in enumerate(value) for problem in problems(item, kind[0], f"{place}[{i}]")]
    if isinstance(kind, dict):
        (inner,) = kind  # {T} is how YAML writes a mapping with the one key T
        return [p for key, item in dict(value).items() for p in problems(item, inner, f"{place}.{key}")]
    if kind.startswith("="):
        return [] if value == kind[1:] else [f"{place}: {value!r} is not {kind[1:]}"]
    if kind in API:
        return _object(value, API[kind], place)
    if kind == "map":
        wrong = not isinstance(value, dict) or not all(isinstance(t, str) for pair in value.items() for t in pair)
        return [f"{place}: not a map of strings"] if wrong else []
    if kind == "quantity":
        return [] if _QUANTITY.fullmatch(str(value)) else [f"{place}: {value!r} is no quantity"]
    if kind in _SIMPLE:
        # A bool is an int to Python, not to the API.
        fits = isinstance(value, _SIMPLE[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{place}: {value!r} is no {kind}"]
    return [] if value in kind.split("|") else [f"{place}: {value!r} is none of {kind}"]


def _object(value: Any, fields: dict[str, Any], place: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{place}: not an object"]
    known = {name.rstrip("!"): kind for name, kind in fields.items()}
    found = [f"{place}: unknown field {name}" for name in value if name not in known]
    found += [f"{place}: {name[:-1]} is missing" for name in fields if name.endswith("!") and name[:-1] not in value]
    return found + [p for name in value if name in known for p in problems(value[name], known[name], f"{place}.{name}")]


def object_problems(found: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a whole object, and with how its parts belong together."""
    kind = found.get("kind")
    if kind not in API:
        return [f"unknown kind {kind}"]
    name = found["metadata"]["name"]
    wrong = problems(found, kind, kind)
    wrong += [] if _NAME.fullmatch(name) else [f"{name!r} is no name of an object"]
    for pod in pods(found):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            wrong += [f"{container['name']}: no volume {name}" for name in mounted - volumes]
    return wrong


def pods(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the pod templates of an object."""
    spec = found.get("spec", {})
    roles = spec.get("mpiReplicaSpecs")
    if roles:
        return [role["template"] for role in roles.values()]
    return [spec["template"]] if "template" in spec else []
