"""Reads and writes folders of encoders in three forms: Hugging Face, Google and the original EasyTransfer.

TensorFlow is imported only for the two forms that store a TensorFlow checkpoint.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.folder import new_folder, own_file, write_json, write_manifest
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import INDEX, WEIGHTS, read_safetensors_folder, write_safetensors
from easytransfer.presets.weight_values import one_spelling
from easytransfer.text.vocabulary import Rules, read_vocabulary, tokenizer_config
from modelzoo.checkpoint import read_checkpoint, write_checkpoint
from modelzoo.encoder_config import EncoderConfig, Form
from modelzoo.encoder_weights import BACKBONE, EncoderFamily, google_name, match
from modelzoo.loading import TOKENIZERS

if TYPE_CHECKING:
    from easytransfer.text.tokenizer import Tokenizer

FORMS: tuple[Form, ...] = ("hf", "google", "ez")
_PICKLE = re.compile(r"pytorch_model.*\.bin|.*\.(pt|pth|pkl|pickle|joblib)")
# Files of weights that are named when nothing readable is beside them.
_OTHER_WEIGHTS = (".h5", ".keras", ".msgpack", ".npz", ".onnx", ".gguf")
_CHECKPOINT = ", or a TensorFlow checkpoint (*.ckpt.index with *.ckpt.data-00000-of-00001)"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass
class ModelFiles:
    """What was read from a model folder.

    Attributes:
        config: Configuration.
        values: Weights that fit, float32, by Google's names and in Google's layout.
        report: What matched; call `report.check()` before using `values`.
        form: Form of the folder.
        parts: Parts of the model of which the file holds at least one weight.
    """

    config: EncoderConfig
    values: dict[str, np.ndarray]
    report: LoadReport
    form: Form
    parts: tuple[str, ...]


class EncoderFiles:
    """Reads and writes the folders of one family.

    Args:
        family: The family.
    """

    def __init__(self, family: EncoderFamily) -> None:
        self.family = family

    def detect_form(self, folder: str | Path, checkpoint: str | None = None) -> Form:
        """Returns the form of a model folder.

        Raises:
            ModelError: No readable weights are there.
        """
        folder = Path(folder)
        if checkpoint is None and ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file()):
            return "hf"
        if self.family.checkpoints and any(folder.glob("*.index")):
            stated = (folder / self.family.config_class.GOOGLE_FILE).is_file()
            return "google" if stated or "ez" not in self.family.checkpoints else "ez"
        if pickles := sorted(path.name for path in folder.glob("*") if _PICKLE.fullmatch(path.name)):
            raise ModelError(
                f"{folder} holds only {', '.join(pickles)}, a pickle, which can run code when it is read",
                fix="save the model as model.safetensors first, for example with "
                "`save_pretrained(folder, safe_serialization=True)` of transformers",
            )
        others = sorted(path.name for path in folder.glob("*") if path.suffix in _OTHER_WEIGHTS)
        raise ModelError(
            f"no weights in {folder}",
            received=", ".join(others) or None,
            accepted=f"{WEIGHTS}{_CHECKPOINT if self.family.checkpoints else ''}",
            fix="fetch or copy the weights; random weights are used only when from_scratch is set",
        )

    def read_folder(
        self,
        folder: str | Path,
        *,
        form: Form | None = None,
        config: EncoderConfig | None = None,
        parts: Iterable[str] | None = None,
        checkpoint: str | None = None,
    ) -> ModelFiles:
        """Reads configuration and weights of a model folder.

        Args:
            folder: Model folder.
            form: Form of the folder; found out when None.
            config: Sizes to check against; the folder's own configuration when None.
            parts: Parts to read; when None the encoder, the pooler and each head that is in the file.
            checkpoint: Prefix of the TensorFlow checkpoint inside the folder.

        Raises:
            ModelError: The folder has no weights, a file is damaged, or the weights are those of another family.
        """
        folder = Path(folder)
        form = form or self.detect_form(folder, checkpoint)
        config = config or self.family.config_class.from_folder(folder)
        if form == "hf":
            source, tensors = str(folder), self._with_tied_weights(read_safetensors_folder(folder), str(folder))
            names = [self.family.hf_name(name) for name in tensors]
            by_hf = {row.hf: row.name for row in self.family.table(config)}
            present = self.family.parts_in([by_hf[name] for name in names if name in by_hf], config)
        else:
            source, tensors = self.read_checkpoint(folder, checkpoint)
            present = self.family.parts_in([name for name in map(google_name, tensors) if name], config)
        self.family.check_files(folder, tensors)
        wanted = parts if parts is not None else (*BACKBONE, *(part for part in present if part in self.family.heads))
        table = self.family.weights(config, wanted)
        values, report = match(self.family, tensors, table, "hf" if form == "hf" else "google", source)
        return ModelFiles(config, values, report, form, present)

    def read_checkpoint(self, folder: Path, prefix: str | None = None) -> tuple[str, dict[str, np.ndarray]]:
        """Returns the path of a checkpoint and its variables; those of an optimizer have an empty array."""
        path = str(folder / (prefix or self._checkpoint_prefix(folder)))
        values = read_checkpoint(path, lambda name: google_name(name) is not None)
        return path, dict(self.family.from_checkpoint(values, path))

    def write_folder(
        self,
        target: str | Path,
        form: Form,
        config: EncoderConfig,
        values: Mapping[str, np.ndarray],
        *,
        facts: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        **vocabulary: Any,
    ) -> None:
        """Writes a model folder as a whole or not at all.

        Args:
            target: New folder.
            form: `hf`, `google` or `ez`.
            config: Configuration.
            values: Weights by Google's names and in Google's layout.
            facts: Also write the manifest `zoo.json` with these entries.
            overwrite: Replace an existing folder.
            **vocabulary: `source`, `tokenizer` or `vocabulary`, see `write_files`.

        Raises:
            ModelError: The form is unknown or the folder exists.
        """
        if form not in self.family.forms:
            what = f"unknown model format, or one that models of the family {self.family.name} do not have"
            raise ModelError(what, received=form, accepted=self.family.forms)
        with new_folder(target, overwrite) as folder:
            self.write_files(folder, form, config, values, **vocabulary)
            if facts is not None:
                write_manifest(folder, {**self.size_facts(config, values), **facts})

    def write_files(
        self,
        folder: Path,
        form: Form,
        config: EncoderConfig,
        values: Mapping[str, np.ndarray],
        *,
        source: str | Path | None = None,
        tokenizer: Tokenizer | None = None,
        vocabulary: Sequence[str] | None = None,
    ) -> None:
        """Writes configuration, weights and vocabulary of a model into an existing folder.

        Args:
            folder: The folder.
            form: `hf`, `google` or `ez`.
            config: Configuration.
            values: Weights by Google's names and in Google's layout.
            source: Model folder to take the vocabulary from.
            tokenizer: Tokenizer to save instead.
            vocabulary: Tokens to save instead, under the usual rules and the casing of `config`.
        """
        family, data = self.family, config.to_dict(form)
        if form == "hf":
            heads = tuple(part for part in family.parts_in(values, config) if part in family.heads)
            data["architectures"] = [config.class_name(family.architectures.get(heads, family.architectures[()]))]
            write_safetensors(folder / WEIGHTS, family.to_hf(values, config))
        else:
            variables = family.to_checkpoint(values, config)
            write_checkpoint(folder / family.checkpoints[form], variables, family.scope if form == "ez" else "")
        write_json(folder / (family.config_class.GOOGLE_FILE if form == "google" else "config.json"), data)
        if tokenizer is not None:
            tokenizer.save(folder)
        elif vocabulary is not None:
            _write_tokenizer(folder, form, config, vocabulary, Rules(lower_case=config.do_lower_case is not False))
        elif source is not None and (kind := self._own_tokenizer(Path(source))) is not None:
            kind.from_folder(source).save(folder)
        elif source is not None:
            if form == "hf":
                for name in _TOKENIZER_FILES:
                    if Path(source, name).is_file():
                        shutil.copyfile(own_file(source, name), folder / name)
            _write_tokenizer(folder, form, config, *read_vocabulary(source))

    def _own_tokenizer(self, source: Path) -> type[Tokenizer] | None:
        """Returns the kind of the tokenizer in a folder, None for WordPiece, whose files are copied."""
        kinds = [None if name == "WordPiece" else TOKENIZERS[name]() for name in self.family.tokenizers]
        return next((kind for kind in kinds if kind and kind.is_in(source)), kinds[-1])

    def size_facts(self, config: EncoderConfig, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns manifest entries under the names that presets.json uses."""
        # Of several kinds the files say which it is.
        kinds = self.family.tokenizers
        return {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "intermediate": config.intermediate_size,
            "vocab": config.vocab_size,
            "parameters": self.family.parameter_count(config),
            "parts": list(self.family.parts_in(values, config)),
            **({"tokenizer": kinds[0]} if len(kinds) == 1 else {}),
        }

    def _with_tied_weights(self, tensors: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
        """Checks that the masked-LM head shares the embedding table and has one bias, as these models always do."""
        word_names = (self.family.hf_words, self.family.hf_prefix + self.family.hf_words)
        words = next((name for name in word_names if name in tensors), None)
        decoder = self.family.hf_decoder
        if words is not None and decoder in tensors and not np.array_equal(tensors[decoder], tensors[words]):
            raise ModelError(
                f"{source}: the output matrix of the masked-LM head differs from the word embeddings; "
                "both must be shared",
                received=f"{decoder}, {words}",
                fix=f"remove {decoder} from the file where that head is not needed",
            )
        if not decoder.endswith("decoder.weight"):  # and has one name of its bias
            return tensors
        bias = decoder.replace("decoder.weight", "bias")
        biases = [name for name in (bias, decoder.replace("weight", "bias")) if name in tensors]
        return {bias: tensors[one_spelling(biases, tensors, source)], **tensors} if biases else tensors

    def _checkpoint_prefix(self, folder: Path) -> str:
        prefixes = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
        for usual in self.family.checkpoints.values():
            if usual in prefixes:
                return usual
        if len(prefixes) == 1:
            return prefixes[0]
        # TensorFlow's own note of the latest checkpoint in a training folder.
        note = folder / "checkpoint"
        latest = re.search(
            r'^model_checkpoint_path: "([^"/]+)"', note.read_text() if note.is_file() else "", re.MULTILINE
        )
        if latest and latest[1] in prefixes:
            return latest[1]
        raise ModelError(
            f"{folder} holds {len(prefixes)} TensorFlow checkpoints",
            received=", ".join(prefixes) or None,
            fix="name one of them",
        )


def _write_tokenizer(folder: Path, form: Form, config: EncoderConfig, tokens: Sequence[str], rules: Rules) -> None:
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if form != "hf" or (folder / "tokenizer_config.json").is_file():
        return
    settings = {**tokenizer_config(rules), "model_max_length": config.max_tokens}
    write_json(folder / "tokenizer_config.json", settings)
