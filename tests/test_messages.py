"""Every flag and setting that a message names as the remedy exists where the message is printed."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from appzoo import discovery
from appzoo.cli import comparison, features, pretraining, profiling, searching, text
from appzoo.cli.zoo import zoo_parser
from appzoo.feature_config import FeatureConfig
from easytransfer.compat.command_line import OWN_FLAGS
from easytransfer.config.fields import camel, settings_of
from easytransfer.config.job import JobConfig
from easytransfer.config.original import _ADDED, _BY_MODE, _COMMON, _SETTLED
from easytransfer.serving.settings import ServingConfig

SPEAKING = {"say", "warn", "ConfigError", "DataError", "ModelError", "ResourceError", "Interrupted", "PresetError"}
# Words in messages that look like settings and are none.
NO_FLAGS = {"no-deps", "no-build-isolation", "list"}  # of pip; of `profile`, which has it
PYTHON_ARGUMENTS = {"lower_case", "user_defined_config", "append_feature_columns", "from_scratch", "safe_serialization"}


def classes() -> list[type]:
    variants = [each for application in discovery.applications().values() for each in application.variants.values()]
    return [JobConfig, *variants]


JOB = [item for each in classes() for item in settings_of(each)]
JOB_FLAGS = {name for item in JOB if item.flag for name in item.names} | set(text.OWN_FLAGS)
KEYS = {name for item in JOB for name in (*item.names, *item.keys)}
FEATURE_FLAGS = {name for item in settings_of(FeatureConfig) if item.flag for name in item.names}
FEATURE_FLAGS |= set(features.OWN_FLAGS)
PATHS = {item.path for item in JOB} | {"configuration"}
ORIGINAL = set(_ADDED) | set(_COMMON) | set(_SETTLED) | {key for keys in _BY_MODE.values() for key in keys}
BOOLEAN = {name for item in JOB if item.is_bool for name in item.names}


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {name.removeprefix("--") for name in parser._options()}


def flags_of(module: str) -> set[str]:
    """Returns the flags that the command which runs a module takes."""
    own = {item.flag for item in settings_of(ServingConfig)} | {"config", "set", "debug", "help"}
    if module.startswith(("easytransfer.serving", "appzoo.cli.serving")):
        return own
    if module.removeprefix("appzoo.") in ("cli.features", "feature_config", "jobs.vectors", "jobs.features"):
        return FEATURE_FLAGS
    if module == "appzoo.cli.pretraining":
        return JOB_FLAGS | pretraining.FLAGS
    if module == "appzoo.cli.profiling":
        return options(profiling._parser())
    found = JOB_FLAGS | (set(OWN_FLAGS) if module.startswith("easytransfer.compat") else set())
    if module.startswith(("modelzoo", "easytransfer.presets", "appzoo.cli.verbs", "appzoo.cli.zoo")):
        found = found | options(zoo_parser()) | {"check"}
    if module == "appzoo.cli.comparison":
        found = found | options(comparison._parser())
    if module == "appzoo.cli.searching":
        found = found | options(searching._parser())
    if module.startswith(("appzoo.cli.tune", "appzoo.tuning")):
        found = found | {"search", "trials", "parallel", "sampler", "pruner", "startup"}
    if module.startswith(("appzoo.cli.experiment", "appzoo.experiment")):
        found = found | {"seeds", "arms", "outputDir"}
    return found


def texts(node: ast.AST) -> str:
    """Returns the text of an expression, with `{}` for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return texts(node.left) + texts(node.right)
    if isinstance(node, ast.IfExp):
        return f"{texts(node.body)} | {texts(node.orelse)}"
    return "{}"


def messages(repository: Path) -> Iterator[tuple[str, int, str, bool]]:
    """Yields module, line, text, and whether it is the remedy of an error."""
    for package in ("easytransfer", "appzoo", "modelzoo"):
        for path in sorted((repository / package).rglob("*.py")):
            module = ".".join(path.relative_to(repository).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    parts = [(argument, False) for argument in node.args[:1] if name in SPEAKING]
                    parts += [(keyword.value, True) for keyword in node.keywords if keyword.arg == "fix"]
                elif isinstance(node, ast.Assign):
                    names = [getattr(target, "id", "").lower() for target in node.targets]
                    wanted = any(each.strip("_") in ("fix", "hint") or each.endswith("_fix") for each in names)
                    parts = [(node.value, True)] if wanted else []
                else:
                    continue
                for part, remedy in parts:
                    if (found := texts(part)).strip("{} |"):
                        yield module, node.lineno, found, remedy


@pytest.fixture(scope="module")
def found(repository: Path) -> list[tuple[str, int, str, bool]]:
    return list(messages(repository))


def test_messages_are_found(found):
    assert len(found) > 500 and sum(remedy for *_, remedy in found) > 200


def test_flags_in_messages_exist(found):
    wrong = [
        f"{module}:{line}: --{flag} in {message!r}"
        for module, line, message, _ in found
        for flag in re.findall(r"(?<![\w-])--([A-Za-z][\w-]*)", message)
        if flag not in flags_of(module) | NO_FLAGS and not ("easy_transfer_app " in message and flag in JOB_FLAGS)
    ]
    assert wrong == []


def test_flags_that_need_a_value_are_shown_with_one(found):
    wrong = [
        f"{module}:{line}: --{flag} in {message!r}"
        for module, line, message, remedy in found
        for flag in re.findall(r"(?:use|add|with|or) --([A-Za-z]\w*)(?![\w=])(?! [A-Z])", message)
        if remedy and flag in JOB_FLAGS - BOOLEAN - set(text.OWN_FLAGS)
    ]
    assert wrong == []


def test_dotted_settings_in_messages_exist(found):
    sections = {path.partition(".")[0] for path in PATHS if "." in path} | {key.partition(".")[0] for key in ORIGINAL}
    dotted = rf"(?<![\w./])((?:{'|'.join(sorted(sections))})\.[a-z]\w*(?:\.[a-z]\w*)*)(?![\w/(])"
    known = PATHS | ORIGINAL
    wrong = [
        f"{module}:{line}: {path} in {message!r}"
        for module, line, message, _ in found
        for path in re.findall(dotted, message)
        if path not in known and path.partition(".")[2] not in KEYS | {"safetensors", "ckpt"}
    ]
    assert wrong == []


def test_camel_case_settings_in_messages_exist(found):
    names = JOB_FLAGS | {item.flag for item in settings_of(ServingConfig)} | {camel(key) for key in KEYS}
    names |= FEATURE_FLAGS
    wrong = [
        f"{module}:{line}: {name} in {message!r}"
        for module, line, message, remedy in found
        for name in re.findall(r"(?<![\w.`/-])([a-z]+(?:[A-Z][a-z]+)+)(?![\w.(])", message)
        if remedy and name not in names
    ]
    assert wrong == []


def test_settings_given_a_value_in_remedies_exist(found):
    wrong = [
        f"{module}:{line}: {name} in {message!r}"
        for module, line, message, remedy in found
        for name in re.findall(r"(?<![\w.-])([a-z]+(?:_[a-z0-9]+)+)(?:=|\b)", message)
        if remedy and f"{name}=" in message and name not in KEYS | PYTHON_ARGUMENTS
    ]
    assert wrong == []
