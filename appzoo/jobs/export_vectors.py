"""Export of an encoder that turns raw text or token ids into vectors: a SavedModel, or a model for LiteRT."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.feature_config import VECTOR_COLUMNS
from appzoo.jobs.export_litert import of_rows, row_inputs
from appzoo.jobs.features import CHUNK_ROWS, one_side, open_texts
from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.tables import chosen_columns
from appzoo.jobs.vector_module import VectorModule
from appzoo.jobs.vectors import FACTS, VectorSource, open_vectors, vectors_facts
from easytransfer.app.inputs.tokens import SAMPLE_TEXTS, TokensInput
from easytransfer.config.job import JobConfig, Variant
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, DataError
from easytransfer.export.litert import export_litert
from easytransfer.export.saved_model import ExportReport, export_saved_model
from easytransfer.litert.model import LiteRtModel
from easytransfer.run.atomic import write_json
from easytransfer.run.commands import command_line
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature

# Layers of an export: the last one.
LAYERS = (-1,)
VARIANTS: tuple[Variant, ...] = ("float32", "litert", "litert-int8")
# Texts of a call of the network, where a LiteRT export is compared with it.
ROWS = 32


def export_vectors(config: JobConfig, base: Path) -> Iterator[tuple[Variant, ExportReport, dict[str, Any]]]:
    """Exports the vectors of `checkpoint_path`, a trained application or a pre-trained model.

    `serving_default` takes raw text, or pairs of texts where the application packs pairs; `predict_ids` takes
    `input_ids`, `input_mask` and `segment_ids`. Both return the columns of `ez_bert_feat`.

    Args:
        config: Names the model, the variants and, in `data.output_schema`, the columns; with `data.input_table` LiteRT
            variants are compared with the network on its texts, else on the sample texts of every export.
        base: Folder of all exported models.

    Yields:
        Each variant with its report and what the comparison found: `cosine` to the vectors of the network by column.

    Raises:
        ConfigError: Vectors have no such variant, the text column of the table is not named, or the encoder is none
            that LiteRT can compute.
        ModelError: Nothing usable is there, or the export does not pass its checks.
    """
    wrong = [each for each in config.export.variants if each not in VARIANTS]
    if wrong:
        raise ConfigError("vectors have no such variant", received=wrong[0], accepted=VARIANTS)
    if config.data.input_table and not config.data.first_sequence and config.export.variants != ["float32"]:
        raise ConfigError("the text column of inputTable is not named", fix="give --set data.first_sequence=COLUMN")
    data, runtime = config.data, config.runtime.model_copy(update={"mixed_precision": "none"})
    columns = chosen_columns(data.output_schema, VECTOR_COLUMNS)
    # Of a trained application the stored length is in `data`, of a pre-trained model the default.
    length, name = data.sequence_length, str(config.checkpoint_path)
    source = open_vectors(name, columns, LAYERS, max_length=length, runtime=runtime)
    signatures = _signatures(source, bool(data.second_sequence) and not source.two_towers)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{source.name}_vectors")
    for variant in config.export.variants:
        with tempfile.TemporaryDirectory() as folder:
            described: dict[str, Any] = {
                "name": plain if variant == "float32" else f"{plain}-{variant}",
                "assets": _assets(source, Path(folder)),
                "manifest": {
                    "config": config.model_dump(mode="json"),
                    "checkpoint": source.path.name,
                    "max_length": length,
                    "variant": variant,
                    FACTS: vectors_facts(source, LAYERS),
                },
                "base": base,
                "max_batch_size": config.export.max_batch_size,
                "flat": config.export.flat,
            }
            if variant == "float32":
                report, compared = _export_graph(source, signatures, config, described), {}
            else:
                report = _export_litert(source, signatures, variant == "litert-int8", described)
                compared = _compared(source, report.path, _texts(source, config))
        say(f"exported {report.path}")
        yield variant, report, compared


def _export_graph(
    source: VectorSource, signatures: dict[str, Signature], config: JobConfig, described: dict[str, Any]
) -> ExportReport:
    say("exporting a SavedModel and checking it in a fresh process")
    data = config.data
    command = command_line(
        "export",
        exportType="ez_bert_feat",
        checkpointPath=config.checkpoint_path,
        exportDirBase=described["base"],
        secondSequence=data.second_sequence,
        outputSchema=data.output_schema,
        exportFlat=config.export.flat,
    )
    return export_saved_model(signatures, module=source.module, command=command, **described)


def _export_litert(
    source: VectorSource, signatures: dict[str, Signature], int8: bool, described: dict[str, Any]
) -> ExportReport:
    say("converting the network for LiteRT and checking it")
    specs, inputs = row_inputs([TokensInput(source.tokenizer, "text", max_length=source.max_length)])
    function = of_rows(source.module, inputs, source.module.backbone, int8=int8)
    rows = {"inputs": inputs, "padding": {}}
    return export_litert(
        function, specs, rows, int8=int8, signatures=signatures, module=source.module.owner, **described
    )


def _texts(source: VectorSource, config: JobConfig) -> Iterator[EncodedTable]:
    """Yields the tokens of the texts to compare on, those of two towers one after the other."""
    data = config.data
    if not data.input_table:
        tokens = source.tokenizer.encode(list(SAMPLE_TEXTS), None, max_length=source.max_length)
        columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
        yield EncodedTable(columns, {"input_mask": "input_ids"})
        return
    for chunk in open_texts(data).chunks(CHUNK_ROWS):
        encoded = source.encode(chunk, str(data.first_sequence), data.second_sequence)
        for suffix in ("", "_b") if "input_ids_b" in encoded.columns else ("",):
            yield one_side(encoded, suffix)


def _compared(source: VectorSource, exported: Path, tables: Iterable[EncodedTable]) -> dict[str, Any]:
    """Returns how many texts were compared, and mean and smallest cosine to the vectors of the network by column."""
    texts, found = 0, {column: [np.zeros(0)] for column in source.columns}
    with closing(LiteRtModel(exported)) as model:
        for table in tables:
            texts += len(table)
            ours, theirs = (outputs_in_order(table, call, ROWS) for call in (model, source.call))
            for column, each in found.items():
                each.extend(cosines(*pair) for pair in zip(ours[column], theirs[column], strict=True))
    if not texts:
        raise DataError("no row of inputTable has a text that could be used")
    joined = {column: np.concatenate(each) for column, each in found.items()}
    return {
        "texts": texts,
        "cosine": {name: {"mean": float(each.mean()), "smallest": float(each.min())} for name, each in joined.items()},
    }


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosine of every two vectors, float64 [vectors]; those where the second is 0 are left out.

    Args:
        first: One vector [size], or several [vectors, size].
        second: Of the same shape.
    """
    first, second = (np.atleast_2d(np.asarray(each, np.float64)) for each in (first, second))
    there = second.any(axis=1)
    first, second = first[there], second[there]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    # A vector of zeros in place of another one has the cosine 0.
    return (first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1)


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
