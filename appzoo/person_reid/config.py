"""Configuration of re-identification: the baseline, the apparel-simulation GAN, and features that ignore apparel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from appzoo.network_settings import BackboneSettings, shape_to_check
from easytransfer.config.job import DataConfig, JobConfig, ModelConfig, TrainConfig
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import EasyTransferError
from easytransfer.image.size import ImageSize, height_width, size_reader
from modelzoo.cnn.pretrained import input_form

TINY = "tiny"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The tiny network takes images from -1 to 1.
TINY_MEAN = TINY_STD = (0.5, 0.5, 0.5)
CHANNELS = 3


class PersonDataConfig(DataConfig):
    """Tables of person crops and their columns."""

    first_sequence: str | None = setting(
        "image", "Column with the image: a path relative to the table, `data:` text, bytes or an array.", modes="TEPS"
    )
    label_name: str | None = setting(
        "pid", "Column with the identity: a whole number, -1 where it is unlabelled or junk.", modes="TEPS"
    )
    distractor_pid: int | None = setting(
        0,
        "Identity of gallery images that show none of the persons, as in Market-1501; none: there is no such number.",
        advanced=True,
        modes="TE",
    )
    camera_name: str | None = setting(
        "camera", "Column with the number of the camera, -1 unknown; empty: there is none.", modes="TE"
    )
    clothes_name: str | None = setting(
        "clothes",
        "Column with the number of the outfit, which tells apart those of one identity, -1 unknown; empty: there is "
        "none.",
        modes="TE",
    )
    split_name: str | None = setting(
        "split",
        "Column that says what a row is for: train, query, gallery, unlabelled, or 0 to 3; empty: rows of files with "
        "`query` in their name are queries, all others gallery, and those of the training table for training.",
        modes="TE",
    )
    mask_name: str | None = setting(
        "mask", "Column with a map of the garments: 0 none, 1 upper, 2 lower; read where masks=column.", modes="TEP"
    )
    input_schema: str | None = setting(
        None,
        "Column declaration `name:type:length,...` of text tables. Folders of the data sets, .persons, TFRecord, JSONL "
        "and CSV tables need none.",
        modes="TEPS",
        required="T",
        unless="the tables name their columns",
    )


class PersonTrainConfig(TrainConfig):
    """Optimization, evaluation during training, and checkpoints; defaults of the strong baseline."""

    num_epochs: float = setting(120.0, "Passes over the training table; fractions are allowed.", modes="T", gt=0)
    batch_size: int = setting(
        64, "Images per step and replica; in other modes rows per model call.", modes="TEPS", ge=1
    )
    eval_batch_size: int = setting(128, "Rows per evaluation step in training.", advanced=True, modes="T", ge=1)
    learning_rate: float = setting(3.5e-4, "Peak learning rate.", modes="T", gt=0)
    weight_decay_ratio: float = setting(
        5e-4, "Decoupled weight decay, not of biases and normalization.", advanced=True, modes="T", ge=0
    )
    lr_decay: str = setting(
        "step",
        "Schedule: polynomial, linear_after_warmup, cosine, constant, inverse_sqrt, step; other words mean constant.",
        advanced=True,
        modes="T",
    )
    lr_milestones: tuple[float, ...] = setting(
        (40 / 120, 70 / 120),
        "Shares of all steps at which lr_decay=step divides the rate by 10.",
        advanced=True,
        modes="T",
    )
    warmup_ratio: float = setting(10 / 120, "Share of steps with linear warm-up.", advanced=True, modes="T", ge=0, le=1)
    warmup_start: float = setting(
        0.01, "Share of the learning rate that the warm-up begins with.", advanced=True, modes="T", ge=0, le=1
    )
    gradient_clip: bool = setting(False, "Clip gradients by their global norm.", advanced=True, modes="T")
    label_smoothing: float = setting(
        0.1, "Share of the target spread over all identities.", advanced=True, modes="T", ge=0, lt=1
    )


class CropSettings(ModelConfig):
    """The form of the images, and how they are changed at random."""

    image_size: Annotated[ImageSize, BeforeValidator(size_reader(16))] = setting(
        (256, 128), "Height and width images are stretched to.", advanced=True, modes="T"
    )
    max_pixels: int = setting(
        50_000_000, "Images of more pixels are bad rows; they are not decoded.", advanced=True, modes="TEP", ge=1
    )
    flip: bool = setting(True, "Mirror half of the training images left to right.", advanced=True, modes="T")
    crop_padding: int = setting(
        10, "Black pixels added on each side before a random crop of the old size.", advanced=True, modes="T", ge=0
    )


class ReidSettings(CropSettings, BackboneSettings):
    """Network, losses and batches."""

    network: str = setting(
        "resnet50_imagenet",
        "Network of the features, such as resnet50_imagenet, an image model of the ModelZoo or a model folder; tiny: a "
        "small one for tests.",
        advanced=True,
        modes="T",
    )
    last_stride: Literal[1, 2] = setting(1, "Stride of the last stage of the network.", advanced=True, modes="T")
    channel_mean: list[float] | None = setting(
        None,
        "Mean of each channel, 0 to 1; default the model's or ImageNet's, of tiny 0.5.",
        advanced=True,
        modes="T",
    )
    channel_std: list[float] | None = setting(
        None, "Standard deviation of each channel; default as of channel_mean.", advanced=True, modes="T"
    )
    images_per_identity: int = setting(
        4, "Images of each identity in a batch (K); batch_size / K is the number of identities (P).", advanced=True,
        modes="T", ge=2,
    )  # fmt: skip
    margin: float = setting(0.3, "Margin of the triplet loss.", advanced=True, modes="T", ge=0)
    triplet_weight: float = setting(1.0, "Weight of the triplet loss.", advanced=True, modes="T", ge=0)
    erase_probability: float = setting(
        0.5, "Share of images in which a random rectangle is erased.", advanced=True, modes="T", ge=0, le=1
    )
    erase_area: list[float] = setting(
        [0.02, 0.4], "Smallest and largest share of the image that is erased.", advanced=True, modes="T"
    )
    erase_aspect: list[float] = setting(
        [0.3, 3.33], "Smallest and largest height divided by width of what is erased.", advanced=True, modes="T"
    )
    colour_jitter: float = setting(
        0.0,
        "Strength, 0 to 1, of random changes of hue, saturation and brightness of whole images; a control to compare "
        "with, 0 = off.",
        advanced=True,
        modes="T",
        ge=0,
        le=1,
    )

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the channels that images are normalised with."""
        if self.channel_mean is not None:
            return tuple(self.channel_mean)
        return TINY_MEAN if self.network == TINY and self.backbone_path is None else IMAGENET_MEAN

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the channels that images are normalised with."""
        if self.channel_std is not None:
            return tuple(self.channel_std)
        return TINY_STD if self.network == TINY and self.backbone_path is None else IMAGENET_STD

    @model_validator(mode="before")
    @classmethod
    def _with_statistics(cls, data: Any) -> Any:
        """Fills in mean and deviation that belong to a pre-trained model, where none of them is given."""
        names = ("channel_mean", "channel_std")
        if not isinstance(data, Mapping) or any(data.get(name) is not None for name in names):
            return data
        try:
            form = input_form(str(data.get("backbone_path") or data.get("network") or TINY))
        except EasyTransferError as error:
            raise ValueError(f"model.network: {error}") from error
        return {**data, **{name: form[name] for name in names if name in form}}

    @model_validator(mode="after")
    def _check_images(self) -> ReidSettings:
        for name in ("channel_mean", "channel_std"):
            given = getattr(self, name)
            if given is not None and (len(given) != CHANNELS or (name == "channel_std" and min(given) <= 0)):
                raise ValueError(f"model.{name}={given} must have {CHANNELS} numbers, deviations above 0")
        for name, most in (("erase_area", 1.0), ("erase_aspect", float("inf"))):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
                raise ValueError(f"model.{name}={value} must be two numbers, 0 < smallest <= largest <= {most}")
        if self.network != TINY:
            try:
                shape = shape_to_check(self.network)
            except EasyTransferError as error:
                raise ValueError(f"model.network: {error}") from error
            if shape is not None and not shape.strides:
                raise ValueError(f"model.network={self.network} has no stages, and model.last_stride none to change")
        return self


class RetrievalSettings(ConfigModel):
    """How queries are ranked against the gallery."""

    rerank: bool = setting(
        False, "Re-rank by k-reciprocal neighbours before anything is measured.", advanced=True, modes="TE"
    )
    rerank_k1: int = setting(20, "Neighbours that are compared.", advanced=True, modes="TE", ge=1)
    rerank_k2: int = setting(6, "Neighbours that an image is averaged with.", advanced=True, modes="TE", ge=1)
    rerank_lambda: float = setting(0.3, "Share of the first distance.", advanced=True, modes="TE", ge=0, le=1)
    single_shot_trials: int = setting(
        0,
        "Measure on so many random galleries of one image for each identity and take the mean, as PRCC does with 10; "
        "0 = on the whole gallery.",
        advanced=True,
        modes="TE",
        ge=0,
    )
    most_pairs: int = setting(
        900_000_000,
        "Re-ranking holds a number for every two images: with more pairs than this it is refused.",
        advanced=True,
        modes="TE",
        ge=1,
    )


class BaselineConfig(JobConfig):
    """Find a person again in the images of other cameras: BNNeck features, identity and triplet loss."""

    data: PersonDataConfig = PersonDataConfig()
    model: ReidSettings = ReidSettings()
    train: PersonTrainConfig = PersonTrainConfig()
    retrieval: RetrievalSettings = RetrievalSettings()

    @model_validator(mode="after")
    def _check_batches(self) -> BaselineConfig:
        check_batches(self.train.batch_size, self.model.images_per_identity, 0)
        return self


def check_batches(batch_size: int, images_per_identity: int, unlabelled: int) -> None:
    """Checks that a batch holds whole identities, two at least.

    Raises:
        ValueError: It does not.
    """
    labelled = batch_size - unlabelled
    if labelled % images_per_identity or labelled < 2 * images_per_identity:
        of_these = f" less model.unlabelled_per_batch={unlabelled}" if unlabelled else ""
        raise ValueError(
            f"train.batch_size={batch_size}{of_these} must be a multiple of model.images_per_identity="
            f"{images_per_identity}, two of them at least"
        )


class GanSettings(ConfigModel):
    """AS-GAN: its networks, its losses and where garments are."""

    size: Literal["full", "tiny"] = setting("full", "Sizes of the networks.", advanced=True, modes="T")
    masks: Literal["column", "learned", "band"] = setting(
        "column",
        "Where garments are: in a column of the table, found by a head that learns it without labels, or in a fixed "
        "band in the middle.",
        advanced=True,
        modes="T",
    )
    shading: float = setting(
        0.3, "Share of the shading of garments that the generator sees; 0 hides it.", advanced=True, modes="T", ge=0
    )
    reconstruction_weight: float = setting(5.0, "Weight of L_rec.", advanced=True, modes="T", ge=0)
    embedding_weight: float = setting(1.0, "Weight of L_emb.", advanced=True, modes="T", ge=0)
    cycle_weight: float = setting(2.0, "Weight of L_cyc.", advanced=True, modes="T", ge=0)
    style_weight: float = setting(2.0, "Weight of L_sty.", advanced=True, modes="T", ge=0)
    adversarial_weight: float = setting(0.1, "Weight of L_adv.", advanced=True, modes="T", ge=0)
    learning_rate: float = setting(2e-4, "Rate of encoder and generator.", advanced=True, modes="T", gt=0)
    critic_learning_rate: float = setting(1e-4, "Rate of the critic.", advanced=True, modes="T", gt=0)
    area_prior: float = setting(
        0.25, "Share of an image that garments have, of masks=learned.", advanced=True, modes="T", gt=0, lt=1
    )
    area_tolerance: float = setting(
        0.10, "How much that share may differ without a penalty.", advanced=True, modes="T", ge=0, lt=1
    )
    variation_weight: float = setting(
        0.1, "Weight of the length of outlines, of masks=learned.", advanced=True, modes="T", ge=0
    )


class AsGanTrainConfig(PersonTrainConfig, defaults={
    "num_epochs": 100.0, "batch_size": 32, "weight_decay_ratio": 0.0, "lr_decay": "constant", "warmup_ratio": 0.0,
    "adam_beta1": 0.5,
}):  # fmt: skip
    """Optimization, evaluation during training, and checkpoints; rates are those of the section gan."""


class CropDataConfig(PersonDataConfig, defaults={"label_name": None}):
    """Tables of person crops and their columns."""


class AsGanConfig(JobConfig):
    """Learn, without labels, to draw persons in the clothes of others (AS-GAN)."""

    data: CropDataConfig = CropDataConfig()
    model: CropSettings = CropSettings()
    gan: GanSettings = GanSettings()
    train: AsGanTrainConfig = AsGanTrainConfig()

    @model_validator(mode="after")
    def _check_gan(self) -> AsGanConfig:
        check_gan(self.model, self.gan, self.data)
        return self


def check_gan(model: CropSettings, gan: GanSettings, data: PersonDataConfig) -> None:
    """Checks what the networks of AS-GAN need.

    Raises:
        ValueError: Images cannot be halved twice, or there is no column of masks.
    """
    if any(side % 4 for side in height_width(model.image_size)):
        raise ValueError(f"model.image_size={model.image_size} must be multiples of 4 for the generator")
    if gan.masks == "column" and not data.mask_name:
        raise ValueError("gan.masks=column needs the column data.mask_name")


class AiflReidSettings(ReidSettings):
    """Network, losses and batches."""

    unlabelled_per_batch: int = setting(
        0,
        "Unlabelled images in every batch, which have a part in the invariance term alone.",
        advanced=True,
        modes="T",
        ge=0,
    )


class AiflSettings(ConfigModel):
    """Features that ignore apparel: where other outfits come from, and what they count."""

    generator: str | None = setting(
        None,
        "Run of person_reid_as_gan whose generator is used; none: it is trained first, in a stage of this run.",
        advanced=True,
        modes="T",
        path="one",
    )
    gan_epochs: float = setting(
        100.0, "Length of that stage in passes over the training table.", advanced=True, modes="T", gt=0
    )
    invariance_weight: float = setting(
        1.0, "lambda, the weight of the invariance term.", advanced=True, modes="T", ge=0
    )
    simulated_share: float = setting(
        1.0, "Share of the steps in which images in other clothes take part.", advanced=True, modes="T", ge=0, le=1
    )


class AiflConfig(JobConfig):
    """Find a person again in other clothes: the baseline on images and their simulated twins (AIFL)."""

    data: PersonDataConfig = PersonDataConfig()
    model: AiflReidSettings = AiflReidSettings()
    train: PersonTrainConfig = PersonTrainConfig()
    gan: GanSettings = GanSettings()
    aifl: AiflSettings = AiflSettings()
    retrieval: RetrievalSettings = RetrievalSettings()

    @model_validator(mode="after")
    def _check_aifl(self) -> AiflConfig:
        check_batches(self.train.batch_size, self.model.images_per_identity, self.model.unlabelled_per_batch)
        check_gan(self.model, self.gan, self.data)
        return self


VARIANTS = {"baseline": BaselineConfig, "as_gan": AsGanConfig, "aifl": AiflConfig}
