"""Texts of several domains as points: the two main components of their vectors, before and after a training.

python -m appzoo.experiment.domains JOB.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from appzoo.discovery import resolve
from appzoo.experiment.run import ArmResult, Processes, kept
from appzoo.tuning.trial import result_of
from easytransfer.config.job import DataConfig, JobConfig, RuntimeConfig
from easytransfer.config.json_text import parse_json
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.files import expand, stamps
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.run.atomic import write_json
from easytransfer.run.comparison import flat
from easytransfer.run.folder import REPORT_FILE
from easytransfer.run.log import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAINS_PICTURE, BEFORE = "domains.png", "before"
_POINTS, _JOB = "domains-points.json", "domains.json"
# Rows of each domain, those of several files in equal parts.
ROWS = 200


def domain_points(
    folder: Path, config: JobConfig, results: Sequence[ArmResult], processes: Processes
) -> dict[str, dict[str, Any]]:
    """Returns the points of the encoder as it was loaded and of the first run of each arm, by name.

    Args:
        folder: Of the experiment; points are kept there.
        config: The configuration as given.
        results: Of the experiment.
        processes: Commands that are started.

    Returns:
        Empty for an application without domains, for pairs of texts, and without a table of each domain. Else see
        `points`.

    Raises:
        EasyTransferError: The vectors could not be computed.
    """
    application, variant = resolve(str(config.model_name))
    values = flat(config.model_dump(mode="json"))
    tables = {name: values.get(path) for name, path in application.domains(variant).items()}
    if not tables or not all(tables.values()) or config.data.second_sequence:
        return {}
    runs = {each.name: next(iter(each.runs.values())) for each in results if each.runs}
    models = {name: str(run) for name, run in runs.items()}
    if not values.get("model.from_scratch"):
        models = {BEFORE: str(values["model.pretrain_model_name_or_path"]), **models}
    job = {
        "models": models,
        "tables": tables,
        "data": config.data.model_dump(mode="json", exclude={"source_table"}),
        "zoo": config.runtime.model_zoo_base_path,
    }
    files = [*(str(run / REPORT_FILE) for run in runs.values()), *(f for spec in tables.values() for f in expand(spec))]
    path = folder / _JOB
    write_json(path, job)

    def computed() -> dict[str, Any]:
        say(f"computing vectors of {' and '.join(tables)} texts with {', '.join(models)}")
        return result_of([*processes.vectors, str(path)], "the computation of vectors")

    return kept(folder / _POINTS, {"job": job, "files": stamps(files)}, computed)


def read_texts(spec: str, data: DataConfig, rows: int = ROWS) -> list[str]:
    """Returns the first texts of the files of a table, of each file as many.

    Args:
        spec: The table.
        data: How it is read; rows that are bad are left out.
        rows: Texts in all, at most.
    """
    files = expand(spec)
    share = -(-rows // len(files))
    schema = parse_schema(data.input_schema) if data.input_schema else None
    name = str(data.first_sequence)
    found: list[str] = []
    for file in files:
        table = open_table(
            file, schema=schema, data=data, bad_rows=BadRows("skip"), needed=[name], texts={name: "none"}
        )
        if schema is None:
            table.narrow([name])
        for chunk in table.chunks(share, stop=share):
            found += [str(chunk.columns[name][row]) for row in np.flatnonzero(chunk.accepted)]
    return found[:rows]


def main_components(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first two principal components (Pearson 1901) by a singular value decomposition.

    Args:
        vectors: [rows, size], at least two rows of at least two numbers.

    Returns:
        Coordinates [rows, 2], of which each has its largest one in size above 0, and the shares of the variance [2].
    """
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    found = left[:, :2] * lengths[:2]
    largest = found[np.abs(found).argmax(axis=0), [0, 1]]
    variance = lengths**2
    return found * np.where(largest < 0, -1, 1), variance[:2] / max(float(variance.sum()), 1e-300)


def points(vectors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the points of one model.

    Args:
        vectors: By domain, [rows, size].

    Returns:
        `points`: by domain, [rows, 2], in the main components of all rows together; `shares` of their variance.
    """
    coordinates, shares = main_components(np.concatenate(list(vectors.values())))
    ends = np.cumsum([len(each) for each in vectors.values()])[:-1]
    parts = np.split(coordinates.round(6), ends)
    return {"points": dict(zip(vectors, (part.tolist() for part in parts), strict=True)), "shares": shares.tolist()}


def domains_picture(found: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Draws the points of each model; None where there are none."""
    from matplotlib.figure import Figure

    if not found:
        return None
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.3 * lines + 0.5), layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for panel, (name, each) in zip(panels, found.items(), strict=False):
        for number, (domain, places) in enumerate(each["points"].items()):
            panel.plot(*np.array(places, np.float64).T, ".", color=f"C{number}", markersize=4, alpha=0.6, label=domain)
        first, second = each["shares"]
        panel.set(title=name, xlabel=f"{first:.0%} of the variance", ylabel=f"{second:.0%}", xticks=[], yticks=[])
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def computed_points(job: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `domain_points` does, computed in this process; imports TensorFlow.

    Args:
        job: Its `models`, `tables`, `data` (how these are read) and `zoo`.
    """
    from appzoo.jobs.vectors import text_vectors

    data = DataConfig.model_validate(
        {name: job["data"][name] for name in DataConfig.model_fields if name in job["data"]}
    )
    texts = {name: read_texts(spec, data) for name, spec in job["tables"].items()}
    runtime = RuntimeConfig(model_zoo_base_path=job["zoo"])
    return {
        model: points({name: text_vectors(place, each, "pool_output", runtime) for name, each in texts.items()})
        for model, place in job["models"].items()
    }


if __name__ == "__main__":
    print(json.dumps(computed_points(parse_json(Path(sys.argv[1]).read_text(encoding="utf-8")))))
