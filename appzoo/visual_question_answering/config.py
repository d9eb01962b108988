"""Configuration of answering questions about images."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.vision_language_settings import VisionLanguageConfig, VisionLanguageDataConfig, VisionLanguageSettings
from appzoo.visual_question_answering.answers import AnswerRule
from easytransfer.config.schema import setting


class VqaDataConfig(VisionLanguageDataConfig):
    """Tables of questions and images, and their columns."""

    first_sequence: str | None = setting("question", "Column with the question.", modes="TEPS")
    label_name: str | None = setting(
        "answers",
        "Column with the answers of the annotators: a list, or one with model.answer_rule=single.",
        modes="TE",
    )
    answer_type_name: str | None = setting(
        None,
        "Column with the type of the answers, such as yes/no, number and other: each type has an accuracy of its own.",
        advanced=True,
        modes="TE",
    )


class VqaSettings(VisionLanguageSettings):
    """A network on words and regions, and the answers it can give."""

    answer_rule: AnswerRule = setting(
        "newest",
        "When an answer is right: by the newest script of the VQA challenge, by the one before (older), or single: "
        "where it is the one answer that the table has.",
        advanced=True,
        modes="TE",
    )
    min_answer_count: int = setting(
        9,
        "Questions of the training table that an answer must be the best one to, to be one that the network can give.",
        advanced=True,
        modes="T",
        ge=1,
    )
    answer_file: str | None = setting(
        None,
        "Answers that the network can give, one a line, instead of those of the training table.",
        advanced=True,
        modes="T",
        path="one",
    )


class VqaConfig(VisionLanguageConfig):
    """Answer a question about an image with one of the answers of the training table."""

    data: VqaDataConfig = VqaDataConfig()
    model: VqaSettings = VqaSettings()

    @model_validator(mode="after")
    def _check_answers(self) -> VqaConfig:
        if self.data.label_enumerate_values is not None:
            raise ValueError("data.label_enumerate_values does not apply: model.answer_file names a file of answers")
        if self.train.class_weights is not None or self.train.label_smoothing:
            raise ValueError("train.class_weights and train.label_smoothing do not apply to soft scores; remove them")
        return self


VARIANTS = {"": VqaConfig}
