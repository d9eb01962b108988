"""Names of the weights of encoders: Google and EasyTransfer, Hugging Face, and our variables.

A family has one table of them (`EncoderFamily.table`). Google's names and layout ([input, output] kernels, heads side
by side) are the neutral form in between: a reader turns a file into `{google name: array}`, a writer does the reverse,
and models copy from and to it. Imports no TensorFlow.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.weight_values import as_floats, check_type, one_spelling
from modelzoo.encoder_config import EncoderConfig

# Every family has these parts; heads of the pre-training follow in its table.
BACKBONE = ("encoder", "pooler")
# Per layer of BERT: Google's name, Hugging Face's name, ours; then (input, output) sizes, or one size for a LayerNorm.
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


@dataclass(frozen=True)
class Weight:
    """One array of the model.

    Attributes:
        name: Google's name; EasyTransfer puts a scope before it.
        hf: Hugging Face's name, without the prefix that models with heads add to those of the encoder.
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
    part: str


def _unchanged(values: Mapping[str, np.ndarray], _: Any) -> Mapping[str, np.ndarray]:
    return values


@dataclass(frozen=True)
class EncoderFamily:
    """What tells the files of one family of encoders from those of another.

    Attributes:
        name: Name of its folder in the ModelZoo.
        config_class: Its configuration.
        table: Returns every weight of a configuration, from the embeddings upwards, heads last.
        heads: Parts of the pre-training heads: of masked words, and, if there is one, of pairs of texts.
        architectures: Names of transformers' classes by the heads in a file.
        hf_prefix: What Hugging Face puts before the names of the encoder in a model with a head.
        hf_ignored: Hugging Face's names of index buffers and of copies of tied weights.
        hf_decoder: Hugging Face's name of the output matrix of the head of masked words, which is tied to the word
            embeddings; its bias has the same name with `bias`.
        scope: What EasyTransfer puts before Google's names.
        checkpoints: Name of the TensorFlow checkpoint of the forms `google` and `ez`, where they exist.
        encoder: Names of the encoder's weights in either layout, by their beginnings.
        tokenizers: Kinds of tokenizers that its models have.
        check_files: Raises ModelError where a folder and the names in its file are those of another family.
        optional: Regular expression of weights that published models may lack; they then start from random values.
        hf_words: Hugging Face's name of the word embeddings.
        prefixed: Parts whose names Hugging Face's prefix belongs to.
        from_checkpoint: Turns the variables of a TensorFlow checkpoint, and its name for messages, into those of the
            table, where Google has several in one.
        to_checkpoint: The reverse, of values and configuration.
    """

    name: str
    config_class: type[EncoderConfig]
    table: Callable[[Any], list[Weight]]
    heads: tuple[str, ...]
    architectures: Mapping[tuple[str, ...], str]
    hf_prefix: str
    hf_ignored: re.Pattern[str]
    hf_decoder: str
    scope: str
    checkpoints: Mapping[str, str]
    encoder: re.Pattern[str]
    tokenizers: Sequence[str]
    check_files: Callable[[Any, Iterable[str]], None]
    optional: str | None = None
    hf_words: str = "embeddings.word_embeddings.weight"
    prefixed: tuple[str, ...] = BACKBONE
    from_checkpoint: Callable[[Mapping[str, np.ndarray], str], Mapping[str, np.ndarray]] = _unchanged
    to_checkpoint: Callable[[Mapping[str, np.ndarray], Any], Mapping[str, np.ndarray]] = _unchanged

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms in which its models are stored."""
        return ("hf", *self.checkpoints)

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts of a model."""
        return (*BACKBONE, *self.heads)

    def weights(self, config: EncoderConfig, parts: Iterable[str] = BACKBONE) -> list[Weight]:
        """Returns every weight of the given parts, from the embeddings upwards."""
        wanted = set(parts)
        return [row for row in self.table(config) if row.part in wanted]

    def parameter_count(self, config: EncoderConfig, parts: Iterable[str] = BACKBONE) -> int:
        """Returns the number of parameters of the given parts."""
        return sum(int(np.prod(row.shape)) for row in self.weights(config, parts))

    def hf_name(self, source: str) -> str | None:
        """Maps a tensor of a Hugging Face file to the name in the table; None for buffers and tied copies."""
        name = source.removeprefix(self.hf_prefix)
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        return None if self.hf_ignored.match(name) else name

    def of_encoder(self, names: Iterable[str]) -> list[str]:
        """Returns the tensors of a file, in either layout, that belong to an encoder and not to a head."""
        return [name for name in names if self.encoder.match(self.hf_name(google_name(name) or "") or "")]

    def parts_in(self, names: Iterable[str], config: EncoderConfig) -> tuple[str, ...]:
        """Returns the parts of which at least one weight is among `names` (Google's names)."""
        names = set(names)
        present = {row.part for row in self.table(config) if row.name in names}
        return tuple(part for part in self.parts if part in present)

    def to_hf(self, values: Mapping[str, np.ndarray], config: EncoderConfig) -> dict[str, np.ndarray]:
        """Returns arrays under Hugging Face's names and layout.

        The prefix is added when other parts are among the values, as models with heads store them.
        """
        table = [row for row in self.table(config) if row.name in values]
        prefix = self.hf_prefix if any(row.part not in self.prefixed for row in table) else ""
        tensors = {}
        for row in table:
            value = values[row.name].T if row.transposed else values[row.name]
            # safetensors writes the buffer as it lies in memory, so a transposed view must be copied.
            tensors[(prefix if row.part in self.prefixed else "") + row.hf] = np.ascontiguousarray(value)
        return tensors


