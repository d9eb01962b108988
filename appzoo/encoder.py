"""The input side of applications on a pre-trained encoder: tokenizer, encoder configuration, packed token ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import modelzoo.loading as zoo
from appzoo.settings import LoraSettings
from easytransfer.app.inputs.tokens import TokensInput
from easytransfer.config.job import JobConfig
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError
from easytransfer.run.atomic import write_json
from easytransfer.text.tokenizer import Tokenizer, Tokens
from modelzoo.encoder_config import EncoderConfig
from modelzoo.hub import obtain

if TYPE_CHECKING:
    from easytransfer.text.graph import GraphTokenizer
    from modelzoo.backbone import Backbone


class Encoder:
    """Tokenizer and configuration of a pre-trained encoder, one encoding for training, prediction and serving.

    Args:
        config: Configuration whose model section has `EncoderSettings`.
        folder: A run folder or the assets of an export; None takes the ModelZoo.

    Attributes:
        job: The configuration given.
        tokenizer: Its tokenizer.
        config: Sizes of the encoder.

    Raises:
        ConfigError: `sequenceLength` exceeds the positions of the encoder.
        ModelError: The model is not found.
    """

    CONFIG_FILE = "config.json"

    def __init__(self, config: JobConfig, folder: Path | None) -> None:
        self.job = config
        model = config.model
        if folder is None:
            lower = None if model.lower_case == "auto" else model.lower_case == "true"
            name, root = model.pretrain_model_name_or_path, config.runtime.model_zoo_base_path
            obtain(name, root, offline=config.runtime.offline)
            self.tokenizer: Tokenizer = zoo.load_tokenizer(name, root, lower_case=lower)
            self.config: EncoderConfig = zoo.load_config(name, root)
        else:
            self.tokenizer = zoo.load_tokenizer(folder)
            self.config = zoo.load_config(folder)
        limit = self.config.max_tokens
        if config.data.sequence_length > limit:
            raise ConfigError(
                "sequenceLength exceeds the positions of the pre-trained model",
                received=config.data.sequence_length,
                accepted=f"at most {limit}",
            )

    def save(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings and encoder configuration."""
        self.tokenizer.save(folder)
        write_json(folder / self.CONFIG_FILE, self.config.to_dict())

    def tokens(self, first: str, second: str | None = None, **options: Any) -> EncoderTokens:
        """Returns the input for columns of texts; options as `TokensInput` has them."""
        return EncoderTokens(self, first, second, **options)

    def backbone(self, folder: Path | None, workers: Workers) -> Backbone:
        """Builds the encoder with its pre-trained weights, or with the shape stored in `folder` and random ones.

        Where it stays as it is beside adapters or prompts, it has its pre-trained weights in both cases.

        Args:
            folder: A run folder or the assets of an export; None takes the ModelZoo.
            workers: Those that split its layers, if any.

        Raises:
            ConfigError: Workers are to split layers that stay as they are.
        """
        from modelzoo.backbone import Backbone

        model, seed = self.job.model, self.job.runtime.seed
        keeps_base = getattr(model, "keeps_base", False)
        if keeps_base and (workers.tensor is not None or workers.stage is not None):
            raise ConfigError(
                "a network that stays as it is beside what is trained cannot be split over workers",
                fix="set distribution.tensor_parallel=1 and distribution.pipeline_stages=1",
            )
        stored = folder is not None and not keeps_base
        backbone = Backbone.from_preset(
            folder if stored else model.pretrain_model_name_or_path,
            zoo=self.job.runtime.model_zoo_base_path,
            weights=not stored and not model.from_scratch,
            seed=seed,
            allow_missing=None if stored else model.allow_missing,
            tensor=workers.tensor,
            stage=workers.stage,
        )
        if keeps_base and model.lora_rank:
            add_adapters(backbone, model, seed)
        return backbone

    def graph(self, folder: Path) -> GraphTokenizer:
        """Returns the same encoding inside a graph; `folder` is where `save` has written."""
        return self.tokenizer.in_graph(self.job.data.sequence_length, folder)


def add_adapters(backbone: Backbone, model: LoraSettings, seed: int) -> None:
    """Puts the adapters beside the kernels of a network that the settings name."""
    backbone.add_lora(
        rank=model.lora_rank, alpha=model.lora_alpha, dropout=model.lora_dropout, targets=model.lora_targets, seed=seed
    )


class EncoderTokens(TokensInput):
    """Tokens of texts for an encoder, whose configuration is an asset like the vocabulary.

    Args:
        encoder: Tokenizer, configuration and settings of the job.
        first: Table column with the text.
        second: Table column with the second text of a pair; None = one text a row.
        options: As `TokensInput` has them.
    """

    def __init__(self, encoder: Encoder, first: str, second: str | None = None, **options: Any) -> None:
        data = encoder.job.data
        limits = {"max_length": data.sequence_length, "no_truncate": data.no_truncate}
        super().__init__(encoder.tokenizer, first, second, **limits, **options)
        self.encoder = encoder

    @property
    def asset_files(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the files of encoder and tokenizer."""
        return (Encoder.CONFIG_FILE, *super().asset_files)

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings and encoder configuration."""
        self.encoder.save(folder)


def encode_texts(
    tokenizer: Tokenizer, chunk: RowChunk, first: str, second: str | None, max_length: int, no_truncate: bool
) -> Tokens:
    """Encodes columns of a chunk; with `no_truncate`, rows of more than `max_length` tokens are bad rows."""
    pairs = chunk.columns[second] if second else None
    tokens = tokenizer.encode(chunk.columns[first], pairs, max_length=max_length)
    if no_truncate:
        for row in np.flatnonzero(tokens.truncated):
            chunk.reject(int(row), first, f"too long: more than sequenceLength={max_length} tokens")
    return tokens


def count_tokens(counts: Counter[str], tokens: Tokens, kept: np.ndarray) -> None:
    """Adds rows, truncated rows, tokens and unknown tokens of the rows `kept` to an application's `text_counts`."""
    counts.update(
        rows=len(kept),
        truncated=int(tokens.truncated[kept].sum()),
        tokens=int(tokens.input_ids.lengths[kept].sum()),
        unknown=int(tokens.unknown[kept].sum()),
    )


def token_batch() -> dict[str, tf.Tensor]:
    """Returns the smallest batch that builds an encoder's variables."""
    ids = tf.ones([1, 4], tf.int32)
    return {"input_ids": ids, "input_mask": ids, "segment_ids": tf.zeros_like(ids)}
