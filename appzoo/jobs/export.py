"""Export: a trained application as a SavedModel that TensorFlow Serving loads, or in another checkpoint layout."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from appzoo.jobs.convert import convert
from appzoo.jobs.export_litert import Compared, export_app_litert
from appzoo.jobs.export_vectors import export_vectors
from appzoo.jobs.inference import evaluated
from appzoo.jobs.tables import load_rows
from appzoo.jobs.trained import Trained, model_call, open_trained
from easytransfer.app.contract import App
from easytransfer.config.job import JobConfig, Variant, WeightType
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.compiled import Rounding, compiled, compiled_part
from easytransfer.export.saved_model import ExportReport, export_saved_model
from easytransfer.export.stored_weights import StoredWeight, stored_weights
from easytransfer.litert.model import LiteRtModel
from easytransfer.run.commands import command_line
from easytransfer.run.log import say
from easytransfer.run.progress import format_numbers


def export(config: JobConfig) -> dict[str, Any]:
    """Exports `checkpoint_path` into `export.export_dir_base`.

    Returns:
        Path and version of the export, its bytes and the latency of its raw-input signature, with `input_table` its
        metrics there, the same under `others` for further variants; or what a conversion wrote.
    """
    kind, base = config.export.export_type, Path(str(config.export.export_dir_base))
    variants = config.export.variants
    if kind.startswith("convert_"):
        if variants != ["float32"]:
            raise ConfigError("exportVariants needs exportType app_model or ez_bert_feat", received=kind)
        return {"mode": "export", **convert(config)}
    if config.export.flat and len(variants) > 1:
        raise ConfigError("exportFlat has room for one variant", received=", ".join(variants))
    if kind == "ez_bert_feat":
        source = Path(str(config.checkpoint_path))
        found = [] if config.runtime.dry_run else _export_vectors(config, base)
    else:
        trained = open_trained(in_float32(config, str(config.checkpoint_path)))
        if trained.step is None:
            raise ModelError(f"{trained.source} is an export already", fix="copy the folder, or give a run folder")
        source, spec = trained.source, config.data.input_table
        rows = load_rows(trained.app, spec, True).encoded if spec and not config.runtime.dry_run else None
        named = [] if config.runtime.dry_run else variants
        found = [_export_variant(trained, config, base, variant, rows) for variant in named]
    if not found:
        return {"mode": "export", "dry_run": True, "checkpoint": str(source)}
    first, *others = found
    return {"mode": "export", **first, **({"others": others} if others else {})}


def _export_vectors(config: JobConfig, base: Path) -> list[dict[str, Any]]:
    found = []
    for variant, report, compared in export_vectors(config, base):
        facts = {**_facts(report), **compared}
        _say_variant(variant, facts)
        found.append({"variant": variant, **facts})
    return found


def _export_variant(
    trained: Trained, config: JobConfig, base: Path, variant: Variant, rows: EncodedTable | None
) -> dict[str, Any]:
    app, rounding = trained.app, None
    if variant in ("litert", "litert-int8"):
        return _export_litert(trained, config, base, variant, rows)
    with ExitStack() as stack:
        kind: WeightType = "float32" if variant == "xla" else variant
        stored = stack.enter_context(stored_weights(app.model.variables, kind))
        if variant == "xla":
            rounding = Rounding.up_to(config.export.max_batch_size, config.data.sequence_length)
            stack.enter_context(compiled(compiled_part(app.model), rounding))
        options = {"flat": config.export.flat, "variant": variant, "stored": stored, "rounding": rounding}
        facts = _facts(export_app(app, trained.folder, base, trained.source, **options))
        if rows is not None:
            call = model_call(app, labelled=True)
            facts["metrics"] = evaluated(app, rows, call, config.train.batch_size).result()
    _say_variant(variant, facts)
    return {"variant": variant, **facts}


def _export_litert(
    trained: Trained, config: JobConfig, base: Path, variant: Variant, rows: EncodedTable | None
) -> dict[str, Any]:
    """Exports a variant for LiteRT; with rows, it is compared with the network on each of them."""
    app = trained.app
    described = _described(app, trained.folder, trained.source, variant)
    int8, sizes = variant == "litert-int8", {"max_batch_size": config.export.max_batch_size}
    facts = _facts(
        export_app_litert(app, trained.folder, int8=int8, base=base, flat=config.export.flat, **described, **sizes)
    )
    if rows is not None:
        with closing(LiteRtModel(Path(facts["export"]))) as model:
            compared = Compared(model, model_call(app, labelled=True))
            facts["metrics"] = evaluated(app, rows, compared, config.train.batch_size).result()
        facts["compared"] = compared.facts()
    _say_variant(variant, facts)
    return {"variant": variant, **facts}


def _say_variant(variant: Variant, facts: dict[str, Any]) -> None:
    latency = [f"{milliseconds} ms for {rows} rows" for rows, milliseconds in facts["latency_ms"].items()]
    shown = [f"{facts['bytes'] / 1e6:,.1f} MB", *latency, *format_numbers(facts.get("metrics", {}))]
    if compared := facts.get("compared"):
        shown.append(f"{compared['flips']} of {compared['rows']} choices differ from the network")
        shown.append(f"largest difference {compared['largest_difference']:.2g}")
    for column, cosine in facts.get("cosine", {}).items():
        mean, smallest = cosine["mean"], cosine["smallest"]
        shown.append(f"cosine of {column} to the network's over {facts['texts']} texts {mean:.6f} ({smallest:.6f})")
    say(f"{variant}: {', '.join(shown)}")


def _facts(report: ExportReport) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in report.path.rglob("*") if path.is_file())
    return {
        "export": str(report.path), "version": report.version, "bytes": size, "latency_ms": report.latency_ms
    }  # fmt: skip


def in_float32(config: JobConfig, checkpoint_path: str) -> JobConfig:
    """Returns the configuration for the same weights computed in float32, which every server supports."""
    runtime = config.runtime.model_copy(update={"mixed_precision": "none"})
    return config.model_copy(update={"runtime": runtime, "checkpoint_path": checkpoint_path})


def export_app(
    app: App,
    folder: Path,
    base: Path,
    checkpoint: Path,
    *,
    flat: bool = False,
    variant: Variant = "float32",
    stored: Sequence[tuple[Any, StoredWeight]] = (),
    rounding: Rounding | None = None,
) -> ExportReport:
    """Publishes the next version of an application whose model is in memory.

    Args:
        app: Application with trained weights.
        folder: Run folder with its assets.
        base: Folder of all exported models.
        checkpoint: Where the weights came from, for the manifest.
        flat: Write `<base>/<version>` instead of `<base>/<name>/<version>`.
        variant: Others than float32 go to `<base>/<name>-<variant>/<version>`.
        stored: What stores weights in fewer bytes, see `stored_weights`.
        rounding: Shapes the network is compiled for, see `compiled`.
    """
    config = app.config
    say("exporting a SavedModel and checking it in a fresh process")
    report = export_saved_model(
        app.signatures(folder),
        module=app.model,
        base=base,
        **_described(app, folder, checkpoint, variant),
        max_batch_size=config.export.max_batch_size,
        flat=flat,
        stored=stored,
        rounding=rounding,
        command=command_line(
            "export", checkpointPath=checkpoint, exportDirBase=base, exportVariants=variant, exportFlat=flat
        ),
    )
    say(f"exported {report.path}")
    return report


def _described(app: App, folder: Path, checkpoint: Path, variant: Variant) -> dict[str, Any]:
    """Returns name, assets and facts of an export."""
    config = app.config
    return {
        "name": str(config.model_name) + ("" if variant == "float32" else f"-{variant}"),
        "assets": {name: folder / name for name in app.exported_files if (folder / name).is_file()},
        "manifest": {
            "config": config.model_dump(mode="json"),
            "checkpoint": checkpoint.name,
            "max_length": config.data.sequence_length,
            "variant": variant,
            **({"labels": app.labels} if app.labels else {}),
        },
    }
