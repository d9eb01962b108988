"""Small games and applications on them, for the tests of win prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from appzoo.jobs.tables import load_rows
from appzoo.win_prediction.app import WinPrediction
from appzoo.win_prediction.config import WinPredictionConfig
from easytransfer.data.bad_rows import BadRows

GROUPS = ["gold = log(gold)", "kill = kill tower:2", "soldier = soldier"]
PHASES = ["early", "midTerm", "late"]


def game_rows(count: int = 6, seed: int = 0, **changes) -> list[dict]:
    """Games of 1 to 9 frames, the first one of 9."""
    random, rows = np.random.default_rng(seed), []
    for number in range(count):
        frames = 9 if number == 0 else int(random.integers(1, 10))
        row = {
            "game_id": f"g{number}",
            "minute": (np.arange(frames) / 2).tolist(),
            "gold": (random.normal(0, 3000, frames)).round().tolist(),
            "kill": random.integers(-5, 6, frames).tolist(),
            "tower": random.normal(0, 2, 2 * frames).round(2).tolist(),
            "soldier": random.normal(0, 1, frames).round(2).tolist(),
            "phase": [PHASES[min(frame // 3, 2)] for frame in range(frames)],
            "heroes_a": random.integers(0, 20, 5).tolist(),
            "heroes_b": random.integers(0, 20, 5).tolist(),
            "label": number % 2,
        }
        rows.append(row | changes)
    return rows


def config_of(train: dict | None = None, data: dict | None = None, **model) -> WinPredictionConfig:
    settings = {"groups": GROUPS, "spatial_units": [8, 4], "temporal_units": 6, **model}
    values = {"model_name": "win_prediction", "model": settings, "train": train or {}, "data": data or {}}
    return WinPredictionConfig.model_validate(values)


def table_of(rows: list[dict], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "games.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prepared(config: WinPredictionConfig) -> WinPrediction:
    app = WinPrediction(config)
    app.load_assets(None)
    return app


def encoded(app: WinPrediction, rows: list[dict], folder: Path, policy: str = "fail"):
    """The rows read as a job reads them: table, count and reasons."""
    return load_rows(app, table_of(rows, folder), True, BadRows(policy))


def built(folder: Path, rows: list[dict] | None = None, **model):
    """An application with random weights, and its games."""
    app = prepared(config_of(**model))
    table = encoded(app, rows or game_rows(), folder).encoded
    app.on_train_table(table)
    app.build_model()
    random = np.random.default_rng(3)
    for weight in app.model.weights:
        weight.assign(weight + random.normal(0, 0.3, weight.shape))
    return app, table
