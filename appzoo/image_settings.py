"""Settings that all applications on single images share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from appzoo.settings import TargetSettings
from easytransfer.config.job import DataConfig, JobConfig, TrainConfig
from easytransfer.config.schema import setting
from easytransfer.errors import EasyTransferError
from easytransfer.image.settings import AugmentSettings
from easytransfer.image.size import ImageSize, height_width, size_reader
from easytransfer.presets.preset import repository_of
from modelzoo.cnn.names import is_address
from modelzoo.cnn.pretrained import INPUT, input_form, is_model, looks_like_path, network_shape
from modelzoo.hub import obtain


class ImageDataConfig(DataConfig):
    """Tables of images and their columns."""

    first_sequence: str | None = setting(
        "image", "Column with the image: a path relative to the table, `data:` text, bytes or an array.", modes="TEPS"
    )
    label_name: str | None = setting("label", "Label column.", modes="TEPS")
    label_enumerate_values: str | None = setting(
        "auto",
        "Class names: comma list, a file with one per line, or `auto`; `none` predicts numbers.",
        modes="TEPS",
        path="one",
    )
    input_schema: str | None = setting(
        None,
        "Column declaration `name:type:length,...` of text tables; the image is of type image. Directories, idx, npz, "
        "TFRecord, JSONL and CSV tables need none.",
        modes="TEPS",
        required="T",
        unless="the tables name their columns",
    )


class ImageTrainConfig(TrainConfig):
    """Optimization, evaluation during training, and checkpoints; defaults for networks from random weights."""

    num_epochs: float = setting(10.0, "Passes over the training table; fractions are allowed.", modes="T", gt=0)
    batch_size: int = setting(128, "Rows per step and replica; in other modes rows per model call.", modes="TEPS", ge=1)
    eval_batch_size: int = setting(256, "Rows per evaluation step in training.", advanced=True, modes="T", ge=1)
    learning_rate: float = setting(3e-3, "Peak learning rate.", modes="T", gt=0)
    weight_decay_ratio: float = setting(
        1e-2,
        "Decoupled weight decay, not of biases and normalization unless the application's README says so; sgd adds it "
        "to the gradient, where 5e-4 is usual.",
        advanced=True,
        modes="T",
        ge=0,
    )
    lr_decay: str = setting(
        "cosine",
        "Schedule: polynomial, linear_after_warmup, cosine, constant, inverse_sqrt, step; other words mean constant.",
        advanced=True,
        modes="T",
    )


class ImageSettings(TargetSettings):
    """The network and the form of its input."""

    network: str = setting(
        "resnet8_cifar",
        "Network: a name of `easy_transfer_app profile --list`, an image model of the ModelZoo such as "
        "efficientnet-lite0, one of timm on the Hugging Face hub, or a model folder.",
        advanced=True,
        modes="T",
        path="one",
    )
    weights: Literal["pretrained", "random"] = setting(
        "random",
        "Start values: pretrained takes those of the model that network names, the default for one of the ModelZoo or "
        "a folder; its image settings are then the defaults.",
        advanced=True,
        modes="T",
    )
    image_size: Annotated[ImageSize, BeforeValidator(size_reader(8))] = setting(
        32, "Height and width images are brought to: one number, or [height, width].", advanced=True, modes="T"
    )
    crop_top: int = setting(
        0, "Rows cut off at the top of every image before it is resized.", advanced=True, modes="T", ge=0
    )
    channels: Literal[1, 3] = setting(3, "1 for grey, 3 for colour.", advanced=True, modes="T")
    resize_mode: Literal["stretch", "crop"] = setting(
        "stretch",
        "Other shapes are stretched to that of image_size, or the largest part of that shape in the middle is taken.",
        advanced=True,
        modes="T",
    )
    max_pixels: int = setting(
        50_000_000, "Images of more pixels are bad rows; they are not decoded.", advanced=True, modes="TEP", ge=1
    )
    channel_mean: list[float] | None = setting(
        None, "Mean of each channel, 0 to 1; default that of the training table.", advanced=True, modes="T"
    )
    channel_std: list[float] | None = setting(
        None, "Standard deviation of each channel; default that of the training table.", advanced=True, modes="T"
    )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return (*height_width(self.image_size), self.channels)


class ImageJobConfig(JobConfig):
    """Everything one job on images needs."""

    data: ImageDataConfig = ImageDataConfig()
    model: ImageSettings = ImageSettings()
    train: ImageTrainConfig = ImageTrainConfig()
    augment: AugmentSettings = AugmentSettings()

    @classmethod
    def started_networks(cls, model: Mapping[str, Any]) -> list[str]:
        """Returns the names of the networks that training starts with, of the model section as it was given."""
        return [str(model["network"])] if model.get("network") else []

    @model_validator(mode="before")
    @classmethod
    def _with_form_of_network(cls, data: Any) -> Any:
        """Fills in what was not given and belongs to a pre-trained model: weights, and the form of its images."""
        if not isinstance(data, Mapping) or not isinstance(data.get("model"), Mapping):
            return data
        model, zoo = dict(data["model"]), _section(data, "runtime").get("model_zoo_base_path")
        started = cls.started_networks(model)
        if any(model.get(name) is None for name in INPUT):  # a run has them all, and its network may be gone
            for name in started:
                _download(name, zoo, offline=_section(data, "runtime").get("offline", True))
        names = [name for name in started if is_model(name, zoo)]
        if not names:
            return data
        forms = [_form(name, zoo) for name in names]
        if any(form != forms[0] for form in forms):
            raise ValueError(f"{', '.join(names)} take images of different forms, and one run has one")
        form = forms[0]
        given = model.get("channels")
        if form and given is not None and int(given) != form["channels"]:
            raise ValueError(f"model.channels={given}: {names[0]} takes images of {form['channels']} channels")
        # Weights of another run come with the mean and deviation of that run.
        statistics = ("channel_mean", "channel_std")
        if _section(data, "train").get("init_checkpoint_path") or any(model.get(name) for name in statistics):
            form = {name: value for name, value in form.items() if name not in statistics}
        missing = {name: value for name, value in form.items() if model.get(name) is None}
        if model.get("weights") is None:
            missing["weights"] = "pretrained"
        return {**data, "model": {**model, **missing}}

    @model_validator(mode="after")
    def _check_image(self) -> ImageJobConfig:
        model = self.model
        try:
            # Where it has no default, the application asks for it. The folder that a run started with may be gone.
            if model.network is not None and not (looks_like_path(model.network) and not Path(model.network).exists()):
                network_shape(model.network, self.runtime.model_zoo_base_path)
        except EasyTransferError as error:
            raise ValueError(f"model.network: {error}") from error
        for name in ("channel_mean", "channel_std"):
            given: Any = getattr(model, name)
            if given is not None and len(given) != model.channels:
                raise ValueError(f"model.{name}={given} must have model.channels={model.channels} numbers")
        if (model.channel_mean is None) != (model.channel_std is None):
            raise ValueError("model.channel_mean and model.channel_std must be given together")
        if model.channel_std is not None and min(model.channel_std) <= 0:
            raise ValueError(f"model.channel_std={model.channel_std} must be above 0")
        return self


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a section as it was given, {} where it was not given as one."""
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}


def _download(name: str, zoo: Any, *, offline: Any) -> None:
    """Gets a model of the Hugging Face hub where the network is allowed: what images it takes stands in its files."""
    allowed = str(offline).lower() == "false"
    if is_address(name) and not allowed:
        raise ValueError(
            f"model.network: {name} is downloaded, and the network is switched off (offline); allow it with "
            "--offline=false, or name a folder with a copy"
        )
    if not allowed or Path(name).exists() or repository_of(name) is None:
        return
    try:
        obtain(name, zoo, offline=False)
    except EasyTransferError as error:
        raise ValueError(f"model.network: {error}") from error


def _form(name: str, zoo: Any) -> dict[str, Any]:
    try:
        return input_form(name, zoo)
    except EasyTransferError as error:
        raise ValueError(f"model.network: {error}") from error
