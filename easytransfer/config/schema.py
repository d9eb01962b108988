"""Base of every configuration model: typed fields with one sentence each, unknown keys refused by name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MODES = ("train", "evaluate", "predict", "export", "preprocess")


def setting(
    default: Any,
    text: str,
    *,
    flag: str | None = None,
    advanced: bool = False,
    aliases: tuple[str, ...] = (),
    modes: str = "TEPXS",
    required: str = "",
    **bounds: Any,
) -> Any:
    """Declares one configuration field; the field is the single source of its flag, help text and bounds.

    Args:
        default: Value when nothing is given.
        text: One sentence, shown by `--help` and `config`.
        flag: Name of the command-line flag; the camelCase of the field name when None.
        advanced: True when the key belongs to `--advancedParameters` instead of having a flag of its own.
        aliases: Further accepted names, as flags or advanced keys.
        modes: Modes the field applies to, letters of T(rain) E(valuate) P(redict) (e)X(port) S (preprocess).
        required: Modes in which it must be given, same letters.
        **bounds: Pydantic bounds such as `ge`, `gt`, `le`.
    """
    extra = {"flag": flag, "advanced": advanced, "aliases": list(aliases), "modes": modes, "required": required}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


class ConfigModel(BaseModel):
    """A configuration section. Unknown keys are errors; values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())
