"""Several networks as one model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from appzoo.image_app import ImageModel
from easytransfer import keras
from easytransfer.distributed.collectives import Group, gather_from
from easytransfer.layers.dropout import dropout_part


def combined(logits: tf.Tensor, rule: str) -> tf.Tensor:
    """Returns the logits of the ensemble, [batch, classes].

    Args:
        logits: Those of the members, float32 [batch, members, classes].
        rule: `mean_logits` (whose probabilities are the geometric mean of the members', normalised),
            `mean_probabilities` (the logits are their logarithms), or `max_logits`.
    """
    if rule == "mean_logits":
        return tf.reduce_mean(logits, axis=1)
    if rule == "max_logits":
        return tf.reduce_max(logits, axis=1)
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits), axis=1) - math.log(logits.shape[1])


class Ensemble(keras.Model):
    """Calls several networks on one image each, in one graph, in which nothing makes them wait for each other.

    Args:
        members: The networks, of any shapes.
        rule: How they are combined, see `combined`.
        group: Workers of which each computes the member of its own number and gets the logits of the others.
        answers_with: Number of the member, from 1, that answers without the others; 0 = all of them.

    Call arguments:
        batch: `image` [batch, height, width, channels] for all members, or [batch, members, height, width, channels].

    Returns:
        `logits` float32 [batch, classes] and `member_logits` float32 [batch, members, classes].

    Raises:
        ValueError: Another number of workers or of views than members.
    """

    def __init__(
        self, members: Sequence[ImageModel], rule: str, group: Group | None = None, answers_with: int = 0
    ) -> None:
        super().__init__(name="ensemble", autocast=False)
        if group is not None and group.size != len(members):
            raise ValueError(f"{group.size} workers for {len(members)} networks")
        self.members, self.rule, self.group = list(members), rule, group
        # The members are; a call would exchange logits.
        self.built = True
        self.answers_with = answers_with

    @property
    def compiled_part(self) -> keras.Model:
        """What answers without labels: the ensemble, or one member of it."""
        return self.members[self.answers_with - 1] if self.answers_with else self

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth, those of all members together where these are equally deep."""
        groups = [member.layer_groups() for member in self.members]
        if len({len(each) for each in groups}) > 1:
            return [list(self.trainable_variables)]
        return [[variable for group in level for variable in group] for level in zip(*groups, strict=True)]

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        images = batch["image"]
        if images.shape.rank == 5 and images.shape[1] != len(self.members):
            raise ValueError(f"{images.shape[1]} views for {len(self.members)} networks")
        if self.group is None:
            logits = tf.stack([self._of_member(i, images, training) for i in range(len(self.members))], axis=1)
        else:
            own = self._of_member(self.group.rank, images, training)
            logits = gather_from(own[:, None], self.group, "member_logits", axis=1)
            # The exchange does not know how many there are.
            logits = tf.ensure_shape(logits, [None, len(self.members), own.shape[-1]])
        return {"logits": combined(logits, self.rule), "member_logits": logits}

    def _of_member(self, number: int, images: tf.Tensor, training: bool) -> tf.Tensor:
        seen = images[:, number] if images.shape.rank == 5 else images
        # Dropout of its own that does not depend on where the others are computed.
        with dropout_part(number + 1):
            return self.members[number]({"image": seen}, training=training)["logits"]
