"""Configuration of the search of small networks for texts."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.settings import EncoderSettings, TargetSettings
from appzoo.teacher_settings import ProbeSettings, TeacherSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class SearchTeacherSettings(ProbeSettings, TeacherSettings):
    """The teacher, whose layers are looked at, and how much of the loss is its."""

    without_teacher = "kd_weight=0"

    kd_weight: float = setting(
        0.8,
        "Share of the distance to the teacher's probes in the loss, gamma; the rest is the labels'. 0: no teacher.",
        advanced=True,
        modes="T",
        ge=0,
        le=1,
    )

    @property
    def needs_teacher(self) -> str:
        """The setting that asks for a teacher; empty where nothing is learnt from one."""
        return f"kd_weight={self.kd_weight:g}" if self.kd_weight else ""


class AdaBertSettings(EncoderSettings, TargetSettings):
    """The network that is searched, or the one that was found; of the encoder only tokenizer and word vectors."""

    arch_path: str | None = setting(
        None,
        "arch.json of a search, or its run folder: the network to train; without it one is searched.",
        advanced=True,
        modes="T",
        aliases=("searched_model",),
        path="one",
    )
    is_pair_task: bool | None = setting(
        None, "Whether rows are pairs of texts; default what secondSequence says.", advanced=True, modes="T"
    )
    emb_pathes: str | None = setting(
        None,
        "Comma list of one or two .npy files to start from: vectors of tokens, and of positions. Default: those of the "
        "tokens of the pre-trained encoder.",
        advanced=True,
        modes="T",
        path="list",
    )
    embedding_size: int | None = setting(
        None,
        "Width of the vectors of tokens with from_scratch=true; default that of the encoder.",
        advanced=True,
        modes="T",
        ge=1,
    )
    hidden_size: int = setting(128, "Channels of the cells.", advanced=True, modes="T", ge=1)
    max_cells: int = setting(8, "Most cells of a search.", advanced=True, modes="T", ge=1)
    efficiency_weight: float = setting(
        4.0, "Weight of size and work of the network in a search, beta.", advanced=True, modes="T", ge=0
    )
    temp_decay_steps: int = setting(
        18000, "Steps in which the temperature of a search falls from 1 to 0.2.", advanced=True, modes="T", ge=1
    )
    arch_learning_rate: float = setting(
        1e-4, "Learning rate of what decides the network.", advanced=True, modes="T", gt=0
    )
    arch_weight_decay: float = setting(
        1e-3, "Weight decay of what decides the network.", advanced=True, modes="T", ge=0
    )

    @model_validator(mode="after")
    def _check_embeddings(self) -> AdaBertSettings:
        if self.embedding_size is not None and (not self.from_scratch or self.emb_pathes):
            raise ValueError(
                "model.embedding_size is of random vectors; set model.from_scratch=true and no emb_pathes, or remove it"
            )
        if self.emb_pathes and not 1 <= len(self.emb_pathes.split(",")) <= 2:
            raise ValueError("model.emb_pathes takes one or two files with a comma between them")
        return self


class AdaBertConfig(
    JobConfig,
    defaults={"train.learning_rate": 5e-4, "train.weight_decay_ratio": 3e-4, "train.clip_norm_value": 5.0},
):
    """Search a small network of convolutions for one text or a pair, or train the one that was found."""

    model: AdaBertSettings = AdaBertSettings()
    distillation: SearchTeacherSettings = SearchTeacherSettings()

    @model_validator(mode="after")
    def _check_pair(self) -> AdaBertConfig:
        stated, pair = self.model.is_pair_task, self.data.second_sequence is not None
        if stated is not None and stated != pair:
            raise ValueError(
                f"model.is_pair_task={str(stated).lower()} and secondSequence is {'given' if pair else 'not given'}; "
                "correct one of them, or leave is_pair_task out"
            )
        return self


VARIANTS = {"": AdaBertConfig}
