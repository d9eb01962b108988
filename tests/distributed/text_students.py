"""Students of texts, and classifiers of domains, as the distributed tests run them: random rows, small networks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.discovery import find_application
from easytransfer import keras
from easytransfer.app.contract import App
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.workers import Workers
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.train import checkpoint
from easytransfer.train.trainer import Trainer
from easytransfer.train.weights import named_arrays
from modelzoo.commands import make_tiny

NETWORK = Path(__file__).parents[2] / "examples" / "text_pretrain" / "tiny-bert"
ROWS, GLOBAL_BATCH = 20, 8
CLASSES = ["a", "b", "c"]
_SMALL = {"num_layers": 1, "hidden_size": 16, "num_heads": 4, "intermediate_size": 16}
_LAYERS = {"hidden_weight": 0.5, "attention_weight": 2.0}


def new_app(name: str, workers: Workers, model: dict[str, Any], **sections: Any) -> App:
    """Returns an application of a random encoder; epochs of batches whose last one is smaller than the others."""
    config_class, app_class = find_application(name)
    data = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": ",".join(CLASSES)}
    values = {
        "model_name": name,
        "data": {**data, "sequence_length": 16, **sections.pop("data", {})},
        "model": {"pretrain_model_name_or_path": str(NETWORK), "from_scratch": True, "dropout_rate": 0.0, **model},
        "train": {
            **{"optimizer_type": "sgd", "learning_rate": 0.1, "gradient_clip": True, "clip_norm_value": 1.0},
            **{"num_epochs": 2, "batch_size": GLOBAL_BATCH // workers.size},
        },
    }
    return app_class(config_class.model_validate({**values, **sections}))


def texts() -> tuple[dict[str, Ragged], np.random.Generator]:
    """Returns pieces and segments of rows of 4 to 12 pieces, and what draws further columns."""
    random = np.random.default_rng(4)
    rows = [[2, *random.integers(5, 40, random.integers(2, 11)), 3] for _ in range(ROWS)]
    ids = Ragged.from_lists(rows)
    return {"input_ids": ids, "segment_ids": Ragged(np.zeros_like(ids.values), ids.offsets)}, random


def table_of(columns: dict[str, Any], **options: Any) -> EncodedTable:
    return EncodedTable(columns, {"input_mask": "input_ids"}, **options)


def tagged() -> EncodedTable:
    """Returns rows of words, each with a tag for its first piece; every fourth row has none."""
    columns, random = texts()
    labels, starts = [], []
    for row in range(ROWS):
        pieces = len(columns["input_ids"][row]) - 2
        first = np.flatnonzero(np.append(1, random.integers(0, 2, pieces - 1)))
        tags = np.full(pieces + 2, -1)
        if row % 4:
            tags[first + 1] = random.integers(0, 3, len(first))
        labels.append(tags)
        starts.append(first + 1)
    columns |= {"label_id": Ragged.from_lists(labels), "word_starts": Ragged.from_lists(starts)}
    return table_of(columns, pad_values={"label_id": -1})


def save_teacher(folder: Path, name: str, workers: Workers, **options: Any) -> str:
    """Writes the run folder of a network of two layers with large weights, for each worker its own."""
    keras.utils.set_random_seed(5)
    app = new_app(name, workers, {}, **options)
    app.load_assets(None)
    app.build_model()
    random = np.random.default_rng(6)
    app.model.set_weights([w + random.normal(0, 0.2, w.shape).astype(np.float32) for w in app.model.get_weights()])
    place = folder / f"teacher-{workers.rank}"
    place.mkdir()
    app.save_assets(place)
    write_json(place / CONFIG_FILE, app.config.model_dump(mode="json"))
    checkpoint.save(place, 1, named_arrays(app.model.weights), {}, {})
    checkpoint.point(place, 1, 1)
    return str(place)


def weights_of(app: App, table: EncodedTable, workers: Workers, folder: Path) -> dict[str, np.ndarray]:
    """Trains an application whose assets are loaded; returns its weights before and after."""
    app.on_train_table(table)
    app.before_training(table, folder, workers)
    trainer = Trainer(app, app.config.train, app.config.runtime, workers=workers)
    start = app.model.get_weights()
    options = {"shuffle": True, "seed": 1, "shard": (workers.replica, workers.replicas)}
    trainer.fit(Batches(table, app.config.train.batch_size, **options, sampler=app.sampler(table)))
    found = {f"weight/{number:03}": value for number, value in enumerate(app.model.get_weights())}
    return found | {f"start/{number:03}": value for number, value in enumerate(start)}


def distillation(workers: Workers, folder: Path) -> dict[str, np.ndarray]:
    """Probes of the teacher, layers, then answers, which also rows without label teach."""
    teacher = save_teacher(folder, "text_classify_bert", workers)
    settings = {**_LAYERS, "probes": True, "layer_epochs": 1, "probe_epochs": 1, "kd_loss": "kld"}
    app = new_app("distillation_text_bert", workers, _SMALL, distillation={**settings, "teacher": teacher})
    app.load_assets(None)
    columns, random = texts()
    labels = np.where(np.arange(ROWS) % 4, random.integers(0, 3, ROWS), -1).astype(np.int32)
    return weights_of(app, table_of({**columns, "label_id": labels}), workers, folder)


def labeling(workers: Workers, folder: Path) -> dict[str, np.ndarray]:
    """Answers for words, of which some have tags."""
    teacher = save_teacher(folder, "sequence_labeling_bert", workers)
    app = new_app("distillation_text_labeling", workers, _SMALL, distillation={"teacher": teacher, "kd_loss": "xent"})
    app.load_assets(None)
    return weights_of(app, tagged(), workers, folder)


def meta_distillation(workers: Workers, folder: Path) -> dict[str, np.ndarray]:
    """A meta-teacher of two domains, layers, then answers, all by weights of rows."""
    settings, encoder = {"teacher_epochs": 1, "layer_epochs": 1}, folder / f"encoder-{workers.rank}"
    make_tiny(encoder)
    # Each worker draws the units it drops.
    config = json.loads((encoder / "config.json").read_text())
    dropped = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write_json(encoder / "config.json", {**config, **dropped})
    model = {**_SMALL, "num_heads": 2, "pretrain_model_name_or_path": str(encoder)}
    app = new_app("meta_distillation", workers, model, distillation=settings)

    def values(column: str) -> Iterable[str]:
        return ["x", "y"] if column == app.config.data.domain_name else CLASSES

    app.load_assets(None, values)
    columns, random = texts()
    columns["label_id"] = random.integers(0, 3, ROWS).astype(np.int32)
    columns["domain_id"] = (np.arange(ROWS) % 2).astype(np.int32)
    return weights_of(app, table_of(columns), workers, folder)


def domains(workers: Workers, folder: Path, algorithm: str) -> dict[str, np.ndarray]:
    """Rows of a source, and labelled and unlabelled ones of a target."""
    app = new_app("domain_transfer", workers, {}, transfer={"algorithm": algorithm})
    app.load_assets(None)
    columns, random = texts()
    columns["domain"] = (np.arange(ROWS) % 2).astype(np.int32)
    columns["label_id"] = np.where(np.arange(ROWS) % 4 == 3, -1, random.integers(0, 3, ROWS)).astype(np.int32)
    return weights_of(app, table_of(columns), workers, folder)


def run(workers: Workers, folder: Path) -> None:
    """Trains all, each from new layers; writes their weights by method."""
    found: dict[str, np.ndarray] = {}
    for name, train in (
        ("distillation", distillation),
        ("labeling", labeling),
        ("meta_distillation", meta_distillation),
        ("dann", lambda *where: domains(*where, "dann")),
        ("drss", lambda *where: domains(*where, "drss")),
    ):
        place = folder / name
        place.mkdir(exist_ok=True)
        keras.utils.set_random_seed(7)
        found |= {f"{name}/{key}": value for key, value in train(workers, place).items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **found)
