"""The verbs that run no job: `apps`, `config`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from appzoo import discovery
from easytransfer.config.draft import Draft
from easytransfer.config.fields import section_texts
from easytransfer.config.files import commented_yaml, load_file, take_mode
from easytransfer.config.job import JobConfig
from easytransfer.config.json_schema import json_schema
from easytransfer.config.original import from_original_json, is_original
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.errors import ConfigError
from easytransfer.run import log


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
    """Prints the default configuration of an application or its JSON Schema, or checks a file."""
    parser = Parser(prog="easy_transfer_app config", description="Print the full default configuration, or check one.")
    parser.add_argument("app", nargs="?", help="application or model name, such as text_classify_bert")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of its files, for editors")
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
    config_class = discovery.config_class(name)
    if options["schema"]:
        return json.dumps(json_schema(config_class, name), indent=2, ensure_ascii=False)
    return commented_yaml(config_class, {"model_name": name})


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
