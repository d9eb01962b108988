"""Configuration of the variants that compare words, without a pre-trained encoder."""

from __future__ import annotations

from appzoo.settings import TargetSettings
from appzoo.text_match.pairs import PairDataConfig
from appzoo.words_settings import WordSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class WordMatchSettings(WordSettings, TargetSettings):
    """Words and layers of a network that compares two texts."""

    hidden_size: int = setting(200, "Units of the hidden layers, or filters.", advanced=True, modes="T", ge=1)
    first_sequence_length: int = setting(50, "Most words of the first text.", advanced=True, modes="T", ge=1)
    second_sequence_length: int = setting(50, "Most words of the second text.", advanced=True, modes="T", ge=1)


class WordMatchConfig(JobConfig):
    """Match two texts by their words."""

    data: PairDataConfig = PairDataConfig()
    model: WordMatchSettings = WordMatchSettings()


class DamMatchConfig(WordMatchConfig):
    """Match two texts by decomposable attention over their words (DAM)."""


class DamPlusSettings(WordMatchSettings):
    """Words and layers of DAM and BiCNN side by side."""

    # BiCNN has half as many filters.
    hidden_size: int = setting(200, "Units of the hidden layers.", advanced=True, modes="T", ge=2)


class DamPlusMatchConfig(WordMatchConfig):
    """Match two texts by DAM and BiCNN side by side."""

    model: DamPlusSettings = DamPlusSettings()


class BiCnnMatchConfig(WordMatchConfig):
    """Match two texts by convolutions over the words of each (BiCNN)."""


class HcnnSettings(WordMatchSettings):
    """Words and layers of the hybrid CNN."""

    first_sequence_length: int = setting(64, "Most words of the first text.", advanced=True, modes="T", ge=1)
    second_sequence_length: int = setting(64, "Most words of the second text.", advanced=True, modes="T", ge=1)
    l2_reg: float = setting(
        4e-4, "Weight of the penalty on the convolution kernels in the loss.", advanced=True, modes="T", ge=0
    )
    filter_size: int = setting(4, "Width of the wide convolution, in words.", advanced=True, modes="T", ge=1)


class HcnnMatchConfig(WordMatchConfig):
    """Match two texts by wide convolutions and a pyramid on their similarities (hybrid CNN)."""

    model: HcnnSettings = HcnnSettings()
