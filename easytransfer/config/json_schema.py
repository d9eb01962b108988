"""JSON Schema of a configuration file, with which editors complete keys and underline mistakes."""

from __future__ import annotations

from typing import Any

from easytransfer.config.fields import section_class
from easytransfer.config.schema import MODES, ConfigModel

# Draft 7 is what editors agree on; https://json-schema.org/draft-07
DRAFT = "http://json-schema.org/draft-07/schema#"
# Texts that may stand for other values: `${VAR}` is replaced before they are checked, numbers such as 2e-5 are texts in
# YAML 1.1, and `none` means that a value is not set.
_TEXTS = {
    "": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
    "number": r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$",
    "null": r"^([Nn]one|[Nn]ull)?$",
}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "const")


def json_schema(config_class: type[ConfigModel], model_name: str) -> dict[str, Any]:
    """Returns the JSON Schema of a YAML or JSON file for one application, draft 7, without references.

    What several settings say together is checked by `config --check` alone.

    Args:
        config_class: Configuration model of the application.
        model_name: The name under which it is asked for.
    """
    schema = _section(config_class, config_class.model_json_schema(ref_template="{model}"))
    schema["properties"]["model_name"] |= {"default": model_name, "examples": [model_name]}
    schema["properties"]["mode"] = {"enum": list(MODES), "description": "What the file is for; a verb says it, too."}
    return {"$schema": DRAFT, "title": model_name, **schema}


def _section(config_class: type[ConfigModel], schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that stands for a section, those below it inside."""
    properties = {}
    for name, field in config_class.model_fields.items():
        below = section_class(field.annotation)
        if below is not None:
            properties[name] = _section(below, below.model_json_schema(ref_template="{model}"))
            continue
        found = schema["properties"][name]
        kinds = [_value(kind) for kind in found.get("anyOf", [found])]
        if not any(_takes_text(kind) for kind in kinds):
            names = {"number" if kind.get("type") == "integer" else kind.get("type") for kind in kinds}
            patterns = [pattern for name, pattern in _TEXTS.items() if not name or name in names]
            kinds.append({"type": "string", "pattern": "|".join(patterns)})
        value = {"anyOf": kinds} if any({*kind} - {"type"} for kind in kinds) else {"type": _types(kinds)}
        properties[name] = {"description": found.get("description", ""), **value}
        if found.get("default") is not None:
            properties[name]["default"] = found["default"]
    text = (config_class.__doc__ or "").strip().split("\n")[0]
    return {"type": "object", "description": text, "properties": properties, "additionalProperties": False}


def _value(kind: dict[str, Any]) -> dict[str, Any]:
    """Returns what may stand for one type, by the rules of `read_value`."""
    bounds = {name: kind[name] for name in _BOUNDS if name in kind}
    if "enum" in kind:
        # YAML reads a bare `true` as a boolean where the choice is the word.
        words = [word == "true" for word in kind["enum"] if word in ("true", "false")]
        return {"enum": [*kind["enum"], *words]}
    if kind["type"] == "string":
        return {"type": ["string", "number", "boolean", "array"]}
    if kind["type"] == "array":
        items = kind.get("items") or kind["prefixItems"][0]
        # A list may be written as a comma text.
        return {"anyOf": [{"type": "array", "items": _value(items), **bounds}, {"type": "string"}]}
    return {"type": kind["type"], **bounds}


def _types(kinds: list[dict[str, Any]]) -> list[str]:
    return [name for kind in kinds for name in ([kind["type"]] if isinstance(kind["type"], str) else kind["type"])]


def _takes_text(kind: dict[str, Any]) -> bool:
    return "string" in kind.get("type", "") or any(_takes_text(each) for each in kind.get("anyOf", ()))
