"""The one table of BERT weight names: Google and EasyTransfer, Hugging Face, and our variables.

Google's names and layout ([input, output] kernels, heads side by side) are the neutral form in between:
a reader turns a file into `{google name: array}`, a writer does the reverse, and models copy from and to it.
Imports no TensorFlow.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.weight_values import as_floats, check_type, one_spelling
from modelzoo.bert.config import BertConfig

Part = Literal["encoder", "pooler", "mlm", "nsp"]
PARTS: tuple[Part, ...] = ("encoder", "pooler", "mlm", "nsp")
BACKBONE: tuple[Part, ...] = ("encoder", "pooler")


@dataclass(frozen=True)
class Weight:
    """One array of the model.

    Attributes:
        name: Google's name; EasyTransfer puts `bert_pre_trained_model/` before it.
        hf: Hugging Face's name, without the `bert.` prefix that models with heads add.
        path: Where our variable is in the encoder, see `Encoder.variable`, or attributes of the pre-training head.
        shape: Shape in Google's layout.
        transposed: Hugging Face stores the transpose.
        part: What the weight belongs to.
    """

    name: str
    hf: str
    path: str
    shape: tuple[int, ...]
    transposed: bool
    part: Part


# Per layer: Google's name, Hugging Face's name, ours; then (input, output) sizes, or one size for a LayerNorm.
_LAYER = (
    ("attention/self/query", "attention.self.query", "query", ("hidden", "hidden")),
    ("attention/self/key", "attention.self.key", "key", ("hidden", "hidden")),
    ("attention/self/value", "attention.self.value", "value", ("hidden", "hidden")),
    ("attention/output/dense", "attention.output.dense", "attention_output", ("hidden", "hidden")),
    ("attention/output/LayerNorm", "attention.output.LayerNorm", "attention_norm", ("hidden",)),
    ("intermediate/dense", "intermediate.dense", "inner", ("hidden", "inner")),
    ("output/dense", "output.dense", "output", ("inner", "hidden")),
    ("output/LayerNorm", "output.LayerNorm", "output_norm", ("hidden",)),
)


def weight_table(config: BertConfig, parts: Iterable[Part] = BACKBONE) -> list[Weight]:
    """Returns every weight of the given parts, from the embeddings upwards."""
    hidden = config.hidden_size
    sizes = {"hidden": hidden, "inner": config.intermediate_size}
    rows = [
        _table("word_embeddings", "words", config.vocab_size, hidden),
        _table("position_embeddings", "positions", config.max_position_embeddings, hidden),
        _table("token_type_embeddings", "segments", config.type_vocab_size, hidden),
        *_pair("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", (hidden,), "encoder"),
    ]
    for i in range(config.num_hidden_layers):
        for google, hf, path, shape in _LAYER:
            rows += _pair(
                f"bert/encoder/layer_{i}/{google}",
                f"encoder.layer.{i}.{hf}",
                f"layers.{i}.{path}",
                tuple(sizes[s] for s in shape),
                "encoder",
            )
    rows += _pair("bert/pooler/dense", "pooler.dense", "pooler", (hidden, hidden), "pooler")
    head = "cls/predictions/transform/"
    rows += _pair(head + "dense", "cls.predictions.transform.dense", "transform", (hidden, hidden), "mlm")
    rows += _pair(head + "LayerNorm", "cls.predictions.transform.LayerNorm", "layer_norm", (hidden,), "mlm")
    rows += [
        Weight(
            "cls/predictions/output_bias", "cls.predictions.bias", "output_bias", (config.vocab_size,), False, "mlm"
        ),
        # Both foreign forms store this one as [classes, hidden].
        Weight(
            "cls/seq_relationship/output_weights",
            "cls.seq_relationship.weight",
            "nsp_kernel",
            (2, hidden),
            False,
            "nsp",
        ),
        Weight("cls/seq_relationship/output_bias", "cls.seq_relationship.bias", "nsp_bias", (2,), False, "nsp"),
    ]
    wanted = set(parts)
    return [row for row in rows if row.part in wanted]


def _table(name: str, path: str, rows: int, columns: int) -> Weight:
    hf = f"embeddings.{name}.weight"
    return Weight(f"bert/embeddings/{name}", hf, path, (rows, columns), False, "encoder")


def _pair(google: str, hf: str, path: str, shape: tuple[int, ...], part: Part) -> list[Weight]:
    """Returns kernel and bias of a dense layer (two sizes), or gamma and beta of a LayerNorm (one size)."""
    first, second = ("kernel", "bias") if len(shape) == 2 else ("gamma", "beta")
    return [
        Weight(f"{google}/{first}", f"{hf}.weight", f"{path}.{first}", shape, len(shape) == 2, part),
        Weight(f"{google}/{second}", f"{hf}.bias", f"{path}.{second}", shape[-1:], False, part),
    ]


def parameter_count(config: BertConfig, parts: Iterable[Part] = BACKBONE) -> int:
    """Returns the number of parameters of the given parts."""
    return sum(int(np.prod(row.shape)) for row in weight_table(config, parts))


def parameters_in(folder: str | Path) -> int:
    """Returns the number of encoder parameters of a model folder, from its configuration."""
    return parameter_count(BertConfig.from_folder(folder))


# Our variables ---------------------------------------------------------------------------------------------


def assign(target: Any, table: Iterable[Weight], values: Mapping[str, np.ndarray]) -> None:
    """Copies arrays in Google's layout into variables, or this worker's part; [hidden, heads, size] is reshaped.

    Args:
        target: Encoder or pre-training head: its method `variable(path)` finds a variable.
        table: Weights to copy.
        values: Arrays by Google's names.
    """
    from easytransfer.distributed.shards import assign_whole, whole_shape

    for row in table:
        variable = target.variable(row.path)
        assign_whole(variable, values[row.name].reshape(whole_shape(variable)))


def extract(source: Any, table: Iterable[Weight]) -> dict[str, np.ndarray]:
    """Returns variables of an encoder or head as whole arrays in Google's layout, by Google's name."""
    from easytransfer.distributed.shards import whole_value

    return {row.name: whole_value(source.variable(row.path)).reshape(row.shape) for row in table}


def initial_value(row: Weight, seed: int, deviation: float) -> np.ndarray:
    """Returns fresh float32 weights that depend only on the seed and the name.

    Kernels and embeddings are normal with the given deviation, redrawn beyond two deviations (as in the BERT
    paper's code); LayerNorm scales are one, all biases zero.
    """
    if row.name.endswith("gamma"):
        return np.ones(row.shape, np.float32)
    if len(row.shape) == 1:
        return np.zeros(row.shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(row.name.encode())])
    values = generator.standard_normal(row.shape, np.float32)
    far = np.abs(values) > 2
    while far.any():
        values[far] = generator.standard_normal(int(far.sum()), np.float32)
        far = np.abs(values) > 2
    return values * np.float32(deviation)


# Loading ---------------------------------------------------------------------------------------------------

_OPTIMIZER = re.compile(
    r"(^|/)(adam_[mv]|lamb_[mv]|Adam(_\d+)?|AdamWeightDecay\w*|Momentum|Adagrad|Adadelta(_\d+)?|RMSProp(_\d+)?)$"
    r"|(^|/)(global_step|beta[12]_power|signal_early_stopping/\w+)$"
)
_OUTER_SCOPE = re.compile(r"^[^/]*pre_trained_model[^/]*/")
# Index buffers, and copies of tied weights.
_HF_IGNORED = re.compile(r"^(embeddings\.(position|token_type)_ids|cls\.predictions\.decoder\.(weight|bias))$")

_ENCODER = re.compile(r"(bert/)?(embeddings|encoder|pooler)[./]")

# An imported folder remembers what may be missing, so that training takes it.
_REMEDY = (
    "use the config.json that belongs to the weights, or let missing ones start from random values by a regular "
    "expression of their names: `train` takes --advancedParameters='allow_missing=REGEX', and `easy_transfer_app zoo "
    "import {} NEW_FOLDER --allowMissing=REGEX` writes a model that every command takes"
)


def google_name(source: str) -> str | None:
    """Maps a variable of a Google or EasyTransfer checkpoint to Google's name; None for optimizer state."""
    return None if _OPTIMIZER.search(source) else _OUTER_SCOPE.sub("", source)


def hf_name(source: str) -> str | None:
    """Maps a tensor of a Hugging Face file to the name in the table; None for buffers and tied copies."""
    name = source.removeprefix("bert.")
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return None if _HF_IGNORED.match(name) else name


def match(
    tensors: Mapping[str, np.ndarray], table: list[Weight], layout: Literal["google", "hf"], source: str
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Finds the weights of `table` among the tensors of a file.

    Returns:
        Float32 arrays in Google's layout by Google's name, and the report (not yet checked).

    Raises:
        ModelError: A weight has two names with different values, is not stored as floating-point numbers, or holds
            one that is not finite.
    """
    rename = google_name if layout == "google" else hf_name
    report = LoadReport(source, remedy=_REMEDY.format(source))
    found: dict[str, list[str]] = {}
    for name in tensors:
        key = rename(name)
        if key is None:
            report.ignored.append(name)
        else:
            found.setdefault(key, []).append(name)
    values = {}
    for row in table:
        names = found.pop(row.name if layout == "google" else row.hf, [])
        if not names:
            report.missing.append(row.name)
            continue
        name = one_spelling(names, tensors, source)
        report.repeated += names[1:]
        array = tensors[name]
        check_type(array, name, source)
        transposed = layout == "hf" and row.transposed
        expected = row.shape[::-1] if transposed else row.shape
        if tuple(array.shape) != expected:
            report.mismatched.append((row.name, name, expected, tuple(array.shape)))
            continue
        report.matched.append((row.name, name, expected))
        array = as_floats(array, name, source)
        values[row.name] = array.T if transposed else array
    report.unexpected = sorted(name for names in found.values() for name in names)
    return values, report


def of_encoder(names: Iterable[str]) -> list[str]:
    """Returns the tensors of a file, in either layout, that belong to an encoder and not to a head."""
    return [name for name in names if _ENCODER.match(hf_name(google_name(name) or "") or "")]


def to_hf(values: Mapping[str, np.ndarray], config: BertConfig) -> dict[str, np.ndarray]:
    """Returns arrays under Hugging Face's names and layout.

    The `bert.` prefix is added when a head is among the values, as `BertForPreTraining` stores them.
    """
    table = [row for row in weight_table(config, PARTS) if row.name in values]
    prefix = "bert." if any(row.part in ("mlm", "nsp") for row in table) else ""
    tensors = {}
    for row in table:
        value = values[row.name].T if row.transposed else values[row.name]
        # safetensors writes the buffer as it lies in memory, so a transposed view must be copied.
        tensors[(prefix if row.part in BACKBONE else "") + row.hf] = np.ascontiguousarray(value)
    return tensors


def parts_in(names: Iterable[str], config: BertConfig) -> tuple[Part, ...]:
    """Returns the parts of which at least one weight is among `names` (Google's names)."""
    names = set(names)
    present = {row.part for row in weight_table(config, PARTS) if row.name in names}
    return tuple(part for part in PARTS if part in present)
