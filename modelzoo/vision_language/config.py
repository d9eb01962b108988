"""Sizes and settings that all networks on texts and regions have. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from easytransfer.errors import ModelError
from modelzoo.encoder_config import EncoderConfig, Form, check_fixed

# Settings that would change the architecture, with the only value these encoders implement.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
# Numbers that describe a box in a single stream: corners, width, height, area.
BOX_NUMBERS = 7


class VisionLanguageConfig(EncoderConfig):
    """Configuration of a network on a text and regions: detected objects, patches of a grid, clips of a video.

    A family sets the class attributes, and the default of `model_type`.

    Attributes:
        FILE_NAMES: Fields by the names that files have for them.
        REGIONS: Scope and names of the weights of regions, see `weights.region_table`; empty where the family has a
            table of its own.
    """

    FILE_NAMES: ClassVar[dict[str, str]] = {}
    REGIONS: ClassVar[dict[str, str]] = {}

    feature_size: int = Field(2048, description="Numbers that describe a region.", ge=1)
    max_regions: int = Field(64, description="Regions of an image; the most where they have positions.", ge=1)
    box_size: int = Field(0, description="Numbers that describe the box of a region; 0: boxes are not read.", ge=0)
    label_slots: int = Field(0, description="Most labels of an image; 0: labels are not read.", ge=0)
    label_pieces: int = Field(8, description="Most word pieces of a label.", ge=1)
    num_object_labels: int = Field(1600, description="Classes of objects that a head tells apart.", ge=1)
    num_attr_labels: int = Field(400, description="Attributes that a head tells apart.", ge=1)

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.label_slots and self.type_vocab_size < 2:
            raise ValueError(f"labels are of the second segment, and type_vocab_size is {self.type_vocab_size}")
        return self

    @property
    def most_regions(self) -> int | None:
        """Most regions of an image; None for no bound."""
        return None

    @property
    def links_labels(self) -> bool:
        """Whether the network reads which region a label came from."""
        return False

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> Self:
        """Builds a configuration from the contents of a JSON file; see `EncoderConfig.from_dict`.

        Raises:
            ModelError: As there, or a size has two values.
        """
        data = dict(data)
        for theirs, ours in cls.FILE_NAMES.items():
            value = data.pop(theirs, None)
            if value is not None and data.setdefault(ours, value) != value:
                raise ModelError(f"{theirs} and {ours} in {source} differ", received=f"{value}, {data[ours]}")
        return super().from_dict(data, form=form, source=source)

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe another network."""
        own = cls.model_fields["model_type"].default
        if (model_type := data.get("model_type", own)) != own:
            raise ModelError(f"model_type in {source} is not {cls.FAMILY}", received=model_type, accepted=own)
        check_fixed(data, _FIXED, source)

    def to_dict(self, form: Form = "hf") -> dict[str, Any]:
        """Returns the keys as the given form stores them, unknown keys included."""
        names = {ours: theirs for theirs, ours in self.FILE_NAMES.items()}
        return {names.get(name, name): value for name, value in super().to_dict(form).items()}


class SingleStreamConfig(VisionLanguageConfig):
    """Configuration of a BERT that reads words, labels and regions as one sequence."""

    region_types: int = Field(2, description="Rows of the table of region types, of which the second is used.", ge=2)
    region_positions: bool = Field(True, description="Whether regions have an order, as patches of a grid have.")
    box_size: Literal[0, 7] = Field(
        0, description="7: corners, width, height and area of boxes are read; 0: boxes are not read."
    )
    label_link: Literal["none", "box"] = Field(
        "none", description="box: pieces of a label also have the box of the region that the label came from."
    )

    @model_validator(mode="after")
    def _check_link(self) -> Self:
        if self.label_link == "box" and not (self.box_size and self.label_slots):
            raise ValueError("label_link box needs box_size 7 and label_slots above 0")
        return self

    @property
    def most_regions(self) -> int | None:
        """Most regions of an image; None for no bound."""
        return self.max_regions if self.region_positions else None

    @property
    def links_labels(self) -> bool:
        """Whether the network reads which region a label came from."""
        return self.label_link == "box"
