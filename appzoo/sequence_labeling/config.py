"""Configuration of sequence labelling."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.labeling.settings import LabelingConfig, TagSettings
from appzoo.settings import EncoderSettings, LoraSettings
from easytransfer.config.schema import setting


class BertLabelingSettings(EncoderSettings, LoraSettings, TagSettings):
    """Encoder and head."""

    use_crf: bool = setting(False, "Score neighbouring tags with a conditional random field.", advanced=True, modes="T")


class BertLabelingConfig(LabelingConfig):
    """Give every word or character of a text a tag."""

    model: BertLabelingSettings = BertLabelingSettings()

    @model_validator(mode="after")
    def _check_crf(self) -> BertLabelingConfig:
        for name, given in (
            ("model.label_all_subtokens", self.model.label_all_subtokens),
            ("train.label_smoothing", self.train.label_smoothing),
        ):
            if self.model.use_crf and given:
                raise ValueError(f"{name} does not apply when model.use_crf is true; remove one of them")
        return self


VARIANTS = {"bert": BertLabelingConfig}
