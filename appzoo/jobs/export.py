"""Export: a trained application as a SavedModel that TensorFlow Serving loads, or in another checkpoint layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appzoo.base import App
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.saved_model import ExportReport, export_saved_model
from easytransfer.run.log import say

# What `prepare(folder)` may need again when only the export is left.
ASSET_FILES = ("vocab.txt", "tokenizer_config.json", "config.json", "label_mapping.json")


def export(config: JobConfig) -> dict[str, Any]:
    """Exports `checkpoint_path` into `export.export_dir_base`.

    Returns:
        Path and version of the export and the latency of its raw-input signature.
    """
    kind = config.export.export_type
    if kind.startswith("convert_") or kind == "ez_bert_feat":
        raise ConfigError(
            f"exportType={kind} is not an application export",
            fix="use `easy_transfer_app zoo export` or `zoo import` to convert checkpoints",
        )
    trained = open_trained(in_float32(config, config.checkpoint_path))
    if trained.step is None:
        raise ModelError(f"{trained.source} is an export already", fix="copy the folder, or give a run folder")
    if config.runtime.dry_run:
        return {"mode": "export", "dry_run": True, "checkpoint": str(trained.source)}
    # The original wrote the model straight into the directory it was given.
    report = export_app(trained.app, trained.folder, Path(config.export.export_dir_base), trained.source, flat=True)
    return {"mode": "export", "export": str(report.path), "version": report.version, "latency_ms": report.latency_ms}


def in_float32(config: JobConfig, checkpoint_path: str) -> JobConfig:
    """Returns the configuration for the same weights computed in float32, which every server supports."""
    runtime = config.runtime.model_copy(update={"mixed_precision": "none"})
    return config.model_copy(update={"runtime": runtime, "checkpoint_path": checkpoint_path})


def export_app(app: App, folder: Path, base: Path, checkpoint: Path, *, flat: bool = False) -> ExportReport:
    """Publishes the next version of an application whose model is in memory.

    Args:
        app: Application with trained weights.
        folder: Run folder with its assets.
        base: Folder of all exported models.
        checkpoint: Where the weights came from, for the manifest.
        flat: Write `<base>/<version>` instead of `<base>/<name>/<version>`.
    """
    config = app.config
    say("exporting a SavedModel and checking it in a fresh process")
    report = export_saved_model(
        app.signatures(folder),
        module=app.model,
        base=base,
        name=str(config.model_name),
        assets={name: folder / name for name in ASSET_FILES if (folder / name).is_file()},
        manifest={
            "config": config.model_dump(mode="json"),
            "checkpoint": checkpoint.name,
            "max_length": config.data.sequence_length,
            **({"labels": app.labels} if app.labels else {}),
        },
        max_batch_size=config.export.max_batch_size,
        flat=flat,
        command=f"easy_transfer_app export --checkpointPath={checkpoint} --exportDirBase={base}",
    )
    say(f"exported {report.path}")
    return report
