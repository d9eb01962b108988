"""A student that is an encoder: cut from a pre-trained one or of other sizes, with projections to a teacher's width."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from appzoo.encoder import Encoder
from appzoo.pooled_model import PooledModel
from easytransfer import keras
from easytransfer.config.job import JobConfig
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError
from easytransfer.layers.plain import get_initializer
from easytransfer.losses.distillation import layer_at_height
from modelzoo.backbone import Backbone


class StudentEncoder(Encoder):
    """Tokenizer of a pre-trained encoder, and an encoder of all or some of its layers, or of other sizes.

    Args:
        config: Configuration whose model section has `EncoderStudentSettings`.
        folder: A run folder or the assets of an export, which have the sizes of the student; None takes the ModelZoo.

    Raises:
        ConfigError: The sizes do not fit each other, or there are not so many layers.
    """

    def __init__(self, config: JobConfig, folder: Path | None) -> None:
        super().__init__(config, folder)
        self._layers: list[int] | None = None
        changes = config.model.changes if folder is None else {}
        if not changes:
            return
        there, wanted = self.config.num_hidden_layers, config.model.num_layers
        if wanted is not None and not config.model.from_scratch:
            self._layers = chosen_layers(config.model.layers_from, wanted, there)
        self.config = self.config.replace(**changes)

    def backbone(self, folder: Path | None, workers: Workers) -> Backbone:
        """Builds the encoder with the weights of its layers, or with random ones."""
        if folder is None and self.job.model.from_scratch:
            model = self.job.model
            return Backbone.from_preset(
                model.pretrain_model_name_or_path,
                zoo=self.job.runtime.model_zoo_base_path,
                weights=False,
                seed=self.job.runtime.seed,
                **model.changes,
            )
        whole = super().backbone(folder, workers)
        return whole if self._layers is None else whole.with_layers(self._layers)


def chosen_layers(which: str, wanted: int, there: int) -> list[int]:
    """Returns the numbers from 0 of the layers that a student takes from a pre-trained encoder.

    Args:
        which: `first`, or `uniform`: layer i of n is the one at its height, ceil(i N / n), so that the last one is the
            last.
        wanted: Layers of the student, n.
        there: Layers of the encoder, N.

    Raises:
        ConfigError: There are not so many.
    """
    if wanted > there:
        raise ConfigError(
            "model.num_layers exceeds the layers of the pre-trained encoder",
            received=wanted,
            accepted=f"at most {there}",
            fix="take a larger one, or set model.from_scratch=true",
        )
    if which == "first":
        return list(range(wanted))
    return [layer_at_height(i, wanted, there) - 1 for i in range(1, wanted + 1)]


class ProjectedStudent(PooledModel):
    """Encoder, dropout on the pooled [CLS], dense layer; for the training, projections to a teacher's width.

    One projection of the embeddings, and one of all layers (TinyBERT, arXiv 1909.10351, equations 8 and 9).

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        width: Of the teacher's layers; 0 makes no projections.
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float, width: int) -> None:
        super().__init__(backbone, num_outputs, dropout_rate)
        self.embedding_projection = self.hidden_projection = None
        if width:
            self.embedding_projection = _projection(width, "embedding_projection")
            self.hidden_projection = _projection(width, "hidden_projection")
            for layer in (self.embedding_projection, self.hidden_projection):
                layer(tf.zeros([1, 1, backbone.config.hidden_size]))

    def projected(self, state: tf.Tensor, layer: int) -> tf.Tensor:
        """Returns outputs [batch, tokens, width] of a layer, 0 for the embeddings, at the teacher's width."""
        projection = self.hidden_projection if layer else self.embedding_projection
        return state if projection is None else projection(state)

    def projections(self) -> list[keras.layers.Layer]:
        """Returns the projections, none where the widths are the same."""
        return [part for part in (self.embedding_projection, self.hidden_projection) if part is not None]

    def training_parts(self) -> list[keras.layers.Layer | None]:
        """Returns what is there for the training alone; None where it is not wanted."""
        return [*self.projections()]

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns the groups of the student, what is there for the training in the last one."""
        parts = self.training_parts()
        extra = [variable for part in parts if part is not None for variable in part.trainable_variables]
        *groups, last = super().layer_groups()
        return [*groups, [*last, *extra]]


def _projection(width: int, name: str) -> keras.layers.Dense:
    start = get_initializer()
    return keras.layers.Dense(width, use_bias=False, kernel_initializer=start, dtype="float32", name=name)
