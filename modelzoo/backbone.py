"""The base of every pre-trained body: found by name, loaded and saved strictly, frozen by depth, asked for outputs.

A family (text, image, vision and language) is one subclass, `BACKBONE_CLASS` in its `backbone.py`. Splitting a network
over workers is an addition of the family that can be split; nothing here knows of it but that it may be refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.lora import Adaptation, Projection, mark_base
from easytransfer.presets import Preset, resolve
from easytransfer.presets.folder import new_folder, write_manifest
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.weight_values import as_floats, check_type
from easytransfer.run.log import warn
from modelzoo.loading import family_module, family_of

if TYPE_CHECKING:
    from typing import Self

    from easytransfer.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
# What `from_preset` takes only where a network can be split.
_SPLITTING = ("tensor", "stage")


class Backbone(keras.Model):
    """A network without the head of a task; calling it gives named outputs, which its family lists.

    A family overrides `from_folder`, `weight_specs`, `export_weights`, `assign_weights`, `write_files`, `facts`,
    `layer_groups` and `example_outputs`, and of the rest what it has: `feature_maps`, `input_embeddings`.

    Attributes:
        config: Sizes and settings.
        load_report: What the last file of weights held; None for fresh weights.
        adaptation: Its adapters; None for an ordinary network.

    Example:
        >>> Backbone.from_preset("minilm-l6-en", hidden_dropout_prob=0.0)
        >>> Backbone.from_preset("my-resnet50", classifier=False, output_stride=8).feature_maps(images)[8]
    """

    splits_over_workers: ClassVar[bool] = False

    config: Any
    load_report: LoadReport | None = None
    adaptation: Adaptation | None = None

    # Stored models ---------------------------------------------------------------------------------------------

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        zoo: str | Path | None = None,
        weights: bool = True,
        seed: int = 0,
        allow_missing: str | None = None,
        **settings: Any,
    ) -> Self:
        """Builds the network of a name or folder with its pre-trained weights, which must fit completely.

        Args:
            name_or_path: ModelZoo name or alias, folder, TensorFlow checkpoint prefix, `modelhub:<name>`, or
                `hf://<owner>/<name>@<revision>` of the Hugging Face hub where it has been downloaded.
            zoo: Root of the ModelZoo.
            weights: False for random weights of the same architecture; the folder then needs only a configuration.
            seed: Seed of random weights.
            allow_missing: Regular expression of weight names that may start from random values.
            **settings: What the family's `from_folder` takes, and changed values of its configuration, such as
                `hidden_dropout_prob` or `output_stride`.

        Returns:
            A network of the family that the model belongs to.

        Raises:
            ModelError: The model is not found, is of another family than this class, or its weights are missing or do
                not fit.
            ConfigError: A setting is not accepted, or the network cannot be split over workers.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        family = family_of(preset)
        kind = cls.family_class(family)
        if kind is None:
            raise ModelError(f"{preset.folder} holds a model of the family {family}, which is no {cls.__name__}")
        if not kind.splits_over_workers and any(settings.pop(name, None) is not None for name in _SPLITTING):
            raise ConfigError(
                f"networks of the family {family} cannot be split over workers", fix="use data-parallel workers only"
            )
        backbone = kind.from_folder(preset.folder, seed=seed, fresh=not weights, **settings)
        if weights:
            values, report = backbone.read_weights(preset)
            backbone._take(values, report, allow_missing or preset.facts.get("allow_missing"))
            if report.allowed:
                backbone.fresh_weights(seed, report.allowed)
        return backbone

    @classmethod
    def family_class(cls, family: str) -> type[Self] | None:
        """Returns the class that `from_preset` builds for models of a family: its own, or this one where it is one of
        them; None where it is another family's."""
        kind = family_module(family, "backbone").BACKBONE_CLASS
        kind = cls if issubclass(cls, kind) else kind
        return kind if issubclass(kind, cls) else None

    def save_to_preset(
        self,
        folder: str | Path,
        tokenizer: Tokenizer | None = None,
        *,
        facts: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes a model folder that `from_preset` reads: configuration, weights, tokenizer, the manifest `zoo.json`.

        Args:
            folder: New folder, written as a whole or not at all.
            tokenizer: Tokenizer whose vocabulary belongs to the weights; without it the folder has none.
            facts: Entries of the manifest, such as licence and origin.
            overwrite: Replace an existing folder.

        Raises:
            ModelError: The folder exists and `overwrite` is False, the family has no tokenizer, or the network has
                adapters beside its weights.
        """
        if self.adaptation is not None:
            raise ModelError("a network with adapters has no model folder", fix="call merge_lora() before")
        with new_folder(folder, overwrite) as draft:
            self.write_files(draft, tokenizer)
            write_manifest(draft, {"name": Path(folder).name, **self.facts(), **(facts or {})})

    @classmethod
    def from_folder(cls, folder: Path, *, seed: int, fresh: bool, **settings: Any) -> Self:
        """Builds the network that a folder describes; its weights follow unless `fresh`."""
        raise NotImplementedError

    def read_weights(self, preset: Preset) -> tuple[Mapping[str, np.ndarray], LoadReport]:
        """Returns the weights of a model's files by the names of `export_weights`, and the report, not yet checked."""
        raise NotImplementedError

    def write_files(self, folder: Path, tokenizer: Tokenizer | None) -> None:
        """Writes all files of a model folder but the manifest."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Returns entries of the manifest: `type`, `parameters` and so on."""
        raise NotImplementedError

    # Weights ---------------------------------------------------------------------------------------------------

    def weight_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the weights that are here, by the names they are stored under."""
        raise NotImplementedError

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights that are here by name."""
        raise NotImplementedError

    def assign_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights of these names, whose shapes fit."""
        raise NotImplementedError

    def fresh_weights(self, seed: int, names: Iterable[str]) -> None:
        """Gives weights that a file lacks their start values; a constructor that drew them has nothing left to do."""

    def import_weights(self, values: Mapping[str, np.ndarray], source: str, allow_missing: str | None = None) -> None:
        """Sets all weights.

        Args:
            values: Arrays by the names of `export_weights`.
            source: Where they are from, for messages.
            allow_missing: Regular expression of weight names that may keep their values.

        Raises:
            ModelError: A weight is missing, has another shape, or is not made of finite floating-point numbers.
        """
        self._take(values, self.matched(values, source), allow_missing)

    def matched(self, values: Mapping[str, np.ndarray], source: str) -> LoadReport:
        """Compares arrays with the weights of the network.

        Raises:
            ModelError: A weight is no floating-point number, as in a quantised model.
        """
        report, specs = LoadReport(source), self.weight_specs()
        for name, spec in specs.items():
            if name not in values:
                report.missing.append(name)
                continue
            if spec.dtype.is_floating:
                check_type(values[name], name, source)
            if values[name].shape != tuple(spec.shape):
                report.mismatched.append((name, name, tuple(spec.shape), values[name].shape))
            else:
                report.matched.append((name, name, tuple(spec.shape)))
        others = [name for name in values if name not in specs]
        report.ignored = [name for name in others if self.is_left_out(name)]
        report.unexpected = [name for name in others if not self.is_left_out(name)]
        return report

    def is_left_out(self, name: str) -> bool:
        """Returns whether a weight belongs to a part that this network was built without on purpose."""
        return False

    def unused(self, report: LoadReport) -> str | None:
        """Returns what to tell of weights that were read and have no place; None for nothing."""
        names = report.unexpected
        return f"{report.source}: {len(names)} weights are not used, the first is {names[0]}" if names else None

    def _take(self, values: Mapping[str, np.ndarray], report: LoadReport, allow_missing: str | None) -> None:
        """Checks the report, tells what is not as usual, and sets the weights that match."""
        self.load_report = report
        log.info("%s", report.summary())
        report.check(allow_missing)
        if report.allowed:
            warn(f"random start values for: {', '.join(report.allowed)}")
        if report.repeated:
            warn(f"{report.source} holds {len(report.repeated)} weights twice, with equal values: {report.repeated[0]}")
        if unused := self.unused(report):
            warn(unused)
        taken, specs = {}, self.weight_specs()
        for name, _, _ in report.matched:
            if name in specs:  # else of another worker's part
                value, dtype = values[name], specs[name].dtype
                floats = dtype.is_floating
                taken[name] = as_floats(value, name, report.source, dtype.as_numpy_dtype) if floats else value
        self.assign_weights(taken)

    # Adapters --------------------------------------------------------------------------------------------------

    def projections(self) -> dict[str, list[Projection]]:
        """Returns the kernels that adapters may change, by what they compute: query, key, value and so on."""
        return {}

    def base_variables(self) -> list[tf.Variable]:
        """Returns the variables that a training of adapters leaves as they are."""
        return list(self.weights)

    def add_lora(self, *, rank: int, alpha: float, dropout: float, targets: Iterable[str], seed: int) -> None:
        """Puts adapters beside kernels (LoRA, arXiv 2106.09685); from now on they are trained in place of the network.

        Args:
            rank: Width of the adapters.
            alpha: Their product is multiplied by alpha / rank.
            dropout: Dropout on what they read, in training.
            targets: Names of kernels, see `projections`.
            seed: Seed of their start values.

        Raises:
            ConfigError: There are no such kernels, or they are narrower than the adapters.
        """
        known = self.projections()
        if unknown := [name for name in targets if name not in known]:
            raise ConfigError(
                f"model.lora_targets: {type(self).__name__} has no {unknown[0]}", accepted=list(known) or "no adapters"
            )
        mark_base(self.base_variables())
        places = [place for name in dict.fromkeys(targets) for place in known[name]]
        self.adaptation = Adaptation(places, rank=rank, alpha=alpha, dropout=dropout, seed=seed)

    def merge_lora(self) -> None:
        """Adds the adapters, where there are any, to the kernels: the network is an ordinary one again."""
        if self.adaptation is not None:
            self.adaptation.merge()
            self.adaptation = None
            mark_base(self.weights, False)

    # What a task asks for --------------------------------------------------------------------------------------

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth, from the input to the last layer, for freezing and layer-wise rates."""
        raise NotImplementedError

    def example_outputs(self) -> np.ndarray:
        """Returns outputs for a fixed input, to compare models and to see whether a file is damaged."""
        raise NotImplementedError

    def feature_maps(self, images: tf.Tensor, training: bool | None = False) -> dict[int, tf.Tensor]:
        """Returns features by how much they are reduced: {4: [batch, height / 4, width / 4, channels], 8: ...}.

        Raises:
            ModelError: The network has none.
        """
        raise ModelError(f"{type(self).__name__} gives no feature maps", accepted="a convolutional network")

    @property
    def input_embeddings(self) -> tf.Variable:
        """Word embeddings [vocabulary, width], for heads that share them.

        Raises:
            ModelError: The network does not read words.
        """
        raise ModelError(f"{type(self).__name__} has no word embeddings", accepted="a text encoder")
