"""The meta-teacher, and the student with what only its training needs beside it."""

from __future__ import annotations

import tensorflow as tf

from appzoo.layer_probes import mean_of_tokens
from appzoo.pooled_model import PooledModel
from appzoo.student_encoder import ProjectedStudent
from easytransfer import keras
from easytransfer.layers.plain import get_initializer
from easytransfer.train.weights import TRAINING_ONLY
from modelzoo.backbone import Backbone

TEACHER_SCOPE = f"{TRAINING_ONLY}_teacher"


class DomainRepresentation(keras.layers.Layer):
    """What a network says of a text and its domain: r = tanh(W (e_d + h) + b), e_d a vector of the row's domain d.

    Meta-KD (arXiv 2012.01266), section 3: what the meta-teacher tells corrupted domains from, and what is transferred
    to the student.

    Args:
        domains: Domains.
        units: Width of r.

    Call arguments:
        vectors: h, the mean of the tokens of the last layer, [batch, width].
        domain_id: d, int [batch].

    Returns:
        float32 [batch, units].
    """

    def __init__(self, domains: int, units: int) -> None:
        super().__init__(name="domain_representation", dtype="float32")
        self._domains, self._units = domains, units

    def build(self, shape: tf.TensorShape) -> None:
        """Makes a vector for each domain, kernel and bias."""
        self.embeddings = self.add_weight("embeddings", [self._domains, shape[-1]], initializer=get_initializer())
        self.kernel = self.add_weight("kernel", [shape[-1], self._units], initializer=get_initializer())
        self.bias = self.add_weight("bias", [self._units], initializer="zeros")
        super().build(shape)

    def call(self, vectors: tf.Tensor, domain_id: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.tanh(tf.matmul(vectors + tf.gather(self.embeddings, domain_id), self.kernel) + self.bias)


class MetaTeacher(PooledModel):
    """Encoder, dropout on the pooled [CLS], dense layer; beside it a classifier of domains.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        domains: Domains.
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float, domains: int) -> None:
        super().__init__(backbone, num_outputs, dropout_rate)
        width = backbone.config.hidden_size
        self.domain_representation = DomainRepresentation(domains, width)
        self.domain_head = keras.layers.Dense(
            domains, kernel_initializer=get_initializer(), dtype="float32", name="domain_head"
        )
        self.domain_head(self.domain_representation(tf.zeros([1, width]), tf.zeros([1], tf.int32)))

    def inside(self, batch: dict[str, tf.Tensor], training: bool, attentions: bool) -> dict[str, tf.Tensor]:
        """Returns what `with_states` does, `domain_representation` [batch, hidden], `domain_logits` [batch, domains].

        Args:
            batch: As of a call, and `domain_id` int [batch].
            training: Whether dropout acts.
            attentions: Whether attentions are wanted too.
        """
        found = with_representation(self, batch, training, attentions)
        return {**found, "domain_logits": self.domain_head(found["domain_representation"])}


class MetaStudent(ProjectedStudent):
    """Encoder, dropout on the pooled [CLS], dense layer; for the training a meta-teacher, and what is compared to it.

    Names of all that is for the training alone begin with `training_only`.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        teacher: The meta-teacher.
        domains: Domains.
    """

    def __init__(
        self, backbone: Backbone, num_outputs: int, dropout_rate: float, teacher: MetaTeacher, domains: int
    ) -> None:
        own, theirs = backbone.config.hidden_size, teacher.backbone.config.hidden_size
        with tf.name_scope(TRAINING_ONLY):
            super().__init__(backbone, num_outputs, dropout_rate, theirs if theirs != own else 0)
            self.domain_representation = DomainRepresentation(domains, theirs)
            self.domain_representation(tf.zeros([1, own]), tf.zeros([1], tf.int32))
        self.teacher = teacher

    def inside(self, batch: dict[str, tf.Tensor], training: bool, attentions: bool) -> dict[str, tf.Tensor]:
        """Returns what `with_states` does, and `domain_representation` [batch, hidden of the teacher].

        Args:
            batch: As of a call, and `domain_id` int [batch].
            training: Whether dropout acts.
            attentions: Whether attentions are wanted too.
        """
        return with_representation(self, batch, training, attentions)

    def training_parts(self) -> list[keras.layers.Layer | None]:
        """Returns projections, the representation of domains and the meta-teacher."""
        return [*self.compared_parts(), self.teacher]

    def compared_parts(self) -> list[keras.layers.Layer | None]:
        """Returns what the student's layers are compared through: projections and the representation of domains."""
        return [*super().training_parts(), self.domain_representation]


def with_representation(
    model: MetaTeacher | MetaStudent, batch: dict[str, tf.Tensor], training: bool, attentions: bool
) -> dict[str, tf.Tensor]:
    """Returns what `PooledModel.with_states` does, and `domain_representation` of its last layer."""
    found = model.with_states(batch, training, attentions)
    mean = mean_of_tokens(found["hidden_states"][:, -1], batch["input_mask"])
    return {**found, "domain_representation": model.domain_representation(mean, batch["domain_id"])}
