"""The model card: a README.md in the run folder, made from the files of the run and nothing else.

`report.json` (see `RunFolder.finish`) holds what an evaluator's `report()` gives (`rows`, `labels`, `per_class`) and,
all optional:
    data         row account by role: {"train": {"table", "read", "accepted", "rejected", "reasons"}, "eval": {...}}
    text         counts by role: {"train": {"rows", "truncated", "tokens", "unknown"}, ...}
    robustness   accuracy under attack, as `attacks.report` measures it
    interval     95% interval of the metric where its rows were drawn anew: {"metric", "low", "high", "draws"}
    labels_by_table, lengths_by_table
                 rows by label, and by length in tokens, of each table, as `distributions` counts them
    stages       [{"name", "steps": [first, last], "metrics"}, ...] of a training with several
    metric       the metric that picked the best checkpoint
    pictures     file names, as `draw_pictures` returns them
    pages        file names of what the application wrote to be looked at, as `App.write_pages` returns them
    export       version folder of the SavedModel
    commands     command line by what it does, as `next_commands` returns them, which makes the default
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from easytransfer.run.atomic import write_text
from easytransfer.run.commands import next_commands, without_labels
from easytransfer.run.folder import EVALUATION_FILE, REPORT_FILE, RUN_FILE, RunFolder
from easytransfer.run.intervals import SHARES_OF_ROWS, share_interval
from easytransfer.run.progress import format_seconds
from easytransfer.run.suspicions import upside_down

_MARK = "<!-- Written by EasyTransfer; a new training in this folder replaces it. -->"
_CODE_OR_HTML = re.compile(r"((?<!`)`[^`]+`(?!`))|([&<>])")
_MOST_CLASSES = 60
_FEW_ROWS = 200
_FEW_ROWS_PER_CLASS = 20
_MANY_UNKNOWN = 0.05
_LOAD_EXPORT = """import tensorflow as tf
import tensorflow_text  # registers the operations of the tokenizer

serve = tf.saved_model.load("{path}").signatures["serving_default"]
print(serve.structured_input_signature[1])  # what to call it with
print(serve.structured_outputs)"""
# Settings worth a line in the card; the rest is in train_config.json.
_SETTINGS = (
    *("optimizer_type", "learning_rate", "lr_decay", "warmup_ratio", "weight_decay_ratio", "num_epochs", "batch_size"),
    *("num_accumulated_batches", "clip_norm_value", "num_freezed_layers", "layerwise_lr_decay", "ema_decay"),
    *("label_smoothing", "class_weights", "early_stopping_patience"),
)


def write_card(folder: str | os.PathLike[str], report: Mapping[str, Any] | None = None) -> Path:
    """Writes the model card of a run.

    Args:
        folder: Run folder.
        report: What `report.json` will hold; default: read from there.

    Returns:
        The file: `README.md`, or `MODEL_CARD.md` where somebody else's `README.md` is in the way.

    Raises:
        ModelError: The folder holds no run.
    """
    text = f"{_MARK}\n\n{card_text(folder, report)}"
    path = Path(folder) / "README.md"
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        path = path.with_name("MODEL_CARD.md")
    write_text(path, text)
    return path


def card_text(folder: str | os.PathLike[str], report: Mapping[str, Any] | None = None) -> str:
    """Returns the model card as Markdown; see `write_card`.

    Raises:
        ModelError: The folder holds no run.
    """
    return "\n\n".join(card_sections(folder, report).values()) + "\n"


def card_sections(folder: str | os.PathLike[str], report: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Returns the sections of the model card by name, in their order, without those that have nothing to say.

    Raises:
        ModelError: The folder holds no run.
    """
    run = RunFolder(folder)
    config = run.config
    record = run.read_json(RUN_FILE, default={})
    evaluation = run.read_json(EVALUATION_FILE, default={})
    report = run.read_json(REPORT_FILE, default={}) if report is None else report
    sections = {
        "introduction": _introduction(config, record, run),
        "use": _use(config, report, run.path),
        "results": _results(evaluation, report),
        "robustness": _robustness(report),
        "pages": _pages(report),
        "pictures": _pictures(report),
        "data": _data(report, record),
        "training": _training(config, report),
        "environment": _environment(report, record),
        "workers": _workers(report),
        "limitations": _limitations(config, evaluation, report, record),
    }
    return {name: text for name, lines in sections.items() if (text := "\n".join(lines))}


