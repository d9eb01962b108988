"""The one table of T5 weight names: Hugging Face's, Google's (Mesh TensorFlow) and where our variables are.

Hugging Face's names with kernels as [input, output] are the neutral form in between. Imports no TensorFlow.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.weight_values import as_floats, check_type
from modelzoo.t5.config import T5Config

SHARED, HEAD = "shared.weight", "lm_head.weight"
# Further spellings of the shared table, which must be equal to it.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Of published files that no network uses: attention to the encoder has no relative positions.
_UNUSED = re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$")
_OPTIMIZER = re.compile(r"(^|/)(global_step|\w*_slot_\w+|beta\d_power|Adafactor\w*|adam_[mv])$|_slot_v[rc]?$")


@dataclass(frozen=True)
class Weight:
    """One array of the model.

    Attributes:
        name: Hugging Face's name.
        google: Name in a checkpoint of Mesh TensorFlow.
        path: Where our variable is, attributes and numbers from the network.
        shape: Shape here: kernels are [input, output].
        is_kernel: Whether Hugging Face stores the transpose.
        deviation: Of fresh weights; None for scales, which begin with 1.
    """

    name: str
    google: str
    path: str
    shape: tuple[int, ...]
    is_kernel: bool
    deviation: float | None


def weight_table(config: T5Config) -> list[Weight]:
    """Returns every weight, from the embeddings upwards."""
    width, factor = config.d_model, config.initializer_factor
    table = (config.vocab_size, width)
    rows = [Weight(SHARED, "shared/embedding", "shared", table, False, factor)]
    for side, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        for number in range(layers):
            rows += _block(config, side, number)
        rows.append(_scale(f"{side}.final_layer_norm", f"{side}/final_layer_norm", f"{side}.norm", width))
    if not config.tie_word_embeddings:
        rows.append(Weight(HEAD, "decoder/logits/kernel", "head", table[::-1], True, factor * width**-0.5))
    return rows


def _block(config: T5Config, side: str, number: int) -> list[Weight]:
    width, inner, factor = config.d_model, config.num_heads * config.d_kv, config.initializer_factor
    rows, part = [], 0
    parts = ["SelfAttention", "EncDecAttention"] if side == "decoder" else ["SelfAttention"]
    paths = {"SelfAttention": "attention", "EncDecAttention": "cross"}
    for kind in parts:
        hf, google = f"{side}.block.{number}.layer.{part}", f"{side}/block_{number:03d}/layer_{part:03d}"
        path = f"{side}.blocks.{number}.{paths[kind]}"
        shapes = {"q": (width, inner), "k": (width, inner), "v": (width, inner), "o": (inner, width)}
        deviations = {"q": (width * config.d_kv) ** -0.5, "k": width**-0.5, "v": width**-0.5, "o": inner**-0.5}
        rows += [
            Weight(f"{hf}.{kind}.{n}.weight", f"{google}/{kind}/{n}", f"{path}.{n}", s, True, factor * deviations[n])
            for n, s in shapes.items()
        ]
        if number == 0 and kind == "SelfAttention":
            # Google stores this one as [heads, buckets].
            name, shape = "relative_attention_bias", (config.relative_attention_num_buckets, config.num_heads)
            names = f"{hf}.{kind}.{name}.weight", f"{google}/{kind}/{name}", f"{side}.positions"
            rows.append(Weight(*names, shape, False, factor * width**-0.5))
        rows.append(_scale(f"{hf}.layer_norm", f"{google}/layer_norm", f"{path}.norm", width))
        part += 1
    hf, google = f"{side}.block.{number}.layer.{part}", f"{side}/block_{number:03d}/layer_{part:03d}"
    path, into = f"{side}.blocks.{number}.feed_forward", ["wi_0", "wi_1"] if config.is_gated else ["wi"]
    for name in (*into, "wo"):
        shape = (config.d_ff, width) if name == "wo" else (width, config.d_ff)
        names = f"{hf}.DenseReluDense.{name}.weight", f"{google}/DenseReluDense/{name}/kernel", f"{path}.{name}"
        rows.append(Weight(*names, shape, True, factor * shape[0] ** -0.5))
    return [*rows, _scale(f"{hf}.layer_norm", f"{google}/layer_norm", f"{path}.norm", width)]


def _scale(name: str, google: str, path: str, width: int) -> Weight:
    return Weight(f"{name}.weight", f"{google}/scale", f"{path}.scale", (width,), False, None)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of parameters of a model folder, from its configuration."""
    return sum(int(np.prod(row.shape)) for row in weight_table(T5Config.from_folder(folder)))


