"""Configuration of text to text."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import LoraSettings
from appzoo.t5_settings import T5Settings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class GenerationSettings(T5Settings, LoraSettings):
    """The pre-trained network, what it reads, and how it writes."""

    prefix: str = setting(
        "", 'Stands before every text, such as "summarize: ", by which T5 tells tasks apart.', advanced=True, modes="T"
    )
    target_length: int = setting(
        64, "Most pieces of a written text, its end included.", advanced=True, modes="TEPX", ge=2
    )
    decoding: Literal["greedy", "beam", "sampling"] = setting(
        "greedy",
        "greedy: the most probable piece at every place; beam: the best of num_beams texts; sampling: drawn pieces.",
        advanced=True,
        modes="TEPX",
    )
    num_beams: int = setting(4, "Texts that are followed by decoding=beam.", advanced=True, modes="TEPX", ge=2)
    length_penalty: float = setting(
        1.0,
        "Log-probabilities of beams are divided by the length to this power: more for longer texts.",
        advanced=True,
        modes="TEPX",
    )
    temperature: float = setting(1.0, "Logits are divided by it before a draw.", advanced=True, modes="TEPX", gt=0)
    top_k: int = setting(0, "Draw from so many of the most probable pieces; 0: all.", advanced=True, modes="TEPX", ge=0)
    top_p: float = setting(
        1.0,
        "Draw from the fewest pieces whose probabilities sum up to this.",
        advanced=True,
        modes="TEPX",
        gt=0,
        le=1,
    )


class TextGenerationConfig(JobConfig):
    """Turn a text into another one: a summary, a translation, an answer, or the name of a class."""

    held_out_by_label = False
    model: GenerationSettings = GenerationSettings()

    @model_validator(mode="after")
    def _check_texts(self) -> TextGenerationConfig:
        if self.data.second_sequence is not None:
            raise ValueError("data.second_sequence does not apply to text_generation, which reads one text")
        if self.model.decoding != "sampling":
            changed = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
            for name, plain in changed.items():
                if getattr(self.model, name) != plain:
                    raise ValueError(f"model.{name} applies to model.decoding=sampling alone; remove one of them")
        return self


VARIANTS = {"": TextGenerationConfig}
