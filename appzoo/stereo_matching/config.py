"""Configuration of stereo matching."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from easytransfer.config.job import DataConfig, JobConfig, ModelConfig, TrainConfig
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.image.size import ImageSize, height_width, size_reader

# Sides of images are multiples of it: hourglasses halve features of a quarter of the size twice.
MULTIPLE = 16
# The largest average of the pyramid takes 64 features, each of 4 pixels.
_LEAST_SIDE = {"tiny": MULTIPLE, "psm_basic": 256, "psmnet": 256}
_Size = Annotated[ImageSize, BeforeValidator(size_reader(MULTIPLE))]
_OptionalSize = Annotated[ImageSize | None, BeforeValidator(lambda x: x if x is None else size_reader(MULTIPLE)(x))]


def least_side(network: str) -> int:
    """Returns the fewest rows and columns that a network takes."""
    return _LEAST_SIDE[network]


class StereoDataConfig(DataConfig):
    """Tables of pairs and their columns."""

    first_sequence: str | None = setting(
        "left", "Column with the left image: a path relative to the table, `data:` text or bytes.", modes="TEPS"
    )
    second_sequence: str | None = setting("right", "Column with the right image.", modes="TEPS")
    label_name: str | None = setting(
        None,
        "Column with the true disparities, only to measure with: PNG of 16 or 8 bits, or PFM; 0 or infinite where they "
        "are not known, and a cell may be empty. Without it there are none.",
        modes="TE",
    )
    visible_name: str | None = setting(
        None,
        "Column with the true disparities of the pixels that the right eye sees, such as KITTI's disp_noc.",
        advanced=True,
        modes="TE",
    )
    object_name: str | None = setting(
        None, "Column with maps of objects, 0 = background, such as KITTI's obj_map.", advanced=True, modes="TE"
    )
    disparity_scale: float | None = setting(
        None,
        "What a disparity of 1 is in PNG files; default 256 for those of 16 bits, 8 bits need it.",
        advanced=True,
        modes="TE",
        gt=0,
    )
    input_schema: str | None = setting(
        None,
        "Column declaration `name:type:length,...` of text tables, such as left:str:1,right:str:1. Lists of pairs, "
        "KITTI lists, scenes, JSONL and CSV tables need none.",
        modes="TEPS",
        required="T",
        unless="the tables name their columns",
    )


class StereoModelConfig(ModelConfig):
    """The network and the form of its input."""

    network: Literal["tiny", "psm_basic", "psmnet"] = setting(
        "psmnet", "tiny: for tests and small images; psm_basic, psmnet: those of PSMNet.", advanced=True, modes="T"
    )
    max_disparity: int = setting(
        192,
        f"Disparities are below this, a multiple of {MULTIPLE}; images have twice as many columns.",
        advanced=True,
        modes="T",
        ge=MULTIPLE,
        multiple_of=MULTIPLE,
    )
    image_size: _Size = setting(
        (384, 1248),
        "Height and width that images are filled up to, at the top and on the right; larger ones are bad rows.",
        advanced=True,
        modes="T",
    )
    crop_size: _OptionalSize = setting(
        None,
        "Height and width of the part of each pair that is trained on; default all of it.",
        advanced=True,
        modes="T",
    )
    max_pixels: int = setting(
        50_000_000, "Images of more pixels are bad rows; they are not decoded.", advanced=True, modes="TEP", ge=1
    )
    focal_px: float | None = setting(
        None, "Focal length in pixels; with baseline_m predictions have depths.", advanced=True, modes="P", gt=0
    )
    baseline_m: float | None = setting(None, "Distance of the two cameras in metres.", advanced=True, modes="P", gt=0)
    d1_per_image: bool = setting(
        False,
        "Average D1 over images and count errors equal to its limits, as some papers do; KITTI counts pixels of all "
        "images and errors above.",
        advanced=True,
        modes="TE",
    )


class StereoTrainConfig(TrainConfig):
    """Optimization, evaluation during training, and checkpoints; defaults for networks from random weights."""

    num_epochs: float = setting(
        20.0, "Passes over the training table before the first iteration; fractions are allowed.", modes="T", gt=0
    )
    batch_size: int = setting(8, "Pairs per step and replica; in other modes pairs per model call.", modes="TEPS", ge=1)
    eval_batch_size: int = setting(1, "Pairs per evaluation step in training.", advanced=True, modes="T", ge=1)
    learning_rate: float = setting(1e-4, "Peak learning rate before the first iteration.", modes="T", gt=0)
    lr_decay: str = setting(
        "constant",
        "Schedule: polynomial, linear_after_warmup, cosine, constant, inverse_sqrt, step; other words mean constant.",
        advanced=True,
        modes="T",
    )
    adam_epsilon: float = setting(1e-8, "Added to the root of the second moment.", advanced=True, modes="T", gt=0)


class LossConfig(ConfigModel):
    """What is learnt without ground truth."""

    ssim_share: float = setting(
        0.85, "Share of structural dissimilarity in the photometric loss.", advanced=True, modes="T", ge=0, le=1
    )
    smooth_weight: float = setting(0.1, "Weight of the smoothness of disparities.", advanced=True, modes="T", ge=0)
    photo_scales: int = setting(
        4,
        "Sizes of the images that the photometric loss is the mean of, each half of the one before: the smallest finds "
        "matches that are far away, on the whole one a pixel or two are seen.",
        advanced=True,
        modes="T",
        ge=1,
        le=5,
    )
    smooth_relative: bool = setting(
        True, "Divide disparities by their mean for it; else it is in pixels.", advanced=True, modes="T"
    )


class OcclusionConfig(ConfigModel):
    """How pixels that the right eye cannot see are found and used."""

    mask_use: Literal["none", "post", "train", "train+post"] = setting(
        "train+post",
        "Where the mask is used: nowhere, in predictions (hidden pixels take the background's disparity), in training "
        "(iterations with a frozen teacher), or in both.",
        advanced=True,
        modes="TEPX",
    )
    mask_test: Literal["geq", "collision", "zbuffer"] = setting(
        "geq", "How hidden pixels are found, see the README.", advanced=True, modes="TEPX"
    )
    train_jump: float = setting(
        1.0, "Least difference of disparities to what hides a pixel, in training.", advanced=True, modes="T", gt=0
    )
    jump: float = setting(2.0, "The same in predictions, which are noisier.", advanced=True, modes="TEPX", gt=0)
    mask_median: bool = setting(
        False, "Replace the mask by what most of the 3 x 3 pixels around are.", advanced=True, modes="TEPX"
    )
    iterations: int = setting(3, "Iterations with a frozen teacher.", advanced=True, modes="T", ge=1)
    iteration_epochs: float | None = setting(
        None, "Passes over the training table in each; default half of num_epochs.", advanced=True, modes="T", gt=0
    )
    iteration_learning_rate: float | None = setting(
        None, "Peak learning rate in each; default half of learning_rate.", advanced=True, modes="T", gt=0
    )
    fill_weight: float = setting(
        0.1, "Weight of the loss that hidden pixels have the background's disparity.", advanced=True, modes="T", ge=0
    )
    stop_change: float = setting(
        0.02,
        "Iterations end when a new mask differs from the last one in a smaller share of pixels; 0 = never.",
        advanced=True,
        modes="T",
        ge=0,
        lt=1,
    )
    most_hidden: float = setting(
        0.4,
        "Largest share of pixels a mask may hide: pairs with more are left out; a run whose mean is above it stops.",
        advanced=True,
        modes="T",
        gt=0,
        le=1,
    )

    @property
    def in_training(self) -> bool:
        """Whether training has iterations with masks."""
        return self.mask_use.startswith("train")

    @property
    def in_predictions(self) -> bool:
        """Whether predictions are filled."""
        return self.mask_use.endswith("post")


class StereoAugmentConfig(ConfigModel):
    """Random changes of training pairs; the losses see colours as they are."""

    swap_flip: bool = setting(False, "Mirror half of the pairs and exchange their images.", advanced=True, modes="T")
    brightness: float = setting(
        0.0, "Brightness of both images is multiplied by 1 - b to 1 + b.", advanced=True, modes="T", ge=0, lt=1
    )
    contrast: float = setting(
        0.0, "Contrast of both images is multiplied by 1 - c to 1 + c.", advanced=True, modes="T", ge=0, lt=1
    )
    image_jitter: float = setting(
        0.0, "Both once more by 1 - e to 1 + e, for each image on its own.", advanced=True, modes="T", ge=0, lt=1
    )


class StereoMatchingConfig(JobConfig):
    """Learn disparities of stereo pairs without ground truth, with hidden pixels found by their geometry."""

    data: StereoDataConfig = StereoDataConfig()
    model: StereoModelConfig = StereoModelConfig()
    train: StereoTrainConfig = StereoTrainConfig()
    loss: LossConfig = LossConfig()
    occlusion: OcclusionConfig = OcclusionConfig()
    augment: StereoAugmentConfig = StereoAugmentConfig()

    @model_validator(mode="after")
    def _check_sizes(self) -> StereoMatchingConfig:
        model, least = self.model, least_side(self.model.network)
        whole, part = height_width(model.image_size), height_width(model.crop_size or model.image_size)
        for name, size in (("image_size", whole), ("crop_size", part)):
            if any(side % MULTIPLE for side in size):
                raise ValueError(f"model.{name}={list(size)} must have multiples of {MULTIPLE}")
            if min(size) < least:
                raise ValueError(f"model.{name}={list(size)}: model.network={model.network} needs {least} or more")
            if size[1] < 2 * model.max_disparity:
                raise ValueError(
                    f"model.{name}={list(size)}: model.max_disparity={model.max_disparity} needs twice as many columns"
                )
        if part[0] > whole[0] or part[1] > whole[1]:
            raise ValueError(f"model.crop_size={list(part)} is larger than model.image_size={list(whole)}")
        return self

    @model_validator(mode="after")
    def _check_scales(self) -> StereoMatchingConfig:
        part, scales = height_width(self.model.crop_size or self.model.image_size), self.loss.photo_scales
        if min(part) < 2**scales:
            name = "image_size" if self.model.crop_size is None else "crop_size"
            raise ValueError(f"loss.photo_scales={scales} needs model.{name} of {2**scales} or more, not {list(part)}")
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> StereoMatchingConfig:
        data, model = self.data, self.model
        for name in ("visible_name", "object_name"):
            if getattr(data, name) is not None and data.label_name is None:
                raise ValueError(f"data.{name} means nothing without data.label_name")
        if (model.focal_px is None) != (model.baseline_m is None):
            raise ValueError("model.focal_px and model.baseline_m must be given together")
        return self


VARIANTS = {"": StereoMatchingConfig}
