"""Sizes and settings of an LXMERT, under our names and under those of its files. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from easytransfer.errors import ConfigError, ModelError
from modelzoo.encoder_config import Form
from modelzoo.vision_language.config import VisionLanguageConfig

# Hugging Face's file repeats these three in `num_hidden_layers`.
_LAYERS = {"language": "l_layers", "vision": "r_layers", "cross_encoder": "x_layers"}


class LxmertConfig(VisionLanguageConfig):
    """Configuration of an LXMERT (Tan and Bansal 2019, arXiv 1908.07490, section 2).

    Files say `visual_feat_dim` and `visual_pos_dim` for what all networks on regions have. `num_hidden_layers` is
    `l_layers`.

    Example:
        >>> LxmertConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4, "l_layers": 2})
    """

    FAMILY: ClassVar[str] = "an LXMERT"
    FILE_NAMES: ClassVar[dict[str, str]] = {"visual_feat_dim": "feature_size", "visual_pos_dim": "box_size"}

    model_type: str = Field("lxmert", description="Architecture; always lxmert.")
    l_layers: int = Field(9, description="Layers of words and labels alone.", ge=1)
    r_layers: int = Field(5, description="Layers of regions alone.", ge=1)
    x_layers: int = Field(5, description="Layers in which both look at each other.", ge=1)
    max_regions: int = Field(36, description="Regions of an image; more may be given.", ge=1)
    box_size: Literal[4] = Field(4, description="Numbers that describe the box of a region: its corners.")

    @model_validator(mode="before")
    @classmethod
    def _count_layers(cls, data: dict[str, Any]) -> dict[str, Any]:
        # The encoder of words is BERT's, which reads how many layers it has under this name.
        return {**data, "num_hidden_layers": data.get("l_layers", cls.model_fields["l_layers"].default)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> Self:
        """Builds a configuration from the contents of a JSON file; see `EncoderConfig.from_dict`.

        Raises:
            ModelError: As there, or `num_hidden_layers` has other numbers of layers.
        """
        data = dict(data)
        stated, usual = data.pop("num_hidden_layers", None), cls.model_fields
        layers = {name: data.get(name, usual[name].default) for name in _LAYERS.values()}
        if isinstance(stated, dict) and stated != {kind: layers[name] for kind, name in _LAYERS.items()}:
            raise ModelError(
                f"num_hidden_layers in {source} is not {', '.join(layers)}", received=f"{stated}, {layers}"
            )
        return super().from_dict(data, form=form, source=source)

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed; see `StoredConfig.replace`."""
        if "num_hidden_layers" in changes:
            raise ConfigError("an LXMERT has layers of three kinds", fix=f"set {', '.join(_LAYERS.values())}")
        return super().replace(**changes)

    def to_dict(self, form: Form = "hf") -> dict[str, Any]:
        """Returns the keys as the given form stores them, unknown keys included."""
        return {
            **super().to_dict(form),
            "num_hidden_layers": {kind: getattr(self, name) for kind, name in _LAYERS.items()},
        }


CONFIG_CLASS = LxmertConfig
