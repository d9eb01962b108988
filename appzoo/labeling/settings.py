"""Settings of applications that give words tags."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.labeling.readers import ENDINGS
from appzoo.settings import TargetSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class TagSettings(TargetSettings):
    """What has a tag."""

    unit: Literal["word", "character"] = setting(
        "word",
        "What has a tag: a word between spaces, or every character that is not a space.",
        advanced=True,
        modes="TS",
    )
    label_all_subtokens: bool = setting(
        False, "Train on every piece of a word instead of its first one.", advanced=True, modes="TS"
    )


class LabelingConfig(JobConfig):
    """A tag for every word or character of a text."""

    fixed_columns = dict.fromkeys(ENDINGS, {"first_sequence": "words", "label_name": "tags"})
    held_out_by_label = False
    model: TagSettings = TagSettings()

    @model_validator(mode="after")
    def _check_columns(self) -> LabelingConfig:
        without = "does not apply to sequence labelling; remove it"
        if self.data.second_sequence is not None:
            raise ValueError(f"data.second_sequence {without}")
        if self.train.class_weights is not None:
            raise ValueError(f"train.class_weights {without}")
        return self
