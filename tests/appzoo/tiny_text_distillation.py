"""Small teachers of random weights, students of them, and their table, for the tests of text distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.discovery import find_application
from easytransfer.app.contract import App
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.train import checkpoint
from easytransfer.train.weights import named_arrays

LABELS = ["cold", "hot", "warm"]
ROWS = [("the good book is here", "hot"), ("bad", "cold"), ("a film of the day", ""), ("no good time for it", "warm")]
TEXT, PAIR = "text:str:1,label:str:1", "text:str:1,other:str:1,label:str:1"


def new_app(name: str, model: dict[str, Any], **sections: Any) -> App:
    config_class, app_class = find_application(name)
    data = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": ",".join(LABELS)}
    data |= {"sequence_length": 12, **sections.pop("data", {})}
    return app_class(config_class.model_validate({"model_name": name, "model": model, "data": data, **sections}))


def words(column: str) -> list[str]:
    return [text for text, _ in ROWS] if column in ("text", "other") else [label for _, label in ROWS]


def save_teacher(folder: Path, name: str, model: dict[str, Any], distillation: Any = None, **data: Any) -> Path:
    """Writes the run folder of a classifier with random weights."""
    sections = {} if distillation is None else {"distillation": distillation}
    app = new_app(name, model, data=data, **sections)
    app.load_assets(None, words)
    return save_run(folder, app)


def save_run(folder: Path, app: App) -> Path:
    """Writes the run folder of an application whose assets are loaded, with large random weights."""
    app.build_model()
    random = np.random.default_rng(6)
    app.model.set_weights([w + random.normal(0, 0.2, w.shape).astype(np.float32) for w in app.model.get_weights()])
    folder.mkdir(parents=True)
    app.save_assets(folder)
    write_json(folder / CONFIG_FILE, app.config.model_dump(mode="json"))
    checkpoint.save(folder, 5, named_arrays(app.model.weights), {}, {})
    checkpoint.point(folder, 5, 5)
    return folder


def student(teacher: Path | None, model: dict[str, Any], name: str = "distillation_text_bert", **sections: Any) -> App:
    given = {"teacher": None if teacher is None else str(teacher), **sections.pop("distillation", {})}
    app = new_app(name, model, distillation=given, **sections)
    app.load_assets(None, words)
    return app


def encoded(app: App, folder: Path, rows: Any = ROWS, schema: str = TEXT, bad: BadRows | None = None) -> EncodedTable:
    path = folder / "table.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    table = open_table(str(path), schema=parse_schema(schema), data=app.config.data, bad_rows=bad or BadRows("fail"))
    (chunk,) = table.chunks()
    return app.encode(chunk, with_labels=True)


def batch_of(table: EncodedTable, size: int | None = None) -> dict[str, tf.Tensor]:
    return {name: tf.constant(x) for name, x in table.batch(range(len(table)), size=size).items() if x.dtype != object}


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)
