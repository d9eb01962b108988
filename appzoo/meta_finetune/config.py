"""Configuration of meta fine-tuning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from appzoo.settings import DomainDataConfig, EncoderSettings, TargetSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class MetaSettings(EncoderSettings, TargetSettings):
    """Encoder, head, and what is learnt of the domains."""

    domain_weight: float = setting(
        0.1, "Weight of the loss of the corrupted domains; 0 leaves it out.", advanced=True, modes="T", ge=0
    )
    domain_layers: list[Annotated[int, Field(ge=1)]] | None = setting(
        None,
        "Layers whose tokens the corrupted domains are told from, numbered from 1; default those at a quarter, a half, "
        "three quarters and the whole of the depth.",
        advanced=True,
        modes="T",
    )
    use_typicality: bool = setting(
        True,
        "Weight rows by how typical they are of their class in all domains; false: all count alike.",
        advanced=True,
        modes="T",
    )


class MetaFinetuneConfig(JobConfig):
    """Fine-tune an encoder for one text or a pair on rows of several domains, to be fine-tuned on each of them next."""

    data: DomainDataConfig = DomainDataConfig()
    model: MetaSettings = MetaSettings()


VARIANTS = {"": MetaFinetuneConfig}