def _introduction(config: Mapping[str, Any], record: Mapping[str, Any], run: RunFolder) -> Iterator[str]:
    yield f"# {config.get('model_name') or 'model'}: {run.path.resolve().name}"
    yield ""
    yield "Trained with EasyTransfer."
    rows = []
    if source := (config.get("model") or {}).get("pretrain_model_name_or_path"):
        origin = (record.get("pretrained") or {}).get("origin") or {}
        at = f": {_code(origin['id'])} at commit {_code(origin['revision'])}" if origin.get("kind") == "hub" else ""
        rows.append(("pre-trained model", _code(source) + at))
    if run.labels:
        rows.append((f"{len(run.labels)} labels", ", ".join(map(_code, run.labels[:_MOST_CLASSES]))))
    if rows:
        yield ""
        yield from table(("", ""), rows)


def _use(config: Mapping[str, Any], report: Mapping[str, Any], path: Path) -> Iterator[str]:
    yield "## Use it"
    data = config.get("data") or {}
    commands = report.get("commands") or next_commands(path, data.get("eval_table"), report.get("export"), data=data)
    for purpose, command in commands.items():
        yield ""
        yield f"{purpose[:1].upper()}{purpose[1:]}:"
        yield ""
        yield from _fenced("bash", command)
    if further := without_labels(data):
        yield ""
        yield f"For a table without the label column, `predict` needs `{further}`, too."
    if report.get("export"):
        yield ""
        yield "From Python:"
        yield ""
        yield from _fenced("python", _LOAD_EXPORT.format(path=report["export"]))


