"""Configuration of sequence labelling."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.sequence_labeling.readers import ENDINGS
from appzoo.settings import EncoderSettings, LoraSettings, TargetSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class BertLabelingSettings(EncoderSettings, LoraSettings, TargetSettings):
    """Encoder and head."""

    unit: Literal["word", "character"] = setting(
        "word",
        "What has a tag: a word between spaces, or every character that is not a space.",
        advanced=True,
        modes="TS",
    )
    use_crf: bool = setting(False, "Score neighbouring tags with a conditional random field.", advanced=True, modes="T")
    label_all_subtokens: bool = setting(
        False, "Train on every piece of a word instead of its first one.", advanced=True, modes="TS"
    )


class BertLabelingConfig(JobConfig):
    """Give every word or character of a text a tag."""

    fixed_columns = dict.fromkeys(ENDINGS, {"first_sequence": "words", "label_name": "tags"})
    held_out_by_label = False
    model: BertLabelingSettings = BertLabelingSettings()

    @model_validator(mode="after")
    def _check_parts(self) -> BertLabelingConfig:
        without = "does not apply to sequence labelling; remove it"
        if self.data.second_sequence is not None:
            raise ValueError(f"data.second_sequence {without}")
        if self.train.class_weights is not None:
            raise ValueError(f"train.class_weights {without}")
        for name, given in (
            ("model.label_all_subtokens", self.model.label_all_subtokens),
            ("train.label_smoothing", self.train.label_smoothing),
        ):
            if self.model.use_crf and given:
                raise ValueError(f"{name} does not apply when model.use_crf is true; remove one of them")
        return self


VARIANTS = {"bert": BertLabelingConfig}
