"""Sizes and settings of a convolutional image classifier, free of TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from easytransfer.errors import ConfigError, ModelError, did_you_mean
from easytransfer.image.size import ImageSize, height_width, size_reader
from modelzoo.cnn.timm import stored_config
from modelzoo.stored_config import StoredConfig

# fmt: off
Family = Literal[
    "resnet", "preact_resnet", "wide_resnet", "se_resnet", "resnext", "pyramidnet", "shake_shake", "densenet",
    "efficientnet", "mobilenet_v2", "vgg", "smallcnn", "mlp", "saved_model", "keras",
]
# fmt: on
# Families whose layers are described elsewhere.
FOREIGN = ("saved_model", "keras")
# Families made of residual blocks with one stream width per stage.
RESIDUAL = ("resnet", "preact_resnet", "wide_resnet", "se_resnet", "resnext", "shake_shake")
INVERTED = ("efficientnet", "mobilenet_v2")
STAGED = (*RESIDUAL, *INVERTED, "pyramidnet", "vgg", "smallcnn")
# Families whose 3x3 convolutions can be dilated instead of strided. Not shake-shake: its shortcut moves by one pixel.
DILATED = tuple(family for family in RESIDUAL if family != "shake_shake")
_RATE = {"ge": 0, "lt": 1}


class CnnConfig(StoredConfig):
    """Configuration of one image classifier; a pruned or divided network is the same class with other numbers.

    Example:
        >>> named("resnet20_cifar").replace(image_size=28, channels=1)
    """

    FAMILY: ClassVar[str] = "an image network"

    model_config = ConfigDict(extra="forbid")

    model_type: Literal["cnn"] = Field("cnn", description="Always cnn.")
    family: Family = Field(description="Which network.")
    stem: Literal["cifar", "imagenet"] = Field("cifar", description="First layers: 3x3 stride 1, or stride 2 and pool.")
    image_size: Annotated[ImageSize, BeforeValidator(size_reader(1))] = Field(
        32, description="Height and width of the images, in pixels: one number, or both."
    )
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour.")

    stem_widths: tuple[int, ...] = Field((16,), description="Channels of the first convolutions: one 7x7 or three 3x3.")
    blocks: tuple[int, ...] = Field((), description="Blocks of each stage (layers, of a DenseNet).")
    block_ids: tuple[tuple[int, ...], ...] | None = Field(
        None, description="Numbers that name the blocks of each stage, after some were removed; 1, 2, ... when unset."
    )
    stage_widths: tuple[int, ...] = Field((), description="Channels between the blocks of each stage.")
    inner_widths: tuple[int | tuple[int, ...], ...] = Field(
        (), description="Channels inside the blocks of each stage: one number, or one for every block."
    )
    strides: tuple[int, ...] = Field((), description="Stride of the first block of each stage.")
    output_stride: int | None = Field(
        None,
        description="Stages that would reduce the images by more than this keep their size and are dilated instead, "
        "with the same weights; unset: no stage is dilated.",
        ge=1,
    )
    block: Literal["basic", "bottleneck"] = Field("basic", description="Two 3x3, or 1x1, 3x3 and 1x1 convolutions.")
    groups: int = Field(1, description="Groups of the 3x3 convolution (cardinality of ResNeXt).", ge=1)
    pre_activation: bool = Field(False, description="Norm and activation before each convolution instead of after it.")
    shortcut: Literal["conv", "pool", "stage"] = Field(
        "conv",
        description="Where the shape changes: a strided 1x1 convolution beside the block, a 2x2 mean and a 1x1 "
        "convolution beside it, or a strided 1x1 convolution before the stage.",
    )
    se_reduction: int = Field(0, description="Squeeze-and-excitation divides the channels by this; 0 for none.", ge=0)
    se_stem_pool: bool = Field(False, description="The stem's pool pads at the bottom and right only, as in SENet.")
    stem_norm: bool = Field(True, description="Whether the stem of a DenseNet is normalised and activated.")
    growth: int = Field(12, description="Channels that each layer of a DenseNet adds.", ge=1)
    bottleneck_factor: int = Field(4, description="1x1 width of a DenseNet layer in growths; 0 for no 1x1.", ge=0)
    compression: float = Field(0.5, description="Share of channels a DenseNet transition keeps.", gt=0, le=1)
    expansions: tuple[int, ...] = Field((), description="Factor of the inner width of each stage's inverted blocks.")
    kernels: tuple[int, ...] = Field((), description="Depthwise kernel size of each stage.")
    se_ratio: float = Field(0.25, description="Squeeze width of an inverted block by its input channels.", ge=0, le=1)
    head_width: int = Field(
        0, description="Channels of the last 1x1 convolution or dense layer before the logits.", ge=0
    )
    padding: Literal["same", "symmetric"] = Field(
        "same", description="Zeros around images of an inverted network: TensorFlow's rule, or all sides alike."
    )
    activation: Literal["relu", "relu6", "swish"] = Field("relu", description="Activation.")
    batch_norm: bool = Field(True, description="Whether a plain network has batch normalisation.")

    dropout: float = Field(0.0, description="Dropout before the logits.", **_RATE)
    block_dropout: float = Field(0.0, description="Dropout inside each block.", **_RATE)
    drop_path: float = Field(0.0, description="Probability that the last block is dropped; rises from 0.", **_RATE)
    norm_momentum: float = Field(0.9, description="Share of the old value in the moving statistics.", ge=0, lt=1)
    norm_epsilon: float = Field(1e-5, description="Added to the variance in batch normalisation.", gt=0)
    zero_last_gamma: bool = Field(False, description="Start every residual branch at zero.")
    conv_init: Literal["he_fan_out", "he_fan_in"] = Field("he_fan_out", description="Start values of convolutions.")
    head_deviation: float | None = Field(
        None, description="Deviation of the classifier's start values; uniform in +-1/sqrt(inputs) when unset.", ge=0
    )
    handle: str | None = Field(None, description="Folder or hub address of a SavedModel (family saved_model).")
    trainable: bool = Field(True, description="Whether the weights of a SavedModel are trained.")
    application: str | None = Field(
        None, description="Network of tf_keras.applications in small letters, such as resnet50 (family keras)."
    )

    @model_validator(mode="after")
    def _check(self) -> CnnConfig:
        if (self.family == "saved_model") != (self.handle is not None):
            raise ValueError("handle belongs to the family saved_model, which needs it")
        if (self.family == "keras") != (self.application is not None):
            raise ValueError("application belongs to the family keras, which needs it")
        if self.family == "keras" and self.channels != 3:
            raise ValueError(f"channels={self.channels}: networks of the family keras take 3")
        if len(self.stem_widths) not in (1, 3):
            raise ValueError(f"stem_widths has {len(self.stem_widths)} numbers; accepted: one, or three")
        stages = len(self.blocks)
        for name in self._per_stage():
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers, blocks has {stages}")
        numbers = (*self.stem_widths, *self.blocks, *self.stage_widths, *self.strides, *self.expansions, *self.kernels)
        if min(numbers) < 1:
            raise ValueError("widths, blocks, strides, expansions and kernels must be at least 1")
        if self.family in (*RESIDUAL, "pyramidnet"):
            self._check_inner()
        if self.block_ids is not None and [len(set(ids)) for ids in self.block_ids] != list(self.blocks):
            raise ValueError("block_ids must hold as many different numbers for each stage as blocks says")
        self._check_rates()
        if self.output_stride is not None:
            self._check_output_stride(self.output_stride)
        return self

    def _check_inner(self) -> None:
        for stage in range(len(self.blocks)):
            inner = self.inner(stage)
            if len(inner) != self.blocks[stage]:
                raise ValueError(f"inner_widths of stage {stage + 1} does not have one number for every block")
            if min(inner) < 1 or any(width % self.groups for width in inner):
                raise ValueError(f"inner_widths of stage {stage + 1} must be multiples of groups = {self.groups}")

    def _check_rates(self) -> None:
        if self.block_dropout and not (self.pre_activation or self.family in ("densenet", "smallcnn")):
            raise ValueError("block_dropout needs pre_activation, or the family densenet or smallcnn")
        if self.drop_path and self.family not in (*INVERTED, "pyramidnet"):
            raise ValueError(f"drop_path belongs to the families {', '.join(INVERTED)} and pyramidnet")

    def _check_output_stride(self, wanted: int) -> None:
        if self.family not in DILATED or self.shortcut == "pool":
            raise ValueError(
                f"output_stride belongs to the families {', '.join(DILATED)} without a pooled shortcut, and this is "
                f"{self.family} with shortcut={self.shortcut}"
            )
        passed = self.model_copy(update={"output_stride": None}).stage_strides()
        if wanted not in passed:
            raise ValueError(f"output_stride {wanted} is none of the network's, {', '.join(map(str, passed))}")

    def _per_stage(self) -> tuple[str, ...]:
        """Returns the fields that need one entry for every stage of this family."""
        if self.family not in STAGED:
            return ()
        names = {
            "pyramidnet": ("inner_widths", "strides"),
            "vgg": ("stage_widths", "strides"),
            "smallcnn": ("stage_widths",),
            **dict.fromkeys(INVERTED, ("stage_widths", "strides", "expansions", "kernels")),
        }
        return names.get(self.family, ("stage_widths", "inner_widths", "strides"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return (*height_width(self.image_size), self.channels)

    def inner(self, stage: int) -> tuple[int, ...]:
        """Returns the inner widths of the blocks of a stage, counted from 0."""
        widths = self.inner_widths[stage]
        return widths if isinstance(widths, tuple) else (widths,) * self.blocks[stage]

    @property
    def stem_stride(self) -> int:
        """By how much the layers before the first stage reduce height and width."""
        if self.stem == "cifar":
            return 1
        return 2 if self.family in INVERTED else 4

    def stage_strides(self) -> tuple[int, ...]:
        """Returns by how much the images are reduced at the end of each stage; () without stages of feature maps.

        Example:
            >>> named("resnet50_imagenet").replace(output_stride=8).stage_strides()
            (4, 8, 8, 8)
        """
        if self.family in ("smallcnn", "mlp", *FOREIGN):
            return ()
        strides = self.strides or (1, *[2] * (len(self.blocks) - 1))  # a transition of DenseNet halves
        found, reached = [], self.stem_stride
        for stride in strides:
            if self.output_stride is None or reached * stride <= self.output_stride:
                reached *= stride
            found.append(reached)
        return tuple(found)

    def first_stages(self, count: int) -> CnnConfig:
        """Returns the network without the stages behind the first `count`.

        Raises:
            ConfigError: There are not so many stages, or what follows the last one belongs to its width.
        """
        if self.family not in DILATED or self.pre_activation:
            raise ConfigError(
                "stages cannot be left out",
                received=f"{self.family}, pre_activation={self.pre_activation}",
                accepted=f"{', '.join(DILATED)} with the activation after the addition",
            )
        if not 1 <= count <= len(self.blocks):
            raise ConfigError("there are not so many stages", received=count, accepted=f"1 to {len(self.blocks)}")
        fields = ("blocks", "block_ids", "stage_widths", "inner_widths", "strides")
        kept = {name: getattr(self, name)[:count] for name in fields if getattr(self, name)}
        return self.replace(**kept)

    def ids(self, stage: int) -> tuple[int, ...]:
        """Returns the numbers in the names of the blocks of a stage, counted from 0."""
        return tuple(range(1, self.blocks[stage] + 1)) if self.block_ids is None else self.block_ids[stage]

    def scaled(self, width: float, divisor: int = 1) -> CnnConfig:
        """Returns the network with all widths multiplied, rounded to multiples of `divisor`, at least one of them."""

        def times(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(times, value))
            return max(divisor, round(value * width / divisor) * divisor)

        fields = ("stem_widths", "stage_widths", "inner_widths", "head_width", "growth")
        return self.replace(**{name: times(getattr(self, name)) for name in fields if getattr(self, name)})

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, source: str = "configuration") -> CnnConfig:
        """Builds a configuration from the contents of a JSON file.

        Raises:
            ModelError: A key is unknown, or a value is not accepted.
        """
        if not isinstance(data, dict):
            raise ModelError(f"{source} does not describe an image network: it is no object of JSON")
        for name in data:
            if name not in cls.model_fields:
                raise ModelError(f"unknown key {name} in {source}", fix=did_you_mean(name, cls.model_fields))
        return cls.checked(data, source)

    @classmethod
    def from_folder(cls, folder: str | Path) -> CnnConfig:
        """Reads the `config.json` of a model folder, ours or timm's; its `classes` is no part of the network.

        Raises:
            ModelError: The file is missing or not valid.
        """
        path = Path(folder, "config.json")
        data = {key: value for key, value in stored_config(folder).items() if key != "classes"}
        handle = data.get("handle")
        if handle and isinstance(handle, str) and os.path.isdir(Path(folder, handle)):
            data["handle"] = str(Path(folder, handle).resolve())
        return cls.from_dict(data, source=str(path))


CONFIG_CLASS = CnnConfig