def _results(evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    if not evaluation:
        return
    best, last = evaluation["best"], evaluation["last"]
    metric, rows = report.get("metric"), report.get("rows")
    yield "## Results"
    yield ""
    picked = f"; `{metric}` picked the best checkpoint" if metric else ""
    yield f"On the evaluation table{f' of {rows:,} rows' if rows else ''}{picked}."
    yield ""
    names = [name for name in best if name != "step" and isinstance(best[name], (int, float, type(None)))]
    evaluations = {f"best (step {best.get('step')})": best, f"last (step {last.get('step')})": last}
    if best.get("step") == last.get("step"):
        evaluations = {f"best and last (step {best.get('step')})": best}
    yield from table(
        ("metric", *evaluations),
        [
            (f"**{name}**" if name == metric else name, *(_number(each.get(name)) for each in evaluations.values()))
            for name in names
        ],
    )
    for name in SHARES_OF_ROWS:
        if between := share_interval(name, best.get(name), report):
            yield ""
            yield "95% interval of the best {} from the number of rows alone: {:.4f} to {:.4f}.".format(name, *between)
    if drawn := report.get("interval"):
        yield ""
        yield (
            f"95% interval of `{drawn['metric']}` of the exported weights, from {drawn['draws']:,} draws of the rows "
            f"with replacement: {drawn['low']:.4f} to {drawn['high']:.4f}."
        )
    if report.get("per_class"):
        yield from _per_class(report["per_class"])
    yield from _slices(report.get("slices") or [])


def _per_class(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    yield "### Per class"
    yield ""
    if len(classes) > _MOST_CLASSES:
        yield f"The {_MOST_CLASSES} classes with the lowest F1 of {len(classes)}; all are in `{REPORT_FILE}`."
        yield ""
        classes = sorted(classes, key=lambda row: row["f1"])[:_MOST_CLASSES]
    yield from table(
        ("label", "precision", "recall", "F1", "true rows", "predicted rows"),
        [
            (
                *(row["label"], _number(row["precision"]), _number(row["recall"]), _number(row["f1"])),
                *(f"{row['support']:,}", f"{row['predicted']:,}"),
            )
            for row in classes
        ],
    )


def _slices(slices: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not slices:
        return
    yield ""
    yield "### Parts of the evaluation table"
    listed = sorted(slices, key=lambda part: part["by"]) if len(slices) <= _MOST_CLASSES else slices[:_MOST_CLASSES]
    for metric in dict.fromkeys(part["metric"] for part in listed):
        yield from ("", f"`{metric}` with its 95% interval from the number of rows alone.", "")
        rows = []
        for part in (part for part in listed if part["metric"] == metric):
            measured = (_number(part[key]) for key in ("value", "low", "high"))
            rows.append((part["by"], part["name"], f"{part['rows']:,}", *measured))
        yield from table(("by", "rows that have", "rows", metric, "from", "to"), rows)


def _robustness(report: Mapping[str, Any]) -> Iterator[str]:
    facts = report.get("robustness")
    if not facts:
        return
    yield "## Robustness"
    yield ""
    radius = f"radius {facts['epsilon']:.6g} ({facts['norm']})"
    yield f"On the first {facts['rows']:,} rows of the evaluation table, {radius}."
    yield ""
    rows = [("none (clean)", facts["clean"]), *facts["attacks"].items(), ("**all (robust)**", facts["robust"])]
    yield from table(("attack", "accuracy"), [(name, _number(value)) for name, value in rows])
    yield ""
    points = facts["curve"]
    header = (f"radius of {facts['curve_attack']}", *(f"{point['epsilon']:.4g}" for point in points))
    yield from table(header, [("accuracy", *(_number(point["accuracy"]) for point in points))])
    yield ""
    yield from table(
        ("check for masked gradients", "result"),
        [(check["check"], "passed" if check["passed"] else "**failed**") for check in facts["checks"]],
    )
    yield ""
    yield facts["note"]


def picture_files(report: Mapping[str, Any]) -> list[str]:
    """Returns the names of all pictures of a run, those of the application included."""
    further = [name for name in report.get("pages", []) if Path(name).suffix == ".png"]
    return [*report.get("pictures", []), *further]


def page_files(report: Mapping[str, Any]) -> list[str]:
    """Returns the names of the HTML pages that the application wrote."""
    return [name for name in report.get("pages", []) if Path(name).suffix == ".html"]


def title_of(name: str) -> str:
    """Returns a file name as a title: `confusion_matrix.png` is "Confusion matrix"."""
    title = Path(name).stem.replace("_", " ")
    return title[:1].upper() + title[1:]


def _pages(report: Mapping[str, Any]) -> Iterator[str]:
    pages = page_files(report)
    if pages:
        yield "Row by row: " + ", ".join(f"[{title_of(name)}]({name})" for name in pages) + "."


def _pictures(report: Mapping[str, Any]) -> Iterator[str]:
    for number, name in enumerate(picture_files(report)):
        yield from [""] * (number > 0)
        yield f"![{title_of(name)}]({name})"


def _data(report: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    # One file may be both tables.
    tables, inputs = report.get("data", {}), {item["path"]: item for item in record.get("inputs", [])}.values()
    networks = record.get("frozen", {})
    if not tables and not inputs and not networks:
        return
    yield "## Data"
    if tables:
        yield ""
        yield from table(
            ("role", "table", "rows read", "used", "rejected"),
            [
                (role, _code(row.get("table")), *(f"{row.get(key, 0):,}" for key in ("read", "accepted", "rejected")))
                for role, row in tables.items()
            ],
        )
        reasons = [(role, *pair) for role, row in tables.items() for pair in (row.get("reasons") or {}).items()]
        if reasons:
            yield ""
            yield from table(("role", "reason for rejection", "rows"), [(r, why, f"{n:,}") for r, why, n in reasons])
    yield from _by_table("Labels", "label", report.get("labels_by_table") or {})
    yield from _by_table("Lengths", "tokens", report.get("lengths_by_table") or {})
    if inputs:
        yield ""
        yield "### Files"
        yield ""
        yield from table(
            ("file", "bytes", "SHA-256"),
            [(_code(item["path"]), f"{item['bytes']:,}", f"`{item['sha256']}`") for item in inputs],
        )
    if networks:
        yield ""
        yield from table(
            ("network of another run", "place", "application", "SHA-256"),
            [(r, _code(n["path"]), n.get("model_name", ""), f"`{n['sha256']}`") for r, n in networks.items()],
        )


def _by_table(title: str, of: str, counted: Mapping[str, Any]) -> Iterator[str]:
    """Yields how rows are distributed, each table beside the other."""
    if not counted:
        return
    names, tables, rows = counted["names"], counted["tables"], counted["rows"]
    yield ""
    yield f"### {title}"
    yield ""
    shown = range(len(names))
    if len(names) > _MOST_CLASSES:
        yield f"The {_MOST_CLASSES} most frequent of {len(names):,}; all are in `{REPORT_FILE}`."
        yield ""
        shown = sorted(shown, key=lambda at: -next(iter(tables.values()))[at])[:_MOST_CLASSES]
    yield from table(
        (of, *(f"{part} {what}" for part in tables for what in ("rows", "share"))),
        [
            (
                names[at],
                *(
                    cell
                    for part, counts in tables.items()
                    for cell in (f"{counts[at]:,}", f"{counts[at] / max(rows[part], 1):.1%}")
                ),
            )
            for at in shown
        ],
    )


def _training(config: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    train, runtime = config.get("train") or {}, config.get("runtime") or {}
    yield "## Training"
    yield ""
    rows = [(name, train[name]) for name in _SETTINGS if train.get(name) is not None]
    rows += [("sequence_length", (config.get("data") or {}).get("sequence_length"))] if report.get("text", True) else []
    rows += [(name, runtime.get(name)) for name in ("seed", "deterministic", "mixed_precision")]
    rows += [
        (name, value) for name, value in (config.get("model") or {}).items() if not isinstance(value, (dict, list))
    ]
    yield from table(("setting", "value"), [(f"`{name}`", _code(value)) for name, value in rows if value is not None])
    yield ""
    yield "All settings are in `train_config.json`, the history in `metrics.jsonl`."
    if report.get("stages"):
        yield from _stages(report["stages"], report.get("metric"))


def _environment(report: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    if not record:
        return
    facts = {name: value for name, value in record.get("packages", {}).items()}
    environment = [
        ("wall time", format_seconds(record["wall_time_s"]) if record.get("wall_time_s") is not None else None),
        ("of which", ", ".join(f"{part} {spent:.0f} s" for part, spent in record.get("parts_s", {}).items()) or None),
        ("waiting for input", f"{report['input_share']:.1%}" if report.get("input_share") is not None else None),
        ("peak memory", f"{record['peak_memory_mb']:,} MB" if record.get("peak_memory_mb") else None),
        ("devices", ", ".join(record.get("devices", [])) or None),
        ("processors", record.get("cpus")),
        ("EasyTransfer", record.get("easytransfer")),
        ("git revision", record.get("git")),
        ("Python", record.get("python")),
        ("platform", record.get("platform")),
        *facts.items(),
        ("continued", f"{len(record['earlier'])} times" if record.get("earlier") else None),
    ]
    yield "## Environment"
    yield ""
    yield from table(("", ""), [(name, str(value)) for name, value in environment if value is not None])


def _stages(stages: Sequence[Mapping[str, Any]], metric: str | None) -> Iterator[str]:
    yield ""
    yield "### Stages"
    yield ""
    shown = ["loss", *([metric] if metric else [])]
    rows = [
        (stage["name"], "{} to {}".format(*stage["steps"]), *(_number(stage["metrics"].get(name)) for name in shown))
        for stage in stages
    ]
    yield from table(("stage", "steps", *(f"{name} at its end" for name in shown)), rows)
    yield ""
    yield "The best checkpoint is of the last stage; losses of evaluations are those of its end in all stages."


def _workers(report: Mapping[str, Any]) -> Iterator[str]:
    facts = report.get("distributed")
    if not facts:
        return
    yield "## Workers"
    yield ""
    rows = []
    for name, value in facts.items():
        if name == "autotune":
            rows.append(
                (
                    name,
                    f"best of {value['tried']}: distribution.cycle_time_ms={value['cycle_time_ms']:g} "
                    f"distribution.fusion_mb={value['fusion_mb']:g}",
                )
            )
        elif name.endswith("_s"):
            rows.append((f"{name.removesuffix('_s').replace('_', ' ')} time per step", f"{1000 * value:.1f} ms"))
        else:
            rows.append((name.replace("_", " "), f"{value:,.0f}" if isinstance(value, float) else str(value)))
    yield from table(("", ""), rows)


def _limitations(
    config: Mapping[str, Any], evaluation: Mapping[str, Any], report: Mapping[str, Any], record: Mapping[str, Any]
) -> Iterator[str]:
    yield "## Limitations"
    yield ""
    for sentence in found_limitations(config, evaluation, report):
        yield f"- {sentence}"
    for key, (before, after) in record.get("changed_settings", {}).items():
        yield _plain(f"- The run was continued with another `{key}` ({_code(after)} after {_code(before)}).")


def found_limitations(config: Mapping[str, Any], evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Returns what a reader should know before trusting the numbers, as far as the run's own files tell.

    Args:
        config: Resolved configuration.
        evaluation: Content of `evaluation.json`.
        report: Content of `report.json`.
    """
    found = []
    if evaluation:
        found.append(
            "The evaluation table also picked the best checkpoint, so its numbers are slightly optimistic; "
            "measure on a table that was not used here before comparing models."
        )
    else:
        found.append("The model was not evaluated.")
    found.append("One run with one seed: results of repeated runs differ, most on small tables.")
    if wrong := upside_down(report.get("metrics") or evaluation.get("best") or {}, report.get("labels") or ()):
        found.append(_plain(wrong))
    if 0 < report.get("rows", 0) < _FEW_ROWS:
        found.append(f"Only {report['rows']} evaluation rows: differences of a few points can be chance.")
    if any(not check["passed"] for check in report.get("robustness", {}).get("checks", [])):
        found.append("A check for masked gradients failed: a stronger attack may find less robust accuracy.")
    few = [row["label"] for row in report.get("per_class", []) if row["support"] < _FEW_ROWS_PER_CLASS]
    if few:
        names = ", ".join(map(_plain, few[:10])) + (f" and {len(few) - 10} more" if len(few) > 10 else "")
        found.append(f"Fewer than {_FEW_ROWS_PER_CLASS} evaluation rows for: {names}; their scores are uncertain.")
    for role, row in report.get("data", {}).items():
        if row.get("rejected"):
            share = row["rejected"] / max(row["read"], 1)
            found.append(
                f"{row['rejected']:,} of {row['read']:,} {role} rows ({share:.1%}) were rejected and not used."
            )
    for role, counts in report.get("text", {}).items():
        if counts.get("truncated"):
            share = counts["truncated"] / max(counts["rows"], 1)
            found.append(f"{share:.1%} of the {role} texts are longer than the model reads and were cut.")
        if counts.get("unknown", 0) > _MANY_UNKNOWN * max(counts.get("tokens", 0), 1):
            share = counts["unknown"] / counts["tokens"]
            found.append(f"{share:.1%} of the {role} tokens are unknown to the vocabulary of the pre-trained model.")
    found.append(
        "Language, biases and licence come from the pre-trained model and the training table; neither was checked here."
    )
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(_plain(cell).replace("|", r"\|").replace("\n", " ") for cell in row) + " |"


def _fenced(language: str, text: str) -> Iterator[str]:
    yield f"```{language}"
    yield text.rstrip("\n")
    yield "```"


def _code(value: object) -> str:
    text = str(value)
    return f"`{text}`" if text and "`" not in text else text


def _plain(value: object) -> str:
    """Returns Markdown in which names from tables, such as labels, are text and no HTML; code is never HTML."""
    return _CODE_OR_HTML.sub(lambda found: found[1] or escape(found[2], quote=False), str(value))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "undefined"
