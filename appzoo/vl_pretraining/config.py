"""Configuration of vision-language pre-training: FashionBERT on patches, LAMP on labelled regions."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.vision_language_settings import VisionLanguageConfig, VisionLanguageDataConfig, VisionLanguageSettings
from easytransfer.config.schema import setting


class PretrainDataConfig(VisionLanguageDataConfig, optional=["label_name"]):
    """Tables of texts and images."""

    group_column: str | None = setting(
        None,
        "Column with the group of an image, such as a sub-category: texts of pairs that do not match are of the same "
        "group where it has others.",
        modes="TE",
    )


class LampDataConfig(PretrainDataConfig):
    """Tables of texts and images, and the names of what a detector finds."""

    object_names: str | None = setting(
        None, "File with a name a line for each class of objects; of `a,b` the first is taken.", modes="T", path="one"
    )
    attribute_names: str | None = setting(
        None, "File with a name a line for each attribute; of `a,b` the first is taken.", modes="T", path="one"
    )


class PretrainSettings(VisionLanguageSettings):
    """The network, and what it has to guess of texts and images."""

    mlm_probability: float = setting(
        0.15, "Chance of each piece of a text to be hidden; one at least is.", advanced=True, modes="T", gt=0, lt=1
    )
    max_predictions: int | None = setting(
        None,
        "Most pieces of a text that are hidden; None: twice mlm_probability of sequence_length.",
        advanced=True,
        modes="T",
        ge=1,
    )
    whole_word: bool = setting(False, "Hide all pieces of a word together.", advanced=True, modes="T")
    matching: bool = setting(True, "Also tell whether text and image belong together.", advanced=True, modes="T")
    unmatched: float = setting(
        0.5, "Share of rows with the text of another image in place of their own.", advanced=True, modes="T", gt=0, lt=1
    )
    other_texts: int = setting(
        4, "Texts of other images that a row takes along to be drawn from.", advanced=True, modes="T", ge=1
    )
    feature_loss: Literal["smooth_l1", "mse", "kl"] = setting(
        "smooth_l1",
        "What features of hidden regions are compared by; kl: as distributions, after a softmax.",
        advanced=True,
        modes="T",
    )
    feature_weight: float = setting(1.0, "Weight of the loss of features.", advanced=True, modes="T", ge=0)
    loss_weighting: Literal["sum", "adaptive"] = setting(
        "sum",
        "sum: losses times their weights; adaptive: weights that follow the losses of each step (FashionBERT).",
        advanced=True,
        modes="T",
    )


class FashionBertSettings(PretrainSettings, defaults={"feature_loss": "kl", "loss_weighting": "adaptive"}):
    """FashionBERT: patches of a grid, of which so many are hidden."""

    masked_image_token_num: int = setting(
        5, "Patches of an image that are hidden as zeros.", advanced=True, modes="T", ge=1
    )


class LampSettings(PretrainSettings):
    """LAMP: regions with classes and labels."""

    region_probability: float = setting(
        0.15, "Chance of each region to be hidden.", advanced=True, modes="T", gt=0, lt=1
    )
    classes: bool = setting(True, "Also predict the classes that a detector found.", advanced=True, modes="T")
    object_loss_on: Literal["all", "masked"] = setting(
        "all", "Regions whose classes are predicted: all, or those that are hidden.", advanced=True, modes="T"
    )
    confidence_weights: bool = setting(
        True, "Whether a class counts as much as the detector trusted it.", advanced=True, modes="T"
    )
    class_weight: float = setting(1.0, "Weight of the losses of classes.", advanced=True, modes="T", ge=0)
    labels: Literal["tasks", "text", "none"] = setting(
        "tasks",
        "Labels of regions: tasks: beside the text, which does not see them, to be guessed, matched and located; text: "
        "as more text, to be guessed; none: not read.",
        advanced=True,
        modes="T",
    )
    label_match: bool = setting(
        True, "With labels=tasks also tell which labels were replaced.", advanced=True, modes="T"
    )
    label_pointer: bool = setting(
        True, "With labels=tasks also find the region of each label.", advanced=True, modes="T"
    )
    label_link: Literal["none", "box"] = setting(
        "none", "box: a label is read with the box of its region, and not located.", advanced=True, modes="T"
    )
    label_weight: float = setting(1.0, "Weight of the losses of labels.", advanced=True, modes="T", ge=0)
    label_slots: int = setting(15, "Most labels of an image.", advanced=True, modes="T", ge=1)
    label_pieces: int = setting(
        40, "Places for the pieces of all labels of an image, one of them for the end.", advanced=True, modes="T", ge=2
    )
    label_confidence: float = setting(
        0.3, "Confidence from which classes and attributes become labels.", advanced=True, modes="T", ge=0, le=1
    )
    label_use: float = setting(
        0.7, "Share of rows that are shown with their labels.", advanced=True, modes="T", gt=0, le=1
    )
    label_probability: float = setting(
        0.3, "Chance of each word of a label to be hidden.", advanced=True, modes="T", gt=0, lt=1
    )
    label_replaced: float = setting(0.25, "Share of labels that are replaced.", advanced=True, modes="T", gt=0, lt=1)


class FashionBertConfig(VisionLanguageConfig):
    """Train a network on texts and patches of images: hidden words and patches, and which belong together."""

    data: PretrainDataConfig = PretrainDataConfig()
    model: FashionBertSettings = FashionBertSettings()

    @model_validator(mode="after")
    def _check_pretraining(self) -> FashionBertConfig:
        check_pretraining(self)
        return self


class LampConfig(VisionLanguageConfig):
    """Train a network on texts and regions with the labels of a detector (LAMP)."""

    data: LampDataConfig = LampDataConfig()
    model: LampSettings = LampSettings()

    @model_validator(mode="after")
    def _check_lamp(self) -> LampConfig:
        check_pretraining(self)
        model = self.model
        if model.label_link == "box" and model.labels == "none":
            raise ValueError("model.label_link=box needs labels: set model.labels=tasks or text")
        return self


def check_pretraining(config: VisionLanguageConfig) -> None:
    """Refuses settings that a pre-training has no use for.

    Raises:
        ValueError: As pydantic wants it.
    """
    if config.data.label_name is not None:
        raise ValueError("data.label_name does not apply: what is learnt are hidden words and regions; remove it")
    adaptive = config.model.loss_weighting == "adaptive"
    if adaptive and config.train.num_accumulated_batches > 1:
        raise ValueError(
            "model.loss_weighting=adaptive weighs losses by all rows of a step, and train.num_accumulated_batches"
            f"={config.train.num_accumulated_batches} makes several batches of them: set it to 1"
        )


VARIANTS = {"fashion_bert": FashionBertConfig, "lamp": LampConfig}
