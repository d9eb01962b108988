"""Vectors of texts from any encoder: pre-trained, fine-tuned by an application, or exported.

Of a LiteRT export they are computed without TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import modelzoo.loading as zoo
from appzoo import discovery
from appzoo.encoder import count_tokens, encode_texts
from appzoo.feature_config import DEFAULT_COLUMNS, TOWER_COLUMNS
from appzoo.jobs.inference import traced_once
from appzoo.jobs.trained import open_trained
from easytransfer.app.contract import App
from easytransfer.config.job import RuntimeConfig
from easytransfer.config.stored import has_run_config, inherited, load_run_config
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, ModelError
from easytransfer.litert.model import MODEL, LiteRtModel
from easytransfer.presets import resolve
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.savedmodel.loading import Exported, find_exported, is_exported, load_exported
from easytransfer.text.tokenizer import Tokenizer
from easytransfer.train.precision import compute_precision
from modelzoo.encoder_config import EncoderConfig
from modelzoo.hub import obtain

if TYPE_CHECKING:
    from appzoo.jobs.vector_module import VectorModule

Call = Callable[[dict[str, np.ndarray]], dict[str, Any]]
# Texts of a batch of `text_vectors`.
TEXTS = 32
# Key of the facts about vectors in the manifest of an export.
FACTS = "vectors"


@dataclass
class VectorSource:
    """An encoder opened for vectors.

    Attributes:
        tokenizer: Its tokenizer.
        max_length: Tokens a row is cut to.
        two_towers: Whether first and second text are encoded apart.
        columns: Columns that `call` returns.
        call: The encoder on one batch of `input_ids`, `input_mask`, `segment_ids`.
        path: Checkpoint, model folder or export it was read from.
        name: Its name.
        module: The same encoder inside a graph, None for an export.
        config: Sizes of the encoder, None for an export.
        by_row: Whether rows are computed one by one, so that padding is of no use.
        text_counts: What `encode` has seen, see `App.text_counts`.
    """

    tokenizer: Tokenizer
    max_length: int
    two_towers: bool
    columns: tuple[str, ...]
    call: Call
    path: Path
    name: str
    module: VectorModule | None = None
    config: EncoderConfig | None = None
    by_row: bool = False
    text_counts: Counter[str] = field(default_factory=Counter)

    def encode(self, chunk: RowChunk, first: str, second: str | None, no_truncate: bool = False) -> EncodedTable:
        """Encodes texts as in the training of the encoder.

        Returns:
            `input_ids` and `segment_ids` of accepted rows; with two towers and a second text also the same with `_b`.
        """
        pack = None if self.two_towers else second
        sides = {"": encode_texts(self.tokenizer, chunk, first, pack, self.max_length, no_truncate)}
        if self.two_towers and second:
            sides["_b"] = encode_texts(self.tokenizer, chunk, second, None, self.max_length, no_truncate)
        kept = np.flatnonzero(chunk.accepted)
        columns = {}
        for suffix, tokens in sides.items():
            count_tokens(self.text_counts, tokens, kept)
            columns[f"input_ids{suffix}"] = tokens.input_ids.take(kept)
            columns[f"segment_ids{suffix}"] = tokens.segment_ids.take(kept)
        return EncodedTable(columns, {f"input_mask{suffix}": f"input_ids{suffix}" for suffix in sides})


def open_vectors(
    name: str, columns: Sequence[str] | None, layers: Sequence[int], *, max_length: int | None, runtime: RuntimeConfig
) -> VectorSource:
    """Opens an encoder.

    Args:
        name: ModelZoo name, model folder, checkpoint prefix, run folder or checkpoint of training, or an export.
        columns: Columns to compute; None for those of `ez_bert_feat` without `outputSchema`.
        layers: Layers to take them from; of an export those it was made with.
        max_length: Tokens a row is cut to; None takes those of the training or export, 128 for pre-trained models.
        runtime: Precision, compilation and root of the ModelZoo.

    Raises:
        ModelError: Nothing usable is there.
        ConfigError: A column or layer is not there, or the length exceeds the positions of the encoder.
    """
    if not (Path(name) / CONFIG_FILE).is_file() and is_exported(name):
        return _from_export(name, columns, layers, max_length)
    return _from_run(name, columns, layers, max_length, runtime) if has_run_config(name) else _from_zoo(
        name, columns, layers, max_length, runtime
    )  # fmt: skip


def text_vectors(name: str, texts: Sequence[str], column: str, runtime: RuntimeConfig) -> np.ndarray:
    """Returns the vectors of texts, float64 [texts, size].

    Args:
        name: As for `open_vectors`.
        texts: At least one.
        column: `pool_output`, `first_token_output` or `mean_output`.
        runtime: Precision, compilation and root of the ModelZoo.

    Raises:
        ModelError: Nothing usable is there.
    """
    source = open_vectors(name, [column], [-1], max_length=None, runtime=runtime)
    found = []
    for first in range(0, len(texts), TEXTS):
        tokens = source.tokenizer.encode(list(texts[first : first + TEXTS]), None, max_length=source.max_length)
        columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
        table = EncodedTable(columns, {"input_mask": "input_ids"})
        batch = table.batch(range(len(table)))
        call = {part: batch[part] for part in ("input_ids", "input_mask", "segment_ids")}
        found.append(np.asarray(source.call(call)[column], np.float64)[: len(table)])
    return np.concatenate(found)


def model_path(name: str, root: str | None) -> Path:
    """Returns the file or folder a model name stands for, before anything is loaded."""
    return Path(name) if Path(name).exists() or has_run_config(name) else resolve(name, root).folder


def _from_zoo(
    name: str, columns: Sequence[str] | None, layers: Sequence[int], max_length: int | None, runtime: RuntimeConfig
) -> VectorSource:
    from appzoo.jobs.vector_module import VectorModule
    from modelzoo.backbone import Backbone

    root = runtime.model_zoo_base_path
    preset = obtain(name, root, offline=runtime.offline)
    with compute_precision(runtime.mixed_precision):
        backbone = Backbone.from_preset(name, zoo=root)
    module = VectorModule(backbone, lambda outputs: outputs["pooled_output"], columns or DEFAULT_COLUMNS, layers)
    return _source(
        module, zoo.load_tokenizer(name, root), max_length or 128, runtime, path=preset.folder, name=preset.name
    )


def _from_run(
    name: str, columns: Sequence[str] | None, layers: Sequence[int], max_length: int | None, runtime: RuntimeConfig
) -> VectorSource:
    from appzoo.jobs.vector_module import VectorModule

    stored = inherited(load_run_config(name))
    config_class = discovery.config_class(str(stored.get("model_name")))
    config = config_class.model_validate({**stored, "checkpoint_path": name, "runtime": runtime.model_dump()})
    trained = open_trained(config)
    app: App = trained.app
    if not hasattr(app, "encoder") or not hasattr(app.model, "backbone"):
        raise ModelError(f"{config.model_name} has no pre-trained encoder, so there are no vectors", received=name)
    two_towers = any(part.reads_apart for part in app.inputs)
    columns = columns or _usual_columns(two_towers)
    module = VectorModule(app.model.backbone, getattr(app.model, "text_vector", _pooled), columns, layers)
    length = max_length or config.data.sequence_length
    source = _source(module, app.encoder.tokenizer, length, runtime, path=trained.source, name=str(config.model_name))
    source.two_towers = two_towers
    return source


def _pooled(outputs: Mapping[str, Any]) -> Any:
    return outputs["pooled_output"]


def _usual_columns(two_towers: bool) -> Sequence[str]:
    return TOWER_COLUMNS if two_towers else DEFAULT_COLUMNS


def _from_export(
    name: str, columns: Sequence[str] | None, layers: Sequence[int], max_length: int | None
) -> VectorSource:
    folder = find_exported(name)
    model: LiteRtModel | Exported = LiteRtModel(folder) if (folder / MODEL).is_file() else load_exported(folder)
    facts = model.manifest.get(FACTS)
    if facts is None:
        raise ModelError(
            f"{folder} has no vectors",
            fix="export vectors: `easy_transfer_app export --exportType=ez_bert_feat`",
        )
    columns = columns or _usual_columns(facts["two_towers"])
    missing = [column for column in columns if column not in facts["columns"]]
    if missing:
        raise ConfigError("the export has no such column", received=missing[0], accepted=facts["columns"])
    if list(columns) != ["pool_output"] and list(layers) != facts["layers"]:
        shown = ",".join(map(str, facts["layers"]))
        raise ConfigError("the export was made from other layers", received=list(layers), accepted=f"--layers={shown}")
    length = max_length or model.manifest["max_length"]
    if length > facts["positions"]:
        raise _too_long(length, facts["positions"])
    signature = model if isinstance(model, LiteRtModel) else (lambda batch: model.signatures["predict_ids"](**batch))
    tokenizer = zoo.load_tokenizer(model.assets)

    def call(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        found = signature(batch)
        return {column: found[column] for column in columns}

    by_row = isinstance(model, LiteRtModel)
    return VectorSource(
        tokenizer, length, facts["two_towers"], tuple(columns), call, folder, folder.name, by_row=by_row
    )


def vectors_facts(source: VectorSource, layers: Sequence[int]) -> dict[str, Any]:
    """Returns what `open_vectors` has to know about an export of `source`."""
    assert source.config is not None
    return {
        "columns": list(source.columns),
        "layers": list(layers),
        "two_towers": source.two_towers,
        "positions": source.config.max_tokens,
    }


def _source(
    module: VectorModule, tokenizer: Tokenizer, max_length: int, runtime: RuntimeConfig, *, path: Path, name: str
) -> VectorSource:
    config = module.backbone.config
    if max_length > config.max_tokens:
        raise _too_long(max_length, config.max_tokens)
    call = traced_once(module.__call__, runtime)
    return VectorSource(tokenizer, max_length, False, module._columns, call, path, name, module, config)


def _too_long(length: int, positions: int) -> ConfigError:
    return ConfigError(
        "sequenceLength exceeds the positions of the encoder", received=length, accepted=f"at most {positions}"
    )
