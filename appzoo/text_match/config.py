"""Configuration of text matching."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings, LoraSettings, TargetSettings
from appzoo.text_match.pairs import PairDataConfig
from appzoo.text_match.words_config import BiCnnMatchConfig, DamMatchConfig, DamPlusMatchConfig, HcnnMatchConfig
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class BertMatchSettings(EncoderSettings, LoraSettings, TargetSettings):
    """Encoder and head."""


class BertMatchConfig(JobConfig):
    """Match two texts that are packed into one encoder."""

    data: PairDataConfig = PairDataConfig()
    model: BertMatchSettings = BertMatchSettings()


class TwoTowerSettings(EncoderSettings, LoraSettings, TargetSettings):
    """One encoder used for both texts, and how their vectors are compared."""

    dropout_rate: float = setting(0.0, "Dropout on the vectors.", advanced=True, modes="T", ge=0, lt=1)
    projection_dim: int = setting(
        -1,
        "Length of the vectors, projected from the token [CLS]; -1 takes the pooled output.",
        advanced=True,
        modes="T",
        ge=-1,
    )
    match_label: str | None = setting(
        None,
        "The label that says that the texts match; without it words such as match, 1, true and duplicate are known, "
        "and of listed labels it is the second.",
        advanced=True,
        modes="TS",
    )
    matching_loss: Literal["auto", "margin", "softmax", "cosine"] = setting(
        "auto",
        "Loss: in-batch margin, in-batch softmax, or squared error of the cosine; auto = margin, cosine for numbers.",
        advanced=True,
        modes="T",
    )
    margin: float = setting(
        0.3, "How much more similar matches must be, in matching_loss=margin.", advanced=True, modes="T", gt=0
    )
    similarity_scale: float = setting(
        20.0, "What cosines are multiplied by in matching_loss=softmax.", advanced=True, modes="T", gt=0
    )
    threshold: float | None = setting(
        None,
        "Cosine above which a pair is predicted to match; default: of highest accuracy on the evaluation table, which "
        "the run keeps. Losses take 0.5 for none.",
        advanced=True,
        modes="TEPX",
        gt=-1,
        lt=1,
    )


class TwoTowerConfig(JobConfig):
    """Match two texts by the cosine of their vectors, which can be computed and stored one by one."""

    data: PairDataConfig = PairDataConfig()
    model: TwoTowerSettings = TwoTowerSettings()

    @model_validator(mode="after")
    def _check_loss(self) -> TwoTowerConfig:
        if self.model.projection_dim == 0:
            raise ValueError("model.projection_dim must be -1 (no projection) or the length of the vectors, not 0")
        if self.train.class_weights is not None or self.train.label_smoothing:
            raise ValueError("train.class_weights and train.label_smoothing do not apply to two towers; remove them")
        return self


VARIANTS = {
    "bert": BertMatchConfig,
    "bert_two_tower": TwoTowerConfig,
    "dam": DamMatchConfig,
    "damplus": DamPlusMatchConfig,
    "bicnn": BiCnnMatchConfig,
    "hcnn": HcnnMatchConfig,
}
