"""Configuration of the transfer between domains."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings, TargetSettings
from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.config.schema import ConfigModel, setting

Algorithm = Literal["dann", "reweight", "source_only", "target_only", "joint"]


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
        "Method: dann, features that do not tell the domains apart; reweight, source rows count by their likeness to "
        "the target's; or without a method, rows of both domains (joint) or of one alone.",
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

    @model_validator(mode="after")
    def _check_shares(self) -> TransferSettings:
        if self.target_share + self.unlabelled_share >= 1:
            raise ValueError("transfer.target_share and transfer.unlabelled_share leave no place for source rows")
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
