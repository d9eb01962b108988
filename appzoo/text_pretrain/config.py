"""Configuration of pre-training on plain text."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class PretrainSettings(EncoderSettings):
    """The encoder, what of a text it has to guess, and how texts are cut."""

    mlm_probability: float = setting(
        0.15, "Share of the pieces of a passage that are hidden.", advanced=True, modes="T", gt=0, lt=1
    )
    max_predictions: int | None = setting(
        None,
        "Most pieces of a passage that are hidden; None: mlm_probability of sequence_length.",
        advanced=True,
        modes="T",
        ge=1,
    )
    whole_word: bool = setting(True, "Hide all pieces of a word together.", advanced=True, modes="T")
    max_ngram: int = setting(
        1, "Hide up to so many neighbouring words together, n of them with a chance of 1 / n.", advanced=True,
        modes="T", ge=1, le=10,
    )  # fmt: skip
    pair_task: Literal["none", "nsp", "sop"] = setting(
        "none",
        "Also predict of two neighbouring segments: nsp: whether the second is of another document; sop: whether they "
        "were exchanged.",
        advanced=True,
        modes="T",
    )
    short_passages: float = setting(
        0.1, "Share of passages that are made shorter than sequence_length, at random.", advanced=True, modes="T",
        ge=0, le=1,
    )  # fmt: skip


class TextPretrainConfig(JobConfig, defaults={"data.first_sequence": "text"}, optional=["data.label_name"]):
    """Train an encoder on plain text, from scratch or further: words that were hidden, pairs of segments."""

    model: PretrainSettings = PretrainSettings()

    @model_validator(mode="after")
    def _check_passages(self) -> TextPretrainConfig:
        if self.data.second_sequence is not None:
            raise ValueError("data.second_sequence does not apply to text_pretrain, which cuts pairs out of one text")
        if self.data.label_name is not None:
            raise ValueError("data.label_name does not apply to text_pretrain, whose labels are the words of the text")
        if self.model.max_ngram > 1 and not self.model.whole_word:
            raise ValueError("model.max_ngram counts words: set model.whole_word=true")
        return self


VARIANTS = {"": TextPretrainConfig}
