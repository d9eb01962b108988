"""Configuration of win prediction."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from appzoo.win_prediction.groups import FeatureGroup, columns_of, parse_groups
from easytransfer.config.job import DataConfig, JobConfig, ModelConfig, TrainConfig
from easytransfer.config.schema import setting

# A group of one column, where nothing is declared.
_DEFAULT_GROUPS = ["gold = log(gold)"]


class GamesDataConfig(DataConfig):
    """Tables of games and their columns."""

    first_sequence: str | None = setting(
        "minute", "Column with the minutes since the start of the game, one for each frame.", modes="TEPS"
    )
    label_name: str | None = setting(
        "label", "Column with 1 where team A has won and 0 where team B has.", modes="TEPS"
    )
    input_schema: str | None = setting(
        None,
        "Column declaration `name:type:length,...` of text tables, such as gold:float:*; JSONL, Parquet, TFRecord, "
        "timeline and published files need none.",
        modes="TEPS",
        required="T",
        unless="the tables name their columns",
    )


class WinSettings(ModelConfig):
    """Feature groups, the two stages of the network, and how they are trained."""

    groups: list[str] = setting(
        _DEFAULT_GROUPS,
        "Feature groups with their columns, team A minus team B: `kill = kill participation`, `gold = log(gold)`, "
        "`tower = tower:3` for three numbers a frame, `line_up = heroes(heroes_a heroes_b)`.",
        modes="TEP",
    )
    num_frames_column: str | None = setting(
        None, "Column with the number of frames, where cells are padded behind it.", modes="TEP"
    )
    frame_minutes: float | None = setting(
        None,
        "Minutes between frames: a game with a gap of more than one and a half of them is a bad row; none allows gaps.",
        modes="TEP",
        gt=0,
    )
    log_unit: float = setting(1000.0, "Unit of columns that are taken logarithmically.", modes="T", gt=0)
    time_unit: float = setting(20.0, "Minutes that are 1 for the temporal stage.", modes="T", gt=0)
    spatial_units: list[int] = setting([64, 32], "Units of the hidden layers of each spatial network.", modes="T")
    temporal: Literal["gru", "lstm", "mlp", "phase", "uniform"] = setting(
        "gru",
        "Where the weights of groups come from: recurrence over the scores, the time alone, the phase, or 1 / groups.",
        modes="T",
    )
    temporal_units: int = setting(64, "Units of gru, lstm and mlp.", modes="T", ge=1)
    phase_column: str = setting("phase", "Column with the phase of each frame, for temporal=phase.", modes="TEP")
    phases: list[str] = setting([], "Names of the phases, for temporal=phase.", modes="T")
    hero_ids: int = setting(1000, "Heroes have numbers below this.", modes="T", ge=2)
    hero_units: int = setting(16, "Width of the embedding of heroes.", modes="T", ge=1)
    heroes_per_team: int = setting(5, "Heroes of a team.", modes="TEP", ge=1)
    score_bound: Literal["none", "tanh"] = setting("none", "Bounds scores to (-1, 1) with tanh.", modes="T")
    scale: Literal["learned", "none"] = setting(
        "learned", "The factor before the weighted sum of scores: one that is learnt, or 1.", modes="T"
    )
    detach_scores: bool = setting(False, "Keep gradients of the prediction away from the spatial networks.", modes="T")
    training: Literal["stages", "joint"] = setting(
        "stages", "The spatial networks first and the temporal stage on them, or all at once.", modes="T"
    )
    spatial_epochs: float | None = setting(None, "Epochs of the spatial stage; default num_epochs.", modes="T", gt=0)
    together_epochs: float = setting(
        0.0, "Epochs of a third stage that trains everything; 0 = there is none.", modes="T", ge=0
    )
    together_learning_rate: float = setting(3e-4, "Learning rate of the third stage.", modes="T", gt=0)
    spatial_from: str | None = setting(
        None,
        "Run whose spatial networks and scaling are taken in place of a spatial stage.",
        modes="T",
        path="one",
    )
    game_balanced: bool = setting(False, "Every game counts the same in the loss, however long it is.", modes="T")
    entropy_weight: float = setting(0.0, "Weight of the entropy of the weights in the loss.", modes="T", ge=0)
    smoothness_weight: float = setting(
        0.0, "Weight of the squared change of the weights from frame to frame in the loss.", modes="T", ge=0
    )

    @field_validator("groups")
    @classmethod
    def _groups_parse(cls, value: list[str]) -> list[str]:
        parse_groups(value)
        return value

    @field_validator("spatial_units")
    @classmethod
    def _units_are_positive(cls, value: list[int]) -> list[int]:
        if any(units < 1 for units in value):
            raise ValueError("layers have at least one unit")
        return value

    @property
    def feature_groups(self) -> tuple[FeatureGroup, ...]:
        """The groups, parsed."""
        return parse_groups(self.groups)


class WinTrainConfig(TrainConfig):
    """Optimization, evaluation during training, and checkpoints; defaults for small networks from random weights."""

    num_epochs: float = setting(
        8.0, "Passes over the training table, of each stage; fractions are allowed.", modes="T", gt=0
    )
    batch_size: int = setting(128, "Games per step and replica; in other modes per model call.", modes="TEPS", ge=1)
    eval_batch_size: int = setting(256, "Games per evaluation step in training.", advanced=True, modes="T", ge=1)
    learning_rate: float = setting(3e-3, "Peak learning rate.", modes="T", gt=0)
    lr_decay: str = setting(
        "constant",
        "Schedule: polynomial, linear_after_warmup, cosine, constant, inverse_sqrt, step; other words mean constant.",
        advanced=True,
        modes="T",
    )
    warmup_ratio: float = setting(0.0, "Share of steps with linear warm-up.", advanced=True, modes="T", ge=0, le=1)
    clip_norm_value: float = setting(
        5.0, "Global norm gradients are clipped to.", advanced=True, aliases=("max_grad_norm",), modes="T", gt=0
    )


class WinPredictionConfig(JobConfig):
    """Predict the winner of a running game, and what each feature group contributes."""

    data: GamesDataConfig = GamesDataConfig()
    model: WinSettings = WinSettings()
    train: WinTrainConfig = WinTrainConfig()

    @model_validator(mode="after")
    def _check_win_prediction(self) -> WinPredictionConfig:
        model, data = self.model, self.data
        phases = model.phases
        if model.temporal == "phase" and (len(phases) < 2 or len(set(phases)) < len(phases)):
            raise ValueError(f"model.temporal=phase needs two or more model.phases that differ, not {phases}")
        if model.spatial_from and model.training == "joint":
            raise ValueError(
                "model.spatial_from takes the place of the spatial stage, which model.training=joint lacks"
            )
        columns = [name for group in model.feature_groups for name in columns_of(group)]
        others = {"data.first_sequence": data.first_sequence, "data.label_name": data.label_name}
        others["model.num_frames_column"] = model.num_frames_column
        for field, name in others.items():
            if name is not None and name in columns:
                raise ValueError(f"{field}={name} is also a column of model.groups: the network would read it")
        return self


VARIANTS = {"": WinPredictionConfig}
