"""Conversion of BERT checkpoints between the layouts of Google, Hugging Face and the original EasyTransfer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from appzoo import discovery
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.config.stored import has_run_config, inherited, load_run_config
from easytransfer.errors import ConfigError, ModelError
from easytransfer.run.log import say
from modelzoo.encoder_heads import PretrainingHead
from modelzoo.importing import export_backbone, export_model
from modelzoo.vision_language.heads import VisionLanguageHeads

_KIND = re.compile(r"convert_(?:(google|hf|ez_transfer)_)?bert_to_(google|hf|ez_transfer)")
_ACCEPTED = (
    "convert_bert_to_google",
    "convert_bert_to_hf",
    "convert_bert_to_ez_transfer",
    "and the same with the layout of the source, such as convert_google_bert_to_ez_transfer",
)
_FORMS = {"google": "google", "hf": "hf", "ez_transfer": "ez"}


def convert(config: JobConfig) -> dict[str, Any]:
    """Writes the encoder of `checkpoint_path` in another layout into the folder `export.export_dir_base`.

    The source is a model folder, a checkpoint prefix, a ModelZoo name, or a run of ours, whose trained encoder is
    taken. The folder is written as a whole or not at all; weights and a forward pass are compared with the source.

    Raises:
        ConfigError: There is no such conversion.
        ModelError: The source has another layout than stated, or is incomplete; or the folder exists.
    """
    kind = config.export.export_type
    match = _KIND.fullmatch(kind)
    if match is None:
        raise ConfigError("unknown exportType", received=kind, accepted=_ACCEPTED)
    source_form, form = _FORMS.get(match[1] or "auto", "auto"), _FORMS[match[2]]
    target, path = Path(str(config.export.export_dir_base)), str(config.checkpoint_path)
    options = {"zoo": config.runtime.model_zoo_base_path, "overwrite": config.runtime.overwrite}
    if not has_run_config(path):
        if config.runtime.dry_run:
            return {"dry_run": True, "checkpoint": path}
        return _done(export_model(path, target, form, source_format=source_form, **options))
    if source_form != "auto":
        raise ModelError(f"{path} is a run of this platform, not a {match[1]} checkpoint", fix=f"use {_ACCEPTED[0]}")
    stored = inherited(load_run_config(path))
    job = discovery.config_class(str(stored.get("model_name"))).model_validate({**stored, "checkpoint_path": path})
    trained = open_trained(job)
    if not hasattr(trained.app.model, "backbone"):
        raise ModelError(f"{job.model_name} has no pre-trained encoder to convert", received=path)
    if config.runtime.dry_run:
        return {"dry_run": True, "checkpoint": str(trained.source)}
    # A T5 has no encoder of its own.
    backbone, tokenizer = trained.app.model.backbone, getattr(trained.app, "encoder", trained.app).tokenizer
    head = getattr(trained.app.model, "head", None)
    return _done(
        export_backbone(
            backbone, tokenizer, target, form, trained.source, overwrite=config.runtime.overwrite,
            head=head if isinstance(head, PretrainingHead | VisionLanguageHeads) else None,
        )
    )  # fmt: skip


def _done(result: dict[str, Any]) -> dict[str, Any]:
    say(f"wrote {result['weights']} weights to {result['folder']}")
    return result
