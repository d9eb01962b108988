"""Configuration of lane detection."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from appzoo.network_settings import BackboneSettings, shape_to_check
from easytransfer.config.job import DataConfig, JobConfig, TrainConfig
from easytransfer.config.schema import setting
from easytransfer.errors import EasyTransferError
from easytransfer.image.size import ImageSize, height_width, size_reader

# By how much the feature maps are reduced; the decoder doubles them three times.
STRIDE = 8
TINY = "tiny"
# Down, up, right, left: the order of the released code.
DIRECTIONS = "durl"
# Width of a drawn lane of the CULane benchmark, and of the images that it is meant for.
CULANE_LANE, CULANE_WIDTH = 30, 1640
_LEAST_LANE = 3


class LaneSettings(BackboneSettings):
    """Network, form of the images, and how lanes are labelled, read off and measured."""

    network: str = setting(
        "resnet34_imagenet",
        "Residual network whose feature maps are used, such as resnet18_imagenet, or the folder of one; tiny: three "
        "small convolutions.",
        advanced=True,
        modes="T",
    )
    backbone_stages: int | None = setting(
        None, "Leave out the stages of the network behind the first so many.", advanced=True, modes="T", ge=2
    )
    channels: int = setting(128, "Channels of the features that lanes are read from.", advanced=True, modes="T", ge=8)
    decoder: Literal["busd", "plain"] = setting(
        "busd",
        "busd: the bilateral up-sampling decoder; plain: one 1x1 convolution, made larger.",
        advanced=True,
        modes="T",
    )
    exist_units: int = setting(
        128, "Width of the dense layer that tells which lanes exist.", advanced=True, modes="T", ge=1
    )
    dropout_rate: float = setting(
        0.1, "Share of channels left out before heads in training.", advanced=True, modes="T", ge=0, lt=1
    )
    input_mode: Literal["bgr_mean", "imagenet"] = setting(
        "bgr_mean",
        "bgr_mean: blue, green, red less their means, as the released networks; imagenet: red, green, blue from 0 to 1 "
        "by ImageNet's mean and deviation, which the weights of backbones usually expect.",
        advanced=True,
        modes="T",
    )

    image_size: Annotated[ImageSize, BeforeValidator(size_reader(16))] = setting(
        (368, 640), "Height and width of what the network sees, multiples of 16.", advanced=True, modes="T"
    )
    original_size: Annotated[ImageSize, BeforeValidator(size_reader(16))] = setting(
        (720, 1280),
        "Height and width of the camera's images, in whose pixels lanes are given; other images are brought to it.",
        advanced=True,
        modes="T",
    )
    cut_height: int = setting(160, "Rows of original_size cut off at the top: the sky.", advanced=True, modes="T", ge=0)
    max_pixels: int = setting(
        50_000_000, "Images of more pixels are bad rows; they are not decoded.", advanced=True, modes="TEP", ge=1
    )

    slots: int = setting(
        6, "Lanes that can be told apart, half of them left of the vehicle.", advanced=True, modes="T", ge=2
    )
    mask_values: Literal["slots", "instances"] = setting(
        "slots",
        "What numbers in masks mean: slots from the left, 1 to model.slots; or one number of any value for each lane.",
        advanced=True,
        modes="TE",
    )
    line_width: int = setting(
        15, "Width in pixels of original_size that lanes are drawn with in masks.", advanced=True, modes="T", ge=1
    )
    max_lanes: int = setting(8, "Most lanes of a row of a table.", advanced=True, modes="TE", ge=1)
    max_points: int = setting(128, "Most points of one of them.", advanced=True, modes="TE", ge=2)

    benchmark: Literal["tusimple", "culane"] = setting(
        "tusimple", "Whose rules lanes are read off and measured by.", advanced=True, modes="TE"
    )
    row_step: int = setting(
        10, "Pixels of original_size between the rows where lanes are read off.", advanced=True, modes="T", ge=1
    )
    row_count: int = setting(56, "Number of these rows, from the bottom.", advanced=True, modes="T", ge=2)
    threshold: float | None = setting(
        None,
        "Probability from which a pixel is of a lane; 0.6 for tusimple, 0.3 for culane.",
        advanced=True,
        modes="T",
        gt=0,
        lt=1,
    )
    f1_width: int | None = setting(
        None,
        "Width in pixels that lanes are compared with by culane; 30 in images of 1640 columns, at least 3.",
        advanced=True,
        modes="TE",
        ge=1,
    )
    categories: list[str] = setting(
        [], "Kinds of images that get scores of their own, as tables name them.", advanced=True, modes="TE"
    )

    seg_loss: Literal["cross_entropy", "dice"] = setting(
        "cross_entropy", "Loss of the probability maps.", advanced=True, modes="T"
    )
    seg_loss_weight: float = setting(1.0, "Weight of that loss.", advanced=True, modes="T", gt=0)
    background_weight: float = setting(
        0.4, "Weight of a background pixel in cross_entropy; one of a lane has 1.", advanced=True, modes="T", gt=0
    )
    exist_loss_weight: float = setting(0.1, "Weight of the loss of which lanes exist.", advanced=True, modes="T", ge=0)
    double_sigmoid: bool = setting(
        False,
        "Take the sigmoid of the existence twice in its loss, as the authors' code does.",
        advanced=True,
        modes="T",
    )
    rotation_degrees: float = setting(
        10.0, "Half of the images are rotated by up to so many degrees.", advanced=True, modes="T", ge=0
    )
    mirror: bool = setting(True, "Half of the images are mirrored, with their slots.", advanced=True, modes="T")

    @property
    def classes(self) -> int:
        """Background and slots."""
        return self.slots + 1

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the feature maps."""
        height, width = height_width(self.image_size)
        return height // STRIDE, width // STRIDE

    @property
    def kept_height(self) -> int:
        """Rows of the original images below the cut."""
        return height_width(self.original_size)[0] - self.cut_height

    @property
    def rows(self) -> list[int]:
        """Rows of the original images where lanes are read off, from the top."""
        height = height_width(self.original_size)[0]
        lowest = height - (1 if self.benchmark == "culane" else self.row_step)
        return [lowest - self.row_step * number for number in reversed(range(self.row_count))]

    @property
    def least_probability(self) -> float:
        """Probability from which a pixel is of a lane."""
        return self.threshold or (0.3 if self.benchmark == "culane" else 0.6)

    @property
    def compared_width(self) -> int:
        """Width in pixels that lanes are compared with by culane."""
        width = height_width(self.original_size)[1]
        return self.f1_width or max(round(CULANE_LANE * width / CULANE_WIDTH), _LEAST_LANE)