def embedding_table(name: str, path: str, rows: int, columns: int) -> Weight:
    """Returns a table of embeddings."""
    hf = f"embeddings.{name}.weight"
    return Weight(f"bert/embeddings/{name}", hf, path, (rows, columns), False, "encoder")


def weight_pair(google: str, hf: str, path: str, shape: tuple[int, ...], part: str) -> list[Weight]:
    """Returns kernel and bias of a dense layer (two sizes), or gamma and beta of a LayerNorm (one size)."""
    first, second = ("kernel", "bias") if len(shape) == 2 else ("gamma", "beta")
    return [
        Weight(f"{google}/{first}", f"{hf}.weight", f"{path}.{first}", shape, len(shape) == 2, part),
        Weight(f"{google}/{second}", f"{hf}.bias", f"{path}.{second}", shape[-1:], False, part),
    ]


def encoder_table(config: EncoderConfig) -> list[Weight]:
    """Returns the weights of an encoder as BERT has them, and of its pooler, from the embeddings upwards."""
    hidden = config.hidden_size
    rows = [
        embedding_table("word_embeddings", "words", config.vocab_size, hidden),
        embedding_table("position_embeddings", "positions", config.max_position_embeddings, hidden),
        embedding_table("token_type_embeddings", "segments", config.type_vocab_size, hidden),
        *weight_pair("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", (hidden,), "encoder"),
    ]
    for i in range(config.num_hidden_layers):
        rows += layer_table(config, f"bert/encoder/layer_{i}", f"encoder.layer.{i}", f"layers.{i}")
    return rows + weight_pair("bert/pooler/dense", "pooler.dense", "pooler", (hidden, hidden), "pooler")


def layer_table(config: EncoderConfig, google: str, hf: str, path: str) -> list[Weight]:
    """Returns the weights of one layer of BERT: self-attention and the feed-forward part.

    Args:
        config: Sizes.
        google: Google's name of the layer.
        hf: Hugging Face's.
        path: Where it is in our network.
    """
    sizes = {"hidden": config.hidden_size, "inner": config.intermediate_size}
    rows = []
    for theirs, of_hf, ours, shape in _LAYER:
        names = (f"{google}/{theirs}", f"{hf}.{of_hf}", f"{path}.{ours}")
        rows += weight_pair(*names, tuple(sizes[size] for size in shape), "encoder")
    return rows


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


_OPTIMIZER = re.compile(
    r"(^|/)(adam_[mv]|lamb_[mv]|Adam(_\d+)?|AdamWeightDecay\w*|Momentum|Adagrad|Adadelta(_\d+)?|RMSProp(_\d+)?)$"
    r"|(^|/)(global_step|beta[12]_power|signal_early_stopping/\w+)$"
)
_OUTER_SCOPE = re.compile(r"^[^/]*pre_trained_model[^/]*/")
# An imported folder remembers what may be missing, so that training takes it.
_REMEDY = (
    "use the config.json that belongs to the weights, or let missing ones start from random values by a regular "
    "expression of their names: `train` takes --advancedParameters='allow_missing=REGEX', and `easy_transfer_app zoo "
    "import {} NEW_FOLDER --allowMissing=REGEX` writes a model that every command takes"
)


def google_name(source: str) -> str | None:
    """Maps a variable of a Google or EasyTransfer checkpoint to Google's name; None for optimizer state."""
    return None if _OPTIMIZER.search(source) else _OUTER_SCOPE.sub("", source)


def match(
    family: EncoderFamily,
    tensors: Mapping[str, np.ndarray],
    table: list[Weight],
    layout: Literal["google", "hf"],
    source: str,
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Finds the weights of `table` among the tensors of a file.

    Returns:
        Float32 arrays in Google's layout by Google's name, and the report (not yet checked).

    Raises:
        ModelError: A weight has two names with different values, is not stored as floating-point numbers, or holds
            one that is not finite.
    """
    rename = google_name if layout == "google" else family.hf_name
    report = LoadReport(source, remedy=_REMEDY.format(source), optional=family.optional)
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
    if family.optional and any(re.search(family.optional, name) for name, _, _ in report.matched):
        report.optional = None  # A half of them is no file that was published.
    return values, report
