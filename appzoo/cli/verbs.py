"""The verbs that run no job: `apps`, `config`, `zoo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from appzoo import discovery
from easytransfer.config.draft import Draft
from easytransfer.config.fields import section_texts
from easytransfer.config.files import commented_yaml, load_file, take_mode
from easytransfer.config.job import JobConfig
from easytransfer.config.original import from_original_json, is_original
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.errors import ConfigError
from easytransfer.image.size import size_text
from easytransfer.run import log

# Columns of `zoo list`; `zoo list --json` and `zoo show` have all.
LIST_COLUMNS = ("name", "family", "layers", "parameters", "takes", "licence", "here")


def apps(arguments: Sequence[str]) -> str:
    """Lists model names, one line each, with what they do."""
    parser = Parser(prog="easy_transfer_app apps", description="List the applications and their variants.")
    parser.read(arguments)
    lines = []
    for application in discovery.applications().values():
        for name, config_class in zip(application.model_names, application.variants.values(), strict=True):
            lines.append(f"{name:<28}{section_texts(config_class)['']}".rstrip())
    return "\n".join(lines)


def config(arguments: Sequence[str]) -> str | dict[str, Any]:
    """Prints the default configuration of an application, or checks a file."""
    parser = Parser(prog="easy_transfer_app config", description="Print the full default configuration, or check one.")
    parser.add_argument("app", nargs="?", help="application or model name, such as text_classify_bert")
    parser.add_argument("--check", metavar="FILE", type=expand_home, help="check a YAML or JSON configuration instead")
    options = parser.read(arguments)
    if options["check"]:
        return check_file(options["check"])
    name = options["app"]
    if not name:
        raise ConfigError("config needs an application or --check FILE", accepted=list(discovery.applications()))
    application = discovery.applications().get(name)
    if application is not None:
        name = application.model_names[0]
    return commented_yaml(discovery.config_class(name), {"model_name": name})


def check_file(path: str) -> dict[str, Any]:
    """Checks keys, types and bounds of a configuration file and returns what it is for."""
    values = load_file(path)
    mode = take_mode(values, path)
    original = is_original(values)
    if original:
        values = from_original_json(values, mode or "train", log.warn)
    draft = Draft()
    draft.update(values, path)
    name = draft.get("model_name")
    if not name:
        discovery.check_named(draft.origins)
    config_class = discovery.config_class(str(name)) if name else JobConfig
    draft.build(config_class)
    form = "original" if original else "easytransfer 2"
    return {"file": path, "valid": True, "form": form, "model_name": name, "mode": mode}


def zoo(arguments: Sequence[str]) -> Any:
    """Runs one of the ModelZoo commands and returns what it found."""
    options = _zoo_parser().read(arguments)
    command = options.pop("command")
    from modelzoo import commands

    if command == "list":
        found = commands.list_models(options["zoo"])
        return found if options["json"] else _table([_listed(row) for row in found], LIST_COLUMNS)
    functions = {
        "show": commands.show,
        "verify": commands.verify,
        "import": commands.import_model,
        "export": commands.export_model,
        "fetch": commands.fetch,
        "make-tiny": commands.make_tiny,
    }
    return functions[command](**options)


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row of `zoo list` as people read it: what the model takes, and where it is or how to get it."""
    form = row["input"]
    size = size_text(form["image_size"]) if form else None
    return {**row, "takes": f"images, {size}" if form else row["language"], "here": row["folder"] or row["get"]}


def _zoo_parser() -> argparse.ArgumentParser:
    """Builds the parser; destinations are the parameter names of `modelzoo.commands`."""
    parser = Parser(prog="easy_transfer_app zoo", description="The ModelZoo: pre-trained models by name.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    in_zoo = argparse.ArgumentParser(add_help=False)
    in_zoo.add_argument("--zoo", "--modelZooBasePath", metavar="DIR", help="root of the ModelZoo")
    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument("--overwrite", action="store_true", help="replace what is there")
    lenient = argparse.ArgumentParser(add_help=False)
    lenient.add_argument(
        "--allowMissing", dest="allow_missing", metavar="REGEX", help="weights that may be absent, by name"
    )
    listing = commands.add_parser("list", parents=[in_zoo], help="known models and whether they are here")
    listing.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    commands.add_parser("show", parents=[in_zoo], help="facts of one model").add_argument("name")
    verifying = commands.add_parser(
        "verify", parents=[in_zoo, lenient], help="check files, checksums and a forward pass"
    )
    verifying.add_argument("name")
    fetching = commands.add_parser("fetch", parents=[in_zoo], help="download one model")
    fetching.add_argument("name")
    fetching.add_argument("--url", action="append", help="address of the archive; may be repeated for mirrors")
    fetching.add_argument("--sha256", help="expected checksum of the archive")
    fetching.add_argument(
        "--offline", type=_boolean, default=True, metavar="true|false", help="false allows the network; default true"
    )
    importing = commands.add_parser("import", parents=[writing, lenient], help="convert a foreign checkpoint")
    importing.add_argument("source", type=expand_home)
    importing.add_argument("target", type=expand_home)
    importing.add_argument("--format", choices=("auto", "hf", "google", "ez"), default="auto")
    exporting = commands.add_parser("export", parents=[in_zoo, writing, lenient], help="write a model in another form")
    exporting.add_argument("name_or_path", metavar="name")
    exporting.add_argument("target", type=expand_home)
    exporting.add_argument("--format", choices=("hf", "google", "ez"), required=True)
    tiny = commands.add_parser("make-tiny", parents=[writing], help="write a tiny model with random weights, for tests")
    tiny.add_argument("target", type=expand_home)
    tiny.add_argument("--type", dest="family", default="bert", help="model family")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument(
        "--vocab", metavar="FILE", type=expand_home, help="vocabulary to use instead of the built-in small one"
    )
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Formats the named entries of records as aligned columns."""
    cells = [list(names), *([_cell(name, row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.1f}M" if name == "parameters" else str(value)
