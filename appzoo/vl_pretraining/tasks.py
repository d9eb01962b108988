"""The losses of a pre-training by name, and which of them the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass

from appzoo.vl_pretraining.config import FashionBertConfig, LampConfig

# Losses -> the head each needs.
HEADS = {
    "mlm": "mlm",
    "matching": "matching",
    "features": "features",
    "objects": "objects",
    "attributes": "attributes",
    "mlam": "mlm",
    "label_match": "label_match",
    "pointer": "label_pointer",
}
# Those of labels.
LABEL_TASKS = ("mlam", "label_match", "pointer")


@dataclass(frozen=True)
class Tasks:
    """What is learnt.

    Attributes:
        weights: Weight of each loss by name, in the order of `HEADS`.
        adaptive: Whether weights follow the losses instead.
        feature_loss: How features are compared.
        masked_classes: Whether classes of hidden regions alone are predicted.
        confidence: Whether classes count by their confidence.
        visibility: Whether words and labels look at each other, see `VisionLanguageBackbone`.
    """

    weights: dict[str, float]
    adaptive: bool
    feature_loss: str
    masked_classes: bool = False
    confidence: bool = False
    visibility: str = "all"

    @property
    def heads(self) -> list[str]:
        """Names of the heads."""
        return list(dict.fromkeys(HEADS[name] for name in self.weights))

    @property
    def has_labels(self) -> bool:
        """Whether labels are read."""
        return "mlam" in self.weights

    @classmethod
    def of(cls, config: FashionBertConfig | LampConfig) -> Tasks:
        """Returns what the settings ask for."""
        model = config.model
        weights = {"mlm": 1.0, **({"matching": 1.0} if model.matching else {}), "features": model.feature_weight}
        common = {"adaptive": model.loss_weighting == "adaptive", "feature_loss": model.feature_loss}
        if isinstance(config, FashionBertConfig):
            return cls(weights, **common)
        if model.classes:
            weights |= dict.fromkeys(("objects", "attributes"), model.class_weight)
        apart = model.labels == "tasks"
        asked = {
            "mlam": model.labels != "none",
            "label_match": apart and model.label_match,
            "pointer": apart and model.label_pointer and model.label_link == "none",
        }
        weights |= {name: model.label_weight for name, wanted in asked.items() if wanted}
        return cls(
            weights,
            **common,
            masked_classes=model.object_loss_on == "masked",
            confidence=model.confidence_weights,
            visibility="regions_only" if apart else "all",
        )
