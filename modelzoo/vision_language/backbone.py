"""Networks on a text and regions of an image: what all families of them take and return."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from easytransfer.distributed.collectives import Group
from easytransfer.distributed.pipeline import Stage
from easytransfer.errors import ModelError
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_weights import BACKBONE
from modelzoo.loading import family_module, family_of, load_config
from modelzoo.vision_language.config import VisionLanguageConfig
from modelzoo.vision_language.inputs import Visibility, has_labels, label_inputs, region_inputs
from modelzoo.vision_language.network import SingleStream

# The family that a single stream may begin from, and the single stream that begins where none is named.
_TEXT, _USUAL = "bert", "imagebert"
_WORDS = ("input_ids", "input_mask", "segment_ids")
# Two and not one: see `encoder_backbone`.
_POOLED_RANGE = 2


class VisionLanguageBackbone(EncoderBackbone):
    """Turns a text and regions of an image, with their labels or without, into vectors.

    A family sets `family` and `_network`, which takes and returns what `SingleStream` does.
    `VisionLanguageBackbone.from_preset` builds whatever family a name stands for; of a BERT it makes an ImageBERT, with
    random weights of regions and labels.

    Args:
        config: Sizes and settings.
        seed: Seed of the fresh weights; None leaves zeros for the caller to fill.

    Call arguments:
        inputs: Texts: `input_ids`, `input_mask` and (optional) `segment_ids`, integer [batch, words]. Regions:
            `features` float [batch, regions, feature_size], `region_mask` integer [batch, regions], 1 for a real one,
            and where `config.box_size` is not 0 `boxes` float [batch, regions, 4]: x1, y1, x2, y2 divided by width and
            height of the image. Labels of regions (optional, with `config.label_slots`), integer [batch, pieces]:
            `label_ids`; `label_slot`, which label a piece belongs to, -1 for none; `label_inner`, which piece of it;
            `label_mask`; and where `config.links_labels` `label_region` [batch, labels], the region that a label came
            from, -1 for none. Other keys are ignored, so a whole training batch can be passed.
        training: Whether dropout acts.
        pooled_only: Return `pooled_output` alone, which saves a part of the last layer.
        label_visibility: `regions_only`: words and labels do not look at each other, only both at regions, and regions
            at all; `all`: everybody looks at everybody.
        with_attentions: Also return `attentions`.

    Returns:
        float32: `sequence_output` [batch, words, hidden], `label_output` [batch, pieces, hidden] where there are
        labels, `region_output` [batch, regions, hidden], `pooled_output` [batch, hidden], tanh of a dense layer on the
        first word, and on request `attentions`, of each layer [batch, heads, from, to] in the order words, labels,
        regions.

    Raises:
        ModelError: An array is missing, has another shape, or there are labels and no `label_slots`.
    """

    config: VisionLanguageConfig

    @classmethod
    def family_class(cls, family: str) -> type[Self] | None:
        """Returns the class that reads models of a family: a single stream takes those of BERT, too."""
        if family != _TEXT:
            return super().family_class(family)
        usual = family_module(_USUAL, "backbone").BACKBONE_CLASS
        if issubclass(usual, cls):
            return usual
        return cls if issubclass(cls, SingleStreamBackbone) else None

    def call(
        self,
        inputs: Mapping[str, tf.Tensor],
        training: bool | None = False,
        pooled_only: bool = False,
        label_visibility: Visibility = "all",
        with_attentions: bool = False,
    ) -> dict[str, Any]:
        """See the class."""
        config, labels = self.config, None
        words, checks = self._checked({key: inputs[key] for key in _WORDS if inputs.get(key) is not None})
        regions, more = region_inputs(inputs, config)
        checks += more
        if has_labels(inputs):
            labels, more = label_inputs(inputs, config)
            checks += more
        with tf.control_dependencies(checks):
            found = self.encoder(
                words, labels, regions, label_visibility, _POOLED_RANGE if pooled_only else None, with_attentions
            )
        pooled = tf.cast(found["pooled_output"], tf.float32)
        if pooled_only:
            return {"pooled_output": pooled}
        text, first = tf.cast(found["text_states"], tf.float32), tf.shape(words["input_ids"])[1]
        outputs = {
            "sequence_output": text[:, :first],
            "region_output": tf.cast(found["region_states"], tf.float32),
            "pooled_output": pooled,
        }
        if labels is not None:
            outputs["label_output"] = text[:, first:]
        return outputs | ({"attentions": found["attentions"]} if with_attentions else {})

    def read_weights(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of a folder by Google's names, and the report.

        Weights that the stored network cannot have, such as those of labels where it had no labels, may be missing;
        all others may not.
        """
        values, report = super().read_weights(preset)
        stored = self.family.weights(self.family.config_class.from_folder(preset.folder))
        return values, self._with_new(report, {row.name for row in stored})

    def _with_new(self, report: LoadReport, stored: set[str]) -> LoadReport:
        """Lets weights start from random values that are not among those of the stored network."""
        new = [name for name in self.weight_specs() if name not in stored]
        known = {*report.missing, *(name for name, *_ in report.matched), *(name for name, *_ in report.mismatched)}
        report.missing += [name for name in new if name not in known]
        report.optional = "|".join(f"^{re.escape(name)}$" for name in new) or None
        return report

    def example_outputs(self) -> np.ndarray:
        """Returns vectors of fixed ids and regions, to compare models and to see whether a file is damaged."""
        config, length = self.config, min(8, self.config.max_tokens)
        regions = min(3, config.max_regions)
        ids = np.linspace(0, config.vocab_size - 1, 2 * length).astype(np.int32).reshape(2, length)
        features = np.linspace(-1, 1, 2 * regions * config.feature_size, dtype=np.float32)
        corner = np.linspace(0, 0.5, 2 * regions, dtype=np.float32).reshape(2, regions, 1)
        batch = {
            "input_ids": ids,
            "input_mask": np.ones_like(ids),
            "segment_ids": np.zeros_like(ids),
            "features": features.reshape(2, regions, config.feature_size),
            "boxes": np.concatenate([corner, corner, corner + 0.5, corner + 0.25], axis=2),
            "region_mask": np.ones([2, regions], np.int32),
        }
        return self(batch)["pooled_output"].numpy()

    def embedded(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Refuses: here regions are read beside words already."""
        raise ModelError(f"{type(self).__name__} takes no embeddings in place of words")


class SingleStreamBackbone(VisionLanguageBackbone):
    """Reads words, labels and regions as one sequence, through the layers of BERT; see `VisionLanguageBackbone`."""

    def _network(self, tensor: Group | None, stage: Stage | None) -> SingleStream:
        return SingleStream(self.config)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        seed: int,
        fresh: bool,
        tensor: Group | None = None,
        stage: Stage | None = None,
        **changes: Any,
    ) -> Self:
        """Builds the network that a folder describes, of a BERT that of the same sizes; see `EncoderBackbone`."""
        return cls(cls._stored(folder).replace(**changes), seed=seed if fresh else None)

    @classmethod
    def _stored(cls, folder: Path) -> VisionLanguageConfig:
        """Returns the configuration of a folder, of a BERT with that of regions beside it."""
        config_class = cls.family.config_class
        preset = resolve(folder)
        if family_of(preset) != _TEXT:
            return config_class.from_folder(folder)
        data = load_config(folder).to_dict("ez")
        data.pop("architectures", None)
        return config_class.from_dict({**data, "model_type": cls.family.name}, source=str(folder))

    def read_weights(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of a folder, of this family or of BERT, by Google's names, and the report."""
        if family_of(preset) != _TEXT:
            return super().read_weights(preset)
        found = family_module(_TEXT, "formats").read_folder(preset.folder, parts=BACKBONE, checkpoint=preset.checkpoint)
        stored = {name for name, _, _ in found.report.matched} | set(found.report.missing)
        return found.values, self._with_new(found.report, stored)
