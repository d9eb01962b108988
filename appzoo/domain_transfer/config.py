"""Configuration of the transfer between domains."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings, TargetSettings
from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.config.schema import ConfigModel, setting

Algorithm = Literal["dann", "drss", "rtl", "mgtl", "reweight", "source_only", "target_only", "joint"]
# Which rows each algorithm learns from; the first ones make the epochs. `held` are labelled rows of the target that a
# reward is measured on.
STREAMS: dict[Algorithm, tuple[str, ...]] = {
    "source_only": ("source",),
    "target_only": ("target",),
    "joint": ("source", "target"),
    "dann": ("source", "target", "unlabelled"),
    "reweight": ("source", "target", "unlabelled"),
    "drss": ("source", "target", "unlabelled"),
    "rtl": ("source", "target", "held"),
    "mgtl": ("source", "target", "held", "unlabelled"),
}
# Those that need no label of the target domain.
UNSUPERVISED = ("dann", "reweight")


class DomainDataConfig(DataConfig):
    """Tables of the source domains and of the target domain, with the same columns."""

    train_table: str | None = setting(
        None,
        "Training table of the target domain; rows with an empty label are unlabelled ones.",
        modes="T",
        required="T",
        unless="--inputTable names it",
        path="list",
    )
    source_table: str | None = setting(
        None, "Tables of the source domains, with commas between them.", modes="T", path="list"
    )
    eval_table: str | None = setting(
        None, "Table of the target domain that is evaluated during training.", modes="T", required="T", path="list"
    )


class TransferSettings(ConfigModel):
    """How rows of other domains are used."""

    algorithm: Algorithm = setting(
        "dann",
        "dann: features that do not tell the domains apart; drss: shared and own features of the domains; rtl, mgtl: "
        "source rows are selected, by reward; reweight: they count by their likeness to the target's; joint, "
        "source_only, target_only: rows of both domains or of one, without a method.",
        modes="T",
    )
    target_share: float = setting(
        0.25, "Share of labelled target rows in every batch.", advanced=True, modes="T", gt=0, lt=1
    )
    unlabelled_share: float = setting(
        0.25, "Share of unlabelled target rows in every batch.", advanced=True, modes="T", gt=0, lt=1
    )
    domain_weight: float = setting(
        1.0, "Weight of the domains in the features of dann, at the end of its rise.", advanced=True, modes="T", ge=0
    )
    domain_units: int = setting(
        128, "Units of the hidden layer of the domain discriminator.", advanced=True, modes="T", ge=1
    )
    domain_learning_rate: float = setting(
        1e-3, "Learning rate of the domain discriminator.", advanced=True, modes="T", gt=0
    )
    weight_limit: float = setting(
        10.0, "Largest weight of a source row in reweight, before their mean is made 1.", advanced=True, modes="T", gt=1
    )

    relation_weight: float = setting(
        0.01, "Weight of the covariance of the output weights in drss.", advanced=True, modes="T", ge=0
    )
    feature_units: int = setting(
        128, "Shared features, and features of each domain, in drss.", advanced=True, modes="T", ge=1
    )
    held_rows: float = setting(
        0.5,
        "Share of the labelled target rows that rtl and mgtl measure their reward on and do not learn classes from.",
        advanced=True,
        modes="T",
        gt=0,
        lt=1,
    )
    held_share: float = setting(0.25, "Share of these rows in every batch.", advanced=True, modes="T", gt=0, lt=1)
    reward_step: float = setting(
        0.1, "Rate of the step of the last layer that a reward is measured after.", advanced=True, modes="T", gt=0
    )
    selection_draws: int = setting(
        8,
        "Selections that are drawn and rewarded in every batch; the first one is learnt from.",
        advanced=True,
        modes="T",
        ge=2,
    )
    selection_units: int = setting(
        64, "Units of the hidden layers of the policy and its critic.", advanced=True, modes="T", ge=1
    )
    selection_learning_rate: float = setting(
        1e-2, "Learning rate of the policy and its critic.", advanced=True, modes="T", gt=0
    )
    likeness_weight: float = setting(
        1.0, "Weight of the discriminator's reward beside the classifier's in mgtl.", advanced=True, modes="T", ge=0
    )

    @property
    def streams(self) -> dict[str, float]:
        """Share of a batch by kind of rows that the algorithm learns from, the kind that makes the epochs first."""
        shares = {"target": self.target_share, "held": self.held_share, "unlabelled": self.unlabelled_share}
        return {name: shares.get(name, 1.0) for name in STREAMS[self.algorithm]}

    @model_validator(mode="after")
    def _check_shares(self) -> TransferSettings:
        leading, *others = self.streams.values()
        if sum(others) >= leading:
            names = ", ".join(f"transfer.{name}_share" for name in list(self.streams)[1:])
            raise ValueError(f"{names} leave no place for source rows: their sum must be below 1")
        return self


class DomainEncoderSettings(EncoderSettings, TargetSettings):
    """Encoder and head."""


class DomainTransferConfig(JobConfig):
    """Classify texts of a domain with few labels with the help of other domains."""

    data: DomainDataConfig = DomainDataConfig()
    model: DomainEncoderSettings = DomainEncoderSettings()
    transfer: TransferSettings = TransferSettings()

    def training_tables(self) -> str | None:
        """Returns the tables of the target domain and those of the source domains, in this order."""
        return ",".join(filter(None, (self.data.train_table, self.data.source_table))) or None


VARIANTS = {"": DomainTransferConfig}
