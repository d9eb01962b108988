"""Configuration of classification with few rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from appzoo.few_shot.pattern import PROMPT, TEXT2, parts_of
from appzoo.settings import EncoderSettings, LoraSettings, TargetSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class PetSettings(EncoderSettings, LoraSettings, TargetSettings):
    """Encoder, pattern and verbalizer."""

    pattern: str = setting(
        "{text} It was [MASK].",
        "What the encoder reads: {text}, {text2} for the second text of a pair, and [MASK] where a word is guessed.",
        advanced=True,
        modes="TS",
    )
    verbalizer: str | None = setting(
        None,
        "Words that stand for each label, label:words,label:words; None: the names of the labels themselves.",
        advanced=True,
        modes="TS",
    )
    mlm_alpha: float = setting(
        1e-4,
        "Share of the loss that guesses hidden words of the text; 0 saves the pass that it takes.",
        advanced=True,
        modes="T",
        ge=0,
        lt=1,
    )
    mlm_probability: float = setting(
        0.15, "Share of the pieces that are hidden for mlm_alpha.", advanced=True, modes="T", gt=0, lt=1
    )
    dropout_rate: float = setting(
        0.0, "There is no head that drops anything: always 0.", advanced=True, modes="T", ge=0, le=0
    )


class PetConfig(JobConfig):
    """Classify texts by the word that an encoder guesses in a pattern (PET)."""

    has_prompts: ClassVar[bool] = False

    model: PetSettings = PetSettings()

    @model_validator(mode="after")
    def _check_pattern(self) -> PetConfig:
        try:
            parts = parts_of(self.model.pattern)
        except ValueError as error:
            raise ValueError(f"model.{error}") from None
        texts = [part.text for part in parts]
        if (TEXT2 in texts) != (self.data.second_sequence is not None):
            fix = "add it" if self.data.second_sequence is not None else "give data.second_sequence"
            raise ValueError(f"model.pattern: {TEXT2} and data.second_sequence belong together; {fix}")
        if (PROMPT in texts) != self.has_prompts:
            needs = f"needs {PROMPT}" if self.has_prompts else f"has {PROMPT}, which few_shot_p_tuning trains"
            raise ValueError(f"model.pattern: {self.model.pattern!r} {needs}")
        return self


class PTuningSettings(PetSettings):
    """Encoder, pattern with trainable prompts, and verbalizer."""

    pattern: str = setting(
        "{text} [P][P][P][MASK].",
        "What the encoder reads: {text}, {text2}, [MASK] where a word is guessed, and [P] for each trainable prompt.",
        advanced=True,
        modes="TS",
    )
    mlm_alpha: float = setting(
        0.0,
        "Share of the loss that guesses hidden words of the text; 0 saves the pass that it takes.",
        advanced=True,
        modes="T",
        ge=0,
        lt=1,
    )
    prompt_encoder: Literal["lstm", "mlp", "none"] = setting(
        "lstm",
        "What makes prompts of trained vectors: lstm: a bidirectional LSTM and two dense layers; mlp: the dense "
        "layers; none: the vectors are the prompts.",
        advanced=True,
        modes="T",
    )
    train_encoder: bool = setting(
        True, "Train the encoder too; false trains and stores the prompts alone.", advanced=True, modes="T"
    )

    @property
    def keeps_base(self) -> bool:
        """Whether the pre-trained network stays as it is and is in no checkpoint."""
        return super().keeps_base or not self.train_encoder

    @model_validator(mode="after")
    def _check_training(self) -> PTuningSettings:
        if not self.train_encoder:
            if self.lora_rank:
                raise ValueError("train_encoder=false trains the prompts alone, and lora_rank adapters; remove one")
            if self.from_scratch:
                raise ValueError("train_encoder=false keeps the encoder, which from_scratch has none of; remove one")
            if self.mlm_alpha:
                raise ValueError("train_encoder=false trains the prompts alone; set mlm_alpha=0")
        return self


class PTuningConfig(PetConfig):
    """Classify texts by the word that an encoder guesses in a pattern with trainable prompts (P-tuning)."""

    has_prompts = True

    model: PTuningSettings = PTuningSettings()


VARIANTS = {"pet": PetConfig, "p_tuning": PTuningConfig}
