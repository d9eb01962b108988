"""Export: a trained application as a SavedModel that TensorFlow Serving loads, or in another checkpoint layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appzoo.base import App
from appzoo.jobs.convert import convert
from appzoo.jobs.export_vectors import export_vectors
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.errors import ModelError
from easytransfer.export.saved_model import ExportReport, export_saved_model
from easytransfer.run.log import say


def export(config: JobConfig) -> dict[str, Any]:
    """Exports `checkpoint_path` into `export.export_dir_base`.

    Returns:
        Path and version of the export and the latency of its raw-input signature, or what a conversion wrote.
    """
    kind, base = config.export.export_type, Path(str(config.export.export_dir_base))
    if kind.startswith("convert_"):
        return {"mode": "export", **convert(config)}
    if kind == "ez_bert_feat":
        source = Path(str(config.checkpoint_path))
        report = None if config.runtime.dry_run else export_vectors(config, base)
    else:
        trained = open_trained(in_float32(config, str(config.checkpoint_path)))
        if trained.step is None:
            raise ModelError(f"{trained.source} is an export already", fix="copy the folder, or give a run folder")
        source, flat = trained.source, config.export.flat
        report = None if config.runtime.dry_run else export_app(trained.app, trained.folder, base, source, flat=flat)
    if report is None:
        return {"mode": "export", "dry_run": True, "checkpoint": str(source)}
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
        assets={name: folder / name for name in app.asset_files if (folder / name).is_file()},
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
