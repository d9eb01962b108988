"""Configuration of pre-training on plain text."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings
from appzoo.t5_settings import T5Settings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting

# Pieces of a stage's rows, special ones included, at least.
_SHORTEST = 8


class PretrainSettings(EncoderSettings):
    """The encoder, what of a text it has to guess, and how texts are cut."""

    mlm_probability: float = setting(
        0.15, "Share of the pieces of a passage that are hidden.", advanced=True, modes="TS", gt=0, lt=1
    )
    max_predictions: int | None = setting(
        None,
        "Most pieces of a passage that are hidden; None: mlm_probability of sequence_length.",
        advanced=True,
        modes="TS",
        ge=1,
    )
    whole_word: bool = setting(True, "Hide all pieces of a word together.", advanced=True, modes="TS")
    max_ngram: int = setting(
        1, "Hide up to so many neighbouring words together, n of them with a chance of 1 / n.", advanced=True,
        modes="TS", ge=1, le=10,
    )  # fmt: skip
    word_list: str | None = setting(
        None,
        "File of words, a word a line, whose pieces are hidden together where the tokenizer knows no words, as in "
        "Chinese: the longest word at every place, from left to right.",
        advanced=True,
        modes="TS",
        path="one",
    )
    words_by_blanks: bool = setting(
        False, "Hide what stands between blanks together: texts whose words are separated by blanks.", advanced=True,
        modes="TS",
    )  # fmt: skip
    short_stages: str | None = setting(
        None,
        "Stages of the training on shorter sequences before the one on sequence_length, which takes num_epochs: "
        "length:epochs, such as 128:9, or 64:4,128:5.",
        advanced=True,
        modes="T",
    )
    pair_task: Literal["none", "nsp", "sop"] = setting(
        "none",
        "Also predict of two neighbouring segments: nsp: whether the second is of another document; sop: whether they "
        "were exchanged.",
        advanced=True,
        modes="TS",
    )
    short_passages: float = setting(
        0.1, "Share of passages that are made shorter than sequence_length, at random.", advanced=True, modes="TS",
        ge=0, le=1,
    )  # fmt: skip


def _length_and_epochs(text: str) -> tuple[int, float]:
    """Reads length:epochs."""
    length, _, epochs = text.strip().partition(":")
    try:
        found = int(length), float(epochs)
    except ValueError:
        found = 0, 0.0
    if found[0] < _SHORTEST or not 0 < found[1] < float("inf"):
        raise ValueError(
            f"model.short_stages has {text.strip()!r}, not length:epochs: {_SHORTEST} or more, and above 0"
        )
    return found


class TextPretrainConfig(JobConfig, defaults={"data.first_sequence": "text"}, optional=["data.label_name"]):
    """Train an encoder on plain text, from scratch or further: words that were hidden, pairs of segments."""

    model: PretrainSettings = PretrainSettings()

    @property
    def short_lengths(self) -> dict[int, float]:
        """Epochs by length of the stages on shorter sequences, in their order."""
        return dict(_length_and_epochs(part) for part in (self.model.short_stages or "").split(",") if part.strip())

    @model_validator(mode="after")
    def _check_stages(self) -> TextPretrainConfig:
        lengths = list(self.short_lengths)
        if not lengths:
            return self
        given = (self.model.short_stages or "").count(",") + 1
        if len(lengths) < given or sorted(lengths) != lengths or lengths[-1] >= self.data.sequence_length:
            raise ValueError(
                f"model.short_stages must have lengths that rise and lie below data.sequence_length="
                f"{self.data.sequence_length}, not {self.model.short_stages}"
            )
        if self.model.pair_task != "none":
            raise ValueError("model.short_stages cuts passages, and pairs cannot be cut: set model.pair_task=none")
        return self

    @model_validator(mode="after")
    def _check_passages(self) -> TextPretrainConfig:
        if self.data.second_sequence is not None:
            raise ValueError("data.second_sequence does not apply to text_pretrain, which cuts pairs out of one text")
        if self.data.label_name is not None:
            raise ValueError("data.label_name does not apply to text_pretrain, whose labels are the words of the text")
        for name, own in (("masked_lm_prob", "mlm_probability"), ("max_predictions_per_seq", "max_predictions")):
            if getattr(self.data, name) != type(self.data).model_fields[name].default:
                raise ValueError(f"data.{name} does not apply to text_pretrain: set model.{own}")
        if not self.model.whole_word:
            for name, given in (("max_ngram", self.model.max_ngram > 1), ("word_list", self.model.word_list)):
                if given:
                    raise ValueError(f"model.{name} is about words: set model.whole_word=true")
            if self.model.words_by_blanks:
                raise ValueError("model.words_by_blanks is about words: set model.whole_word=true")
        return self


class SpanSettings(T5Settings):
    """The network, what of a text is left out, and how texts are cut."""

    noise_density: float = setting(
        0.15, "Share of the pieces of a passage that are left out.", advanced=True, modes="T", gt=0, le=0.5
    )
    mean_span_length: float = setting(
        3.0, "Pieces of a span that is left out, on average.", advanced=True, modes="T", ge=1
    )
    short_passages: float = setting(
        0.0, "Share of passages that are made shorter than sequence_length, at random.", advanced=True, modes="T",
        ge=0, le=1,
    )  # fmt: skip


class SpanPretrainConfig(JobConfig, defaults={"data.first_sequence": "text"}, optional=["data.label_name"]):
    """Train a T5 on plain text, from scratch or further: spans that were left out."""

    model: SpanSettings = SpanSettings()

    @model_validator(mode="after")
    def _check_passages(self) -> SpanPretrainConfig:
        for name in ("second_sequence", "label_name"):
            if getattr(self.data, name) is not None:
                raise ValueError(f"data.{name} does not apply to text_pretrain_t5, which reads one text")
        return self


VARIANTS = {"": TextPretrainConfig, "t5": SpanPretrainConfig}
