"""The verb `new-app`: writes an application that trains at once, to go on from."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import keyword
import random
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from appzoo import discovery
from appzoo.cli import app_parts as parts
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.errors import ConfigError, ResourceError
from easytransfer.run.log import say

# What the sample is drawn from: two numbers a row, of these.
_LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)
# Longer names make lines that no one reads.
_LONGEST = 40
_TRAIN_ROWS, _DEV_ROWS = 96, 32
# A checkout of the project has this file; an application then goes into its rooms.
_MARK = Path("appzoo", "discovery.py")


def new_app(arguments: Sequence[str]) -> dict[str, Any]:
    """Writes the folder of an application: configuration, app, sample, smoke configuration, test and README.

    Raises:
        ConfigError: The name cannot be used, or something is there already.
        ResourceError: The folder cannot be written.
    """
    options = _parser().read(arguments)
    name, folder = options["name"], options["folder"]
    _check_name(name)
    inside = (folder / _MARK).is_file()
    if not inside and importlib.util.find_spec(name) is not None:
        raise ConfigError("a module of this name is installed", received=name, fix="choose another name")
    files = {folder / path: text for path, text in _files(name, options["input"], options["target"], inside).items()}
    there = [path for path in _roots(folder, name, inside) if path.exists()]
    if there:
        raise ConfigError(f"{there[0]} exists", fix="choose another name, or move it away")
    _write(folder, files)
    _say_next(folder, name, inside)
    return {"application": name, "inside": inside, "files": [str(path) for path in files]}


def _parser() -> Parser:
    parser = Parser(
        prog="easy_transfer_app new-app",
        description="Write the folder of a new application: config, app, test, README, and a sample that it trains on.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the application, such as gestures or price_of_houses")
    for flag, known in (("input", parts.INPUTS), ("target", parts.TARGETS)):
        told = "; ".join(f"{kind}: {part.text}" for kind, part in known.items())
        parser.add_argument(f"--{flag}", required=True, choices=list(known), help=told)
    parser.add_argument(
        "--folder",
        type=lambda text: Path(expand_home(text)),
        default=Path("."),
        help="where to: a package of its own is written there, or, in a checkout of EasyTransfer, one more application "
        "of appzoo; default this folder",
    )
    return parser


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > _LONGEST:
        accepted = f"lower-case words with _ between, {_LONGEST} characters at most, such as gestures"
        raise ConfigError("an application has a name that Python can import", received=name, accepted=accepted)
    if name in discovery.applications():
        raise ConfigError("an application of this name exists", received=name, fix="choose another name")


def _roots(folder: Path, name: str, inside: bool) -> list[Path]:
    if not inside:
        return [folder / name]
    return [folder / "appzoo" / name, folder / "examples" / name, folder / "tests" / "appzoo" / f"test_{name}.py"]


def _files(name: str, input_kind: str, target_kind: str, inside: bool) -> dict[str, str]:
    """Returns text by path."""
    source, target = parts.INPUTS[input_kind], parts.TARGETS[target_kind]
    base = "" if inside else f"{name}/"
    package, folder, sample, test = (
        (f"appzoo.{name}", f"appzoo/{name}", f"examples/{name}", f"tests/appzoo/test_{name}.py")
        if inside
        else (name, name, "sample", f"tests/test_{name}.py")
    )
    title = "".join(word.capitalize() for word in name.split("_"))
    takes = ", ".join(filter(None, [source.takes, "hidden_size: int", "outputs: int"]))
    gives = ", ".join(filter(None, [source.gives, "hidden_size", "outputs"]))
    doc = [*filter(None, [source.doc]), "hidden_size: Units of the hidden layer.", "outputs: Numbers that come out."]
    lines = [
        "from easytransfer import keras",
        "from easytransfer.app.assets import Assets",
        "from easytransfer.app.contract import App",
        "from easytransfer.app.inputs.base import Input",
        "from easytransfer.app.targets.base import Target",
        *source.imports,
        *(Template(line).substitute(package=package) for line in target.imports),
        f"from {package}.config import {title}Config",
    ]
    known = {
        "name": name,
        "title": title,
        "distribution": name.replace("_", "-"),
        "package": package,
        "folder": folder,
        "sample": sample,
        "test": test,
        "up": "2" if inside else "1",
        # Where EasyTransfer is another package, its imports stand beside those of TensorFlow.
        "gap": "" if inside else "<none>",
        "imports": _imports(lines, package, inside),
        "typing": "\nfrom typing import Literal\n" if "Literal" in source.settings else "",
        "settings": source.settings + target.settings,
        "defaults": target.defaults,
        "build_inputs": source.build,
        "build_target": target.build,
        "network_takes": takes,
        "network_arguments": gives,
        "network_doc": "\n".join(f"        {line}" for line in doc),
        "layers": source.layers,
        "features": source.features,
        "outputs": target.outputs,
        "key": target.key,
        "metric": target.metric,
        "goal": target.goal,
        "measured": target.measured,
        "input_text": source.text,
        "input_column": source.column,
        "target_text": target.text,
        "target_column": target.column,
        "imports_of_test": _imports_of_test(bool(source.bad), inside),
        "install": "" if inside else parts.INSTALL,
        "target_line": "\n- `target.py`: how the numbers are read, trained on, measured and written."
        * (target_kind == "vector"),
    }  # fmt: skip
    known["bad"] = Template(parts.BAD).substitute(known, cell=source.bad) if source.bad else ""
    train, dev = _sample(input_kind, target_kind)
    templates = {
        f"{base}{folder}/__init__.py": '"""$title: $target_text from $input_text."""\n',
        f"{base}{folder}/config.py": parts.CONFIG,
        f"{base}{folder}/app.py": parts.APP,
        **({f"{base}{folder}/target.py": parts.TARGET} if target_kind == "vector" else {}),
        f"{base}{folder}/configs/smoke.yaml": parts.SMOKE,
        f"{base}{test}": parts.TEST,
        f"{base}{f'{folder}/' if inside else ''}README.md": parts.README,
        **({} if inside else {f"{base}pyproject.toml": parts.PROJECT}),
    }
    files = {path: Template(text).substitute(known).replace("<none>\n", "") for path, text in templates.items()}
    return files | {f"{base}{sample}/train.jsonl": train, f"{base}{sample}/dev.jsonl": dev}


def _imports(lines: Sequence[str], package: str, inside: bool) -> str:
    """Returns the imports of `app.py` in the order that ruff has them."""
    own = [line for line in lines if f"from {package}." in line]
    core = sorted(line for line in lines if line not in own)
    if inside:
        return "\n".join(["import tensorflow as tf", "", *sorted(own), *core])
    return "\n".join(["import tensorflow as tf", *core, "", *sorted(own)])


def _imports_of_test(refused: bool, inside: bool) -> str:
    """Returns the imports of the test in the same order; `refused`: of one with a row that cannot be used."""
    others = ["import numpy as np", *["import pytest"] * refused]
    core = ["from easytransfer.errors import DataError"] * refused
    if inside:
        return "\n".join([*others, "", "import easytransfer", *core])
    return "\n".join(["import easytransfer", *others, *core])


def _sample(input_kind: str, target_kind: str) -> tuple[str, str]:
    """Returns the tables for training and evaluation, the same every time."""
    draw = random.Random(0)
    rows = [_row(draw, input_kind, target_kind) for _ in range(_TRAIN_ROWS + _DEV_ROWS)]
    lines = [json.dumps(row) + "\n" for row in rows]
    return "".join(lines[:_TRAIN_ROWS]), "".join(lines[_TRAIN_ROWS:])


def _row(draw: random.Random, input_kind: str, target_kind: str) -> dict[str, Any]:
    """Returns a row that two numbers decide: what goes in shows them, what comes out is made of them."""
    first, second = draw.choice(_LEVELS), draw.choice(_LEVELS)
    while target_kind == "class" and first + second == 0:
        second = draw.choice(_LEVELS)
    column, answer = parts.INPUTS[input_kind].column, parts.TARGETS[target_kind].column
    answers = {
        "class": "high" if first + second > 0 else "low",
        "number": first + second,
        "vector": [first, second],
    }
    return {column: _cell(draw, input_kind, first, second), answer: answers[target_kind]}


def _cell(draw: random.Random, kind: str, first: float, second: float) -> Any:
    def near(value: float) -> float:
        return round(value + draw.gauss(0, 0.1), 3)

    if kind == "numbers":
        return [near(first), near(first), near(second), near(second)]
    if kind == "sequence":
        return [number for _ in range(draw.randint(2, 6)) for number in (near(first), near(second), near(0))]
    if kind == "text":
        words = [word for up, down, value in (("warm", "cold", first), ("dry", "wet", second))
                 for word in [up] * round(2 + 2 * value) + [down] * round(2 - 2 * value)]  # fmt: skip
        draw.shuffle(words)
        return " ".join(words)
    from PIL import Image

    pixels = [128 + 100 * (first if column < 4 else second) + draw.gauss(0, 5) for _ in range(8) for column in range(8)]
    image, file = Image.frombytes("L", (8, 8), bytes(min(max(round(pixel), 0), 255) for pixel in pixels)), io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _write(folder: Path, files: dict[Path, str]) -> None:
    """Writes all files, or none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-app-") as scratch:
            for number, text in enumerate(files.values()):
                Path(scratch, str(number)).write_text(text, encoding="utf-8")
            for number, path in enumerate(files):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(Path(scratch, str(number)), path)
    except OSError as error:
        raise ResourceError(f"cannot write {error.filename}: {error.strerror}", fix="give another folder") from error


def _say_next(folder: Path, name: str, inside: bool) -> None:
    if inside:
        say(f"{folder} is a checkout of EasyTransfer: {name} is one more application of appzoo")
        say(f"next, in {folder}: easy_transfer_app train --config appzoo/{name}/configs/smoke.yaml")
        say("what the project's own tests want of it besides: docs/writing-applications.md")
        return
    say(f"next, in {folder / name}: pip install --no-deps --no-build-isolation -e .")
    say(f"then: easy_transfer_app train --config {name}/configs/smoke.yaml")