def initial_value(row: Weight, seed: int) -> np.ndarray:
    """Returns fresh float32 weights that depend only on the seed and the name."""
    if row.deviation is None:
        return np.ones(row.shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(row.name.encode())])
    return generator.standard_normal(row.shape, np.float32) * np.float32(row.deviation)


def from_hf(
    tensors: Mapping[str, np.ndarray], config: T5Config, source: str
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Finds the weights among the tensors of a Hugging Face file, with the prefix `transformer.` or without.

    Returns:
        Float32 arrays, kernels as [input, output], and the report, not yet checked.

    Raises:
        ModelError: A copy of the shared table differs from it, or a weight is not made of finite numbers.
    """
    named = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    shared = next((named[name] for name in (SHARED, *_COPIES) if name in named), None)
    copies = [*_COPIES, *([HEAD] if config.tie_word_embeddings else [])]
    for name in copies:
        if name in named and not np.array_equal(named[name], shared):
            own = "say tie_word_embeddings false in config.json where the output matrix is one of its own"
            raise ModelError(
                f"{source}: {name} differs from the shared embeddings",
                fix=own if name == HEAD else "encoder and decoder have one table; the file is damaged",
            )
    if shared is not None:
        named = {**named, SHARED: shared}
    ignored = [name for name in named if name in copies or _UNUSED.match(name)]
    values, report = _match({n: v for n, v in named.items() if n not in ignored}, config, source, google=False)
    report.ignored = ignored
    return values, report


def is_weight(name: str) -> bool:
    """Whether a variable of a checkpoint is no state of an optimizer."""
    return _OPTIMIZER.search(name) is None


def from_google(
    tensors: Mapping[str, np.ndarray], config: T5Config, source: str
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Finds the weights among the variables of a checkpoint of Mesh TensorFlow.

    Returns:
        Float32 arrays by Hugging Face's names, kernels as [input, output], and the report, not yet checked.
    """
    ignored = [name for name in tensors if not is_weight(name)]
    values, report = _match({n: v for n, v in tensors.items() if n not in ignored}, config, source, google=True)
    report.ignored = ignored
    return values, report


def _match(
    tensors: dict[str, np.ndarray], config: T5Config, source: str, *, google: bool
) -> tuple[dict[str, np.ndarray], LoadReport]:
    report, values, left = LoadReport(source), {}, dict(tensors)
    for row in weight_table(config):
        name = row.google if google else row.name
        if name not in left:
            report.missing.append(row.name)
            continue
        array = left.pop(name)
        check_type(array, name, source)
        turned = _is_turned(row, google)
        expected = row.shape[::-1] if turned else row.shape
        if tuple(array.shape) != expected:
            report.mismatched.append((row.name, name, expected, tuple(array.shape)))
            continue
        report.matched.append((row.name, name, expected))
        array = as_floats(array, name, source)
        values[row.name] = array.T if turned else array
    report.unexpected = sorted(left)
    return values, report


def _is_turned(row: Weight, google: bool) -> bool:
    return row.path.endswith(".positions") if google else row.is_kernel


def to_hf(values: Mapping[str, np.ndarray], config: T5Config) -> dict[str, np.ndarray]:
    """Returns arrays under Hugging Face's names and in its layout."""
    rows = weight_table(config)
    # safetensors writes the buffer as it lies in memory, so a transposed view must be copied.
    return {row.name: np.ascontiguousarray(values[row.name].T if row.is_kernel else values[row.name]) for row in rows}


def to_google(values: Mapping[str, np.ndarray], config: T5Config) -> dict[str, np.ndarray]:
    """Returns arrays under the names and in the layout of a checkpoint of Mesh TensorFlow."""
    rows = weight_table(config)
    return {row.google: np.ascontiguousarray(values[row.name].T if _is_turned(row, True) else values[row.name])
            for row in rows}  # fmt: skip
