"""The verb `zoo`: its commands, and what they print for people."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home

_MODEL = "name of the ModelZoo, folder, or hf://owner/name@revision of the Hugging Face hub"
_HEADING = ("name", "family", "parameters", "MB", "for", "licence", "here")
_WIDEST_LICENCE = 24
_NONE = "no model is like that; `easy_transfer_app zoo list` shows all"


def zoo(arguments: Sequence[str]) -> Any:
    """Runs one of the ModelZoo commands and returns what it found."""
    options = zoo_parser().read(arguments)
    command, as_json = options.pop("command"), options.pop("json", True)
    from modelzoo import commands

    functions = {
        "list": commands.list_models,
        "show": commands.show,
        "verify": commands.verify,
        "import": commands.import_model,
        "export": commands.export_model,
        "fetch": commands.fetch,
        "make-tiny": commands.make_tiny,
        "new": commands.new,
    }
    found = functions[command](**options)
    if as_json:
        return found
    return _shown(found) if command == "show" else _table(found)


def zoo_parser() -> argparse.ArgumentParser:
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
    listing.add_argument("pattern", nargs="?", metavar="NAME", help="part of the name; * and ? are wildcards")
    listing.add_argument("--type", metavar="TYPE", help="family, such as bert or cnn")
    listing.add_argument("--language", metavar="CODE", help="language of the texts, such as en")
    listing.add_argument("--licence", metavar="TEXT", help="part of the licence, such as apache")
    here = listing.add_mutually_exclusive_group()
    here.add_argument("--present", action="store_true", default=None, help="only those that are on this machine")
    here.add_argument("--missing", dest="present", action="store_false", help="only those that are not")
    listing.add_argument("--json", action="store_true", help="one line of JSON with all facts")
    showing = commands.add_parser("show", parents=[in_zoo], help="facts of one model, and how to use it")
    showing.add_argument("name", help=_MODEL)
    showing.add_argument("--json", action="store_true", help="one line of JSON with all facts")
    verifying = commands.add_parser(
        "verify", parents=[in_zoo, lenient], help="check files, checksums and a forward pass"
    )
    verifying.add_argument("name", help=_MODEL)
    fetching = commands.add_parser("fetch", parents=[in_zoo], help="download one model, or go on with a download")
    fetching.add_argument("name", help=_MODEL)
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
    tiny.add_argument("--type", dest="family", default="bert", help="model family, or xlm-roberta")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument(
        "--vocab", metavar="FILE", type=expand_home, help="vocabulary to use instead of the built-in small one"
    )
    making = commands.add_parser("new", parents=[writing], help="train a vocabulary, for a model without weights yet")
    making.add_argument("target", type=expand_home)
    making.add_argument("--texts", metavar="FILES", required=True, help="text files, a sentence a line")
    making.add_argument("--type", dest="family", default="bert", help="model family: bert, albert, roberta or t5")
    making.add_argument("--vocabSize", dest="vocab_size", type=int, default=8000, help="pieces; default 8000")
    making.add_argument("--lowerCase", dest="lower_case", action="store_true", help="lower-case all text")
    for flag, name, what in (
        ("--layers", "num_hidden_layers", "layers of the network"),
        ("--hidden", "hidden_size", "its width"),
        ("--heads", "num_attention_heads", "attention heads"),
        ("--intermediate", "intermediate_size", "width of the feed-forward part; default 4 times --hidden"),
        ("--positions", "max_position_embeddings", "longest sequence"),
    ):
        making.add_argument(flag, dest=name, type=int, metavar="N", help=f"{what}; default that of the family")
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns models as aligned columns, and below them how to get one that is not here."""
    if not rows:
        return _NONE
    lines = [_HEADING, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    notes = [
        ("no", "to get a model: easy_transfer_app zoo fetch NAME --offline=false"),
        ("no?", "no?: as no, from an address that is listed and was not reached when the list was made"),
        ("part", "part: its download was interrupted; the same command completes it"),
    ]
    told = [note for state, note in notes if any(line[-1].startswith(state) for line in lines[1:])]
    return "\n".join([*shown, *([""] if told else []), *told])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["family"] or "-",
        f"{row['parameters'] / 1e6:.1f}M" if row["parameters"] else "-",
        _megabytes(row),
        _input(row),
        textwrap.shorten(row["licence"] or "-", _WIDEST_LICENCE, placeholder="..."),
        "part" if row["lacks"] else "yes" if row["folder"] else "no?" if row["get_note"] else "no",
    )


def _megabytes(facts: Mapping[str, Any]) -> str:
    """Returns the size of the files, or, marked by ~, that of the weights in float32."""
    if not facts["bytes"]:
        return "-"
    return f"{'' if facts['folder'] else '~'}{facts['bytes'] / 1e6:,.{0 if facts['bytes'] >= 1e7 else 1}f}"


def _input(facts: Mapping[str, Any]) -> str:
    """Returns the language of texts, or height and width of images."""
    language, image = facts.get("language"), (facts.get("input") or facts.get("config") or {}).get("image_size")
    if language:
        return str(language)
    return "x".join(map(str, [image] * 2 if isinstance(image, int) else image)) if image else "-"


def _shown(facts: Mapping[str, Any]) -> str:
    """Returns the facts of one model as lines, how to get it and how to use it last."""
    return "\n".join([facts["name"], *(f"  {what:<12}{text}" for what, text in _facts(facts) if text)])


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "family", f"{facts['family']} (model_type {facts['type']})"
    yield "aliases", ", ".join(facts.get("aliases") or ())
    yield "parameters", f"{facts['parameters']:,}" if facts.get("parameters") else ""
    sizes = [f"{facts[key]} {key}" for key in ("layers", "heads") if facts.get(key)]
    sizes += [f"{key} {facts[key]:,}" for key in ("hidden", "vocab") if facts.get(key)]
    yield "sizes", ", ".join(sizes)
    yield "files", f"{_megabytes(facts)} MB{'' if facts['folder'] else ' (weights in float32)'}"
    yield "for", _input(facts)
    yield "licence", facts.get("licence") or "not known"
    yield "origin", _origin(facts.get("origin") or {})
    yield "here", facts["folder"] or "no"
    yield "lacks", ", ".join(facts["lacks"])
    yield "checksums", facts["get_note"] or ""
    yield "get it", facts["get"] or ""
    yield "use it", facts["example"]


def _origin(origin: Mapping[str, Any]) -> str:
    parts = {key: value for key, value in origin.items() if key != "kind" and isinstance(value, str)}
    places = [*parts.values(), *origin.get("urls", ())]
    return f"{origin.get('kind', 'not known')}{': ' if places else ''}{', '.join(places)}"
