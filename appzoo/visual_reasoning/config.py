"""Configuration of judging sentences about one or two images."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.vision_language_settings import VisionLanguageConfig, VisionLanguageDataConfig
from easytransfer.config.schema import setting


class ReasoningDataConfig(VisionLanguageDataConfig):
    """Tables of sentences and images, and their columns."""

    first_sequence: str | None = setting("sentence", "Column with the sentence.", modes="TEPS")
    image_column_2: str | None = setting(None, "Column with the second image; None: a row has one image.", modes="TEP")
    box_column_2: str | None = setting(None, "As box_column, of the second image.", modes="TEP")
    label_name: str | None = setting("label", "Column that says whether the sentence is true.", modes="TE")
    label_enumerate_values: str | None = setting(
        "false,true", "The two labels; cells may write them with other capitals.", modes="TE", path="one"
    )
    identifier_name: str | None = setting(
        None,
        "Column with identifiers such as dev-850-0-0 (split-set-pair-sentence) or 1572-0 (sentence-images): with it "
        "consistency is measured.",
        advanced=True,
        modes="TE",
    )


class ReasoningConfig(VisionLanguageConfig):
    """Judge whether a sentence is true of one image, or of two."""

    data: ReasoningDataConfig = ReasoningDataConfig()

    @model_validator(mode="after")
    def _check_second_image(self) -> ReasoningConfig:
        data = self.data
        if data.image_column_2 is None and data.box_column_2 is not None:
            raise ValueError("data.box_column_2 is of the second image, which data.image_column_2 does not name")
        if data.image_column_2 is not None and (data.box_column is None) != (data.box_column_2 is None):
            raise ValueError("data.box_column and data.box_column_2 go together: both images have boxes or none has")
        return self


VARIANTS = {"": ReasoningConfig}