class ResaSettings(LaneSettings):
    """RESA between backbone and decoder."""

    iterations: int = setting(5, "Iterations in each direction, K.", advanced=True, modes="T", ge=1)
    kernel_width: int = setting(9, "Width of the convolutions along a slice; odd.", advanced=True, modes="T", ge=1)
    alpha: float = setting(2.0, "Factor of what is added in each iteration.", advanced=True, modes="T", gt=0)
    directions: str = setting(
        DIRECTIONS, "Order of the directions down, up, right and left: some of d, u, r, l.", advanced=True, modes="T"
    )
    resa_init: Literal["scnn", "torch"] = setting(
        "scnn",
        "Start values of RESA: scnn, small ones, or torch, those of the released networks.",
        advanced=True,
        modes="T",
    )


class LaneDataConfig(DataConfig):
    """Tables of images and lanes."""

    first_sequence: str | None = setting(
        "image", "Column with the image: a path relative to the table, `data:` text or bytes.", modes="TEPS"
    )
    label_name: str | None = setting("lanes", "Column with the lanes; see the application's README.", modes="TEPS")


class LaneTrainConfig(
    TrainConfig,
    defaults={
        "optimizer_type": "sgd",
        "weight_decay_ratio": 1e-4,
        "gradient_clip": False,
        "lr_power": 0.9,
        "batch_size": 8,
        "eval_batch_size": 8,
        "learning_rate": 0.02,
        "warmup_ratio": 0.05,
    },
):
    """Optimization of the released networks: sgd, a polynomial of power 0.9 and a linear warm-up."""


class BaselineConfig(JobConfig):
    """Detect lanes from the features of a dilated residual network."""

    data: LaneDataConfig = LaneDataConfig()
    model: LaneSettings = LaneSettings()
    train: LaneTrainConfig = LaneTrainConfig()

    @model_validator(mode="after")
    def _check_lanes(self) -> BaselineConfig:
        model = self.model
        height, width = height_width(model.image_size)
        if height % (2 * STRIDE) or width % (2 * STRIDE):
            raise ValueError(f"model.image_size={[height, width]}: both must be multiples of {2 * STRIDE}")
        if model.slots % 2:
            raise ValueError(f"model.slots={model.slots} must be even: half of the lanes are left of the vehicle")
        if model.kept_height < 2:
            raise ValueError(
                f"model.cut_height={model.cut_height} leaves nothing of model.original_size={model.original_size}"
            )
        if model.rows[0] < model.cut_height:
            raise ValueError(
                f"model.row_count={model.row_count} at model.row_step={model.row_step} reaches row {model.rows[0]}, "
                f"and model.cut_height={model.cut_height} cuts it off"
            )
        if model.network != TINY:
            self._check_network()
        return self

    def _check_network(self) -> None:
        model = self.model
        try:
            shape = shape_to_check(model.network)
            dilated = None if shape is None else shape.replace(output_stride=STRIDE)
            if dilated is not None and model.backbone_stages is not None:
                dilated.first_stages(model.backbone_stages)
        except EasyTransferError as error:
            raise ValueError(f"model.network={model.network}: {error}") from error


class ResaConfig(BaselineConfig):
    """Detect lanes with RESA: slices of the feature maps tell others, near and far, what they see."""

    model: ResaSettings = ResaSettings()

    @model_validator(mode="after")
    def _check_resa(self) -> ResaConfig:
        model = self.model
        if (
            not model.directions
            or len(set(model.directions)) < len(model.directions)
            or set(model.directions) - {*DIRECTIONS}
        ):
            raise ValueError(f"model.directions={model.directions} must be some of d, u, r, l, each at most once")
        if model.kernel_width % 2 == 0:
            raise ValueError(f"model.kernel_width={model.kernel_width} must be odd")
        shortest = min(model.feature_size)
        if 2**model.iterations > shortest:
            raise ValueError(
                f"model.iterations={model.iterations} needs feature maps of {2**model.iterations} rows and columns, "
                f"and model.image_size gives {list(model.feature_size)}: at most {int(math.log2(shortest))}"
            )
        return self


VARIANTS = {"resa": ResaConfig, "baseline": BaselineConfig}
