"""Export of an encoder as a SavedModel that turns raw text or token ids into vectors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.feature_config import VECTOR_COLUMNS
from appzoo.jobs.tables import chosen_columns
from appzoo.jobs.vectors import FACTS, VectorModule, VectorSource, open_vectors, vectors_facts
from easytransfer.app.inputs.tokens import SAMPLE_TEXTS
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.export.saved_model import ExportReport, export_saved_model
from easytransfer.run.atomic import write_json
from easytransfer.run.commands import command_line
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature

# Layers of an export: the last one.
LAYERS = (-1,)


def export_vectors(config: JobConfig, base: Path) -> ExportReport:
    """Exports the vectors of `checkpoint_path`, a trained application or a pre-trained model.

    `serving_default` takes raw text, or pairs of texts where the application packs pairs; `predict_ids` takes
    `input_ids`, `input_mask` and `segment_ids`. Both return the columns of `ez_bert_feat`.

    Args:
        config: Names the model and, in `data.output_schema`, the columns.
        base: Folder of all exported models.

    Raises:
        ModelError: Nothing usable is there, or the export does not pass its checks.
    """
    data, runtime = config.data, config.runtime.model_copy(update={"mixed_precision": "none"})
    columns = chosen_columns(data.output_schema, VECTOR_COLUMNS)
    # Of a trained application the stored length is in `data`, of a pre-trained model the default.
    length, name = data.sequence_length, str(config.checkpoint_path)
    source = open_vectors(name, columns, LAYERS, max_length=length, runtime=runtime)
    paired = bool(data.second_sequence) and not source.two_towers
    say("exporting a SavedModel and checking it in a fresh process")
    with tempfile.TemporaryDirectory() as folder:
        assets = _assets(source, Path(folder))
        report = export_saved_model(
            _signatures(source, paired),
            module=source.module,
            base=base,
            name=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{source.name}_vectors"),
            assets=assets,
            manifest={
                "config": config.model_dump(mode="json"),
                "checkpoint": source.path.name,
                "max_length": length,
                FACTS: vectors_facts(source, LAYERS),
            },
            max_batch_size=config.export.max_batch_size,
            flat=config.export.flat,
            command=command_line(
                "export",
                exportType="ez_bert_feat",
                checkpointPath=name,
                exportDirBase=base,
                secondSequence=data.second_sequence,
                outputSchema=data.output_schema,
                exportFlat=config.export.flat,
            ),  # fmt: skip
        )
    say(f"exported {report.path}")
    return report


def _assets(source: VectorSource, folder: Path) -> dict[str, Path]:
    source.tokenizer.save(folder)
    write_json(folder / "config.json", source.config.to_dict())
    return {path.name: path for path in folder.iterdir()}


def _signatures(source: VectorSource, paired: bool) -> dict[str, Signature]:
    module: VectorModule = source.module
    tokenizer = source.tokenizer.in_graph(source.max_length)
    text, samples = tf.TensorSpec([None], tf.string), np.array(SAMPLE_TEXTS, object)

    def serve_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return module(tokenizer(text, None))

    def serve_pair(text_a: tf.Tensor, text_b: tf.Tensor) -> dict[str, tf.Tensor]:
        return module(tokenizer(text_a, text_b))

    def predict_ids(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return module(inputs)

    inputs: dict[str, Any] = {"text_a": samples, "text_b": samples[::-1].copy()} if paired else {"text": samples}
    function: Callable[..., Any] = serve_pair if paired else serve_text
    doc = "raw text pairs to vectors" if paired else "raw text to vectors"
    raw = Signature(function, dict.fromkeys(inputs, text), inputs, doc, tokenizer)
    tokens = source.tokenizer.encode(list(SAMPLE_TEXTS), None, max_length=source.max_length)
    columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
    batch = EncodedTable(columns, {"input_mask": "input_ids"}).batch(range(len(samples)), pad_multiple=1)
    batch.pop("example_weight")
    specs = {name: tf.TensorSpec([None, None], value.dtype) for name, value in batch.items()}
    return {"serving_default": raw, "predict_ids": Signature(predict_ids, specs, batch, "token ids to vectors")}
