"""Checked conversion of model folders from one form to another."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, resolve
from modelzoo.loading import family_module, family_of, load_backbone

if TYPE_CHECKING:
    from easytransfer import keras
    from easytransfer.text.tokenizer import Tokenizer
    from modelzoo.encoder_heads import PretrainingHead
    from modelzoo.vision_language.heads import VisionLanguageHeads


def import_model(
    source: str | Path,
    target: str | Path,
    format: str = "auto",
    *,
    allow_missing: str | None = None,
    overwrite: bool = False,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Turns a Google, Hugging Face or EasyTransfer model into a folder of this platform.

    The result is in Hugging Face's form with a manifest, so `transformers` reads it too. Prints the table
    variable, source, shape on stderr. Nothing is written when a check fails.

    Args:
        source: Model folder, TensorFlow checkpoint prefix or zoo name; only read.
        target: New folder.
        format: `google`, `hf`, `ez`, or `auto` to find out.
        allow_missing: Regular expression of weight names that the source may lack.
        overwrite: Replace an existing folder.
        facts: Further entries of the manifest.

    Raises:
        ModelError: The source is not complete or not readable, or the target exists.
    """
    preset = resolve(source)
    found = _read(preset, format, allow_missing)
    forward(preset, allow_missing)
    entries: dict[str, Any] = {
        "name": Path(target).name,
        "type": found.config.model_type,
        "origin": {"kind": "import", "format": found.form},
        **(facts or {}),
    }
    if allow_missing:
        entries["allow_missing"] = allow_missing
    _formats(preset).write_folder(
        target, "hf", found.config, found.values, source=preset.folder, facts=entries, overwrite=overwrite
    )
    return _result(found, target, "hf", allow_missing)


def export_model(
    name_or_path: str | Path,
    target: str | Path,
    format: str,
    *,
    source_format: str = "auto",
    zoo: str | Path | None = None,
    allow_missing: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model in another form: `google`, `hf` or `ez`. Prints the table variable, source, shape on stderr.

    The result is read back: its weights and a forward pass must equal those of the source.

    Raises:
        ModelError: The model is not complete, has another form than `source_format`, the format is unknown, or the
            target exists.
    """
    preset = resolve(name_or_path, zoo)
    allow_missing = allow_missing or preset.facts.get("allow_missing")
    if Path(target).resolve() == preset.folder.resolve() and catalogue.find(preset.name):
        raise ModelError(f"{target} is the ModelZoo's own copy of {preset.name}", fix="choose another folder")
    found = _read(preset, source_format, allow_missing)
    if source_format not in ("auto", (actual := _formats(preset).detect_form(preset.folder, preset.checkpoint))):
        raise ModelError(
            f"{preset.folder} has another form", received=actual, accepted=source_format, fix=f"name the form {actual}"
        )
    backbone = forward(preset, allow_missing)
    _formats(preset).write_folder(target, format, found.config, found.values, source=preset.folder, overwrite=overwrite)
    _compare_outputs(backbone, target, allow_missing)
    return _result(found, target, format, allow_missing)


def export_backbone(
    backbone: keras.Model,
    tokenizer: Tokenizer,
    target: str | Path,
    format: str,
    source: str | Path,
    overwrite: bool = False,
    head: PretrainingHead | VisionLanguageHeads | None = None,
) -> dict[str, Any]:
    """Writes an encoder that is in memory, such as a trained one, as `export_model` does.

    Args:
        backbone: Encoder.
        tokenizer: Its tokenizer.
        target: New folder.
        format: `google`, `hf` or `ez`.
        source: Where its weights are from, for the result.
        overwrite: Replace an existing folder.
        head: Head of a pre-training, to go on with.
    """
    family = catalogue.family_of_type(str(backbone.config.model_type), backbone.config.to_dict())
    formats = family_module(str(family), "formats")
    values = {**backbone.export_weights(), **(head.export_weights() if head is not None else {})}
    formats.write_folder(target, format, backbone.config, values, tokenizer=tokenizer, overwrite=overwrite)
    print("\n".join(f"{name}  <- {source}  {list(value.shape)}" for name, value in values.items()), file=sys.stderr)
    _compare_outputs(backbone, target, None)
    again = formats.read_folder(Path(target))
    return _facts(again, target, format, str(source))


def forward(preset: Preset, allow_missing: str | None = None) -> keras.Model:
    """Loads a model strictly and runs it once on an example.

    Returns:
        The loaded backbone.

    Raises:
        ModelError: The weights do not fit or the outputs are not finite.
    """
    import numpy as np

    path = preset.folder / preset.checkpoint if preset.checkpoint else preset.folder
    backbone = load_backbone(path, allow_missing=allow_missing)
    if not np.isfinite(backbone.example_outputs()).all():
        raise ModelError(f"{preset.folder} gives values that are not finite", fix="its weights are damaged")
    return backbone


def _compare_outputs(backbone: keras.Model, target: str | Path, allow_missing: str | None) -> None:
    """Checks that the written model computes the same as the one it was made from."""
    from easytransfer.savedmodel.rounding import within_rounding

    written = forward(resolve(Path(target).resolve()), allow_missing)
    # Weights that were missing start from random values on both sides, by name and seed.
    if not within_rounding(written.example_outputs(), backbone.example_outputs()):
        raise ModelError(
            f"{target} computes other values than the model it was made from",
            fix="do not use it; import or export again from the source, which is as it was",
        )


def _formats(preset: Preset) -> Any:
    family = family_of(preset)
    if importlib.util.find_spec(f"modelzoo.{family}.formats") is None:
        raise ModelError(f"models of the family {family} have one form only", fix=f"copy the folder {preset.folder}")
    return family_module(family, "formats")


def _read(preset: Preset, form: str, allow_missing: str | None) -> Any:
    formats = _formats(preset)
    if form != "auto" and form not in formats.FORMS:
        raise ModelError("unknown model format", received=form, accepted=("auto", *formats.FORMS))
    found = formats.read_folder(preset.folder, form=None if form == "auto" else form, checkpoint=preset.checkpoint)
    print(found.report.table(), file=sys.stderr)
    found.report.check(allow_missing)
    return found


def _result(found: Any, target: str | Path, form: str, allow_missing: str | None) -> dict[str, Any]:
    """Reads the written folder back, compares its weights, and returns what to tell the user."""
    preset = resolve(Path(target).resolve())
    again = _formats(preset).read_folder(preset.folder)
    again.report.check(allow_missing)
    different = [name for name, value in found.values.items() if not (again.values.get(name) == value).all()]
    if different or len(again.report.matched) != len(found.report.matched):
        raise ModelError(f"{target} differs from its source", received=", ".join(different[:5]) or "missing weights")
    return _facts(found, target, form, found.report.source)


def _facts(found: Any, target: str | Path, form: str, source: str) -> dict[str, Any]:
    return {
        "folder": str(target),
        "source": source,
        "from": found.form,
        "to": form,
        "parts": list(found.parts),
        "weights": len(found.report.matched),
        "missing": found.report.allowed,
        "unexpected": found.report.unexpected,
        "ignored": len(found.report.ignored),
        "files": sorted(path.name for path in Path(target).iterdir()),
    }
