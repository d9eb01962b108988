"""Scaling of columns, measured on the training table and kept with the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from appzoo.win_prediction.config import WinSettings
from appzoo.win_prediction.network import Scaling
from easytransfer.config.json_text import parse_json
from easytransfer.data.encoded import Ragged
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_json

# Frames read at a time.
_BLOCK = 1 << 16


def measured_scaling(frames: Ragged, settings: WinSettings) -> Scaling:
    """Returns the scaling for the frames of a training table, [frames, features].

    The deviation is that over both views of every frame: the root mean square, as their mean is zero. A column that is
    always 0 keeps its values.
    """
    columns = [column for group in settings.feature_groups for column in group.columns]
    log = np.array([column.log for column in columns for _ in range(column.width)])
    scaling = Scaling(np.ones(len(log)), log, settings.log_unit, settings.time_unit)
    squares, values = np.zeros(len(log)), frames.values
    for start in range(0, len(values), _BLOCK):
        squares += np.square(scaling.transformed(values[start : start + _BLOCK])).sum(axis=0)
    deviation = np.sqrt(squares / len(values))
    return replace(scaling, deviation=np.where(deviation > 0, deviation, 1.0))


def save_scaling(scaling: Scaling, folder: Path) -> None:
    """Writes a scaling into a folder."""
    units = {"log_unit": scaling.log_unit, "time_unit": scaling.time_unit}
    write_json(folder / Scaling.FILE, {"deviation": scaling.deviation.tolist(), "log": scaling.log.tolist(), **units})


def load_scaling(folder: Path) -> Scaling:
    """Reads what `save_scaling` wrote.

    Raises:
        ModelError: The file is absent or not of that form.
    """
    path = folder / Scaling.FILE
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
        deviation, log = np.array(stored["deviation"], np.float64), np.array(stored["log"], bool)
        return Scaling(deviation, log, float(stored["log_unit"]), float(stored["time_unit"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not readable: {error}", fix="give the run folder of win_prediction") from error
