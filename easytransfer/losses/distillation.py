"""Knowledge distillation: losses between the logits of a teacher and of a student, under the original's names.

Hinton et al., Distilling the Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531); probes on the layers as
in the original EasyTransfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from easytransfer.deferred import tf
from easytransfer.losses.classification import softmax_cross_entropy_sum

LossType = Literal["mse", "xent", "kld"]


def kd_rows(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, loss_type: LossType = "mse", temperature: float = 2.0
) -> tf.Tensor:
    """Returns how far each student's answer is from its teacher's. No gradient reaches the teacher.

    With teacher logits z, student logits s, temperature T and p, q = softmax(z / T), softmax(s / T):

        mse    1/2 |z_i - s_i|^2
        xent   T^2 CE(p_i, q_i)
        kld    T^2 KL(p_i || q_i)

    Args:
        teacher_logits: z, [..., classes].
        student_logits: s, of the same shape.
        loss_type: `mse`, `xent` or `kld`.
        temperature: T; not used by `mse`.

    Returns:
        float32 [...].

    Raises:
        ValueError: Unknown `loss_type`, or shapes that differ.
    """
    teacher = tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    student = tf.cast(student_logits, tf.float32)
    if not teacher.shape.is_compatible_with(student.shape):
        raise ValueError(f"teacher logits are {teacher.shape}, student logits {student.shape}")
    if loss_type == "mse":
        return 0.5 * tf.reduce_sum(tf.square(teacher - student), axis=-1)
    if loss_type not in ("xent", "kld"):
        raise ValueError(f"unknown loss_type {loss_type!r}; accepted: mse, xent, kld")
    targets = tf.nn.softmax(teacher / temperature)
    rows = tf.nn.softmax_cross_entropy_with_logits(targets, student / temperature)
    if loss_type == "kld":
        # KL(p || q) = CE(p, q) - H(p); the entropy of the teacher has no gradient.
        rows -= tf.nn.softmax_cross_entropy_with_logits(targets, teacher / temperature)
    return temperature**2 * rows


def layer_at_height(layer: int, layers: int, teacher_layers: int) -> int:
    """Returns ceil(i N_t / N_s): the layer of a teacher of N_t layers at the height of layer i of N_s; 0: embeddings.

    Args:
        layer: i, from 0 to `layers`.
        layers: N_s, at least 1.
        teacher_layers: N_t.
    """
    return -(-layer * teacher_layers // layers)


def build_kd_loss(
    teacher_logits: tf.Tensor,
    student_logits: tf.Tensor,
    task_balance: float = 0.3,
    distill_tempreture: float = 2.0,
    labels: tf.Tensor | None = None,
    loss_type: LossType = "mse",
    alpha: float = 1.0,
) -> tf.Tensor:
    """Returns the distillation loss of a batch. No gradient reaches the teacher.

    With teacher logits z, student logits s, temperature T, b = `task_balance`, and p, q = softmax(z / T),
    softmax(s / T):

        mse    alpha mean_i 1/2 |z_i - s_i|^2
        xent   b CE(y, s) + (1 - b) T^2 mean_i CE(p_i, q_i)
        kld    b CE(y, s) + (1 - b) T^2 mean_i KL(p_i || q_i)

    Departs from the original: its `mse` was the sum over the batch; `xent` left the student without temperature and
    the term without T^2, which keeps its gradient independent of T; `kld` took the logarithm of a difference, in the
    wrong direction and summed over the batch.

    Args:
        teacher_logits: [batch, classes].
        student_logits: [batch, classes].
        task_balance: Weight of the true labels in `xent` and `kld`; 0 needs no labels.
        distill_tempreture: T, in the original's spelling.
        labels: Class ids, int [batch] or [batch, 1]; not used by `mse`.
        loss_type: `mse`, `xent` or `kld`.
        alpha: Factor of `mse`.

    Returns:
        Scalar float32.

    Raises:
        ValueError: Unknown `loss_type`, shapes that differ, or labels are missing.
    """
    rows = kd_rows(teacher_logits, student_logits, loss_type, distill_tempreture)
    if loss_type == "mse":
        return alpha * tf.reduce_mean(rows)
    loss = (1 - task_balance) * tf.reduce_mean(rows)
    if not task_balance:
        return loss
    if labels is None:
        raise ValueError(f"loss_type {loss_type!r} with task_balance {task_balance} needs labels")
    ones = tf.ones_like(rows)
    hard = tf.math.divide_no_nan(softmax_cross_entropy_sum(labels, student_logits, ones), tf.reduce_sum(ones))
    return task_balance * hard + loss


def build_kd_probes_loss(
    teacher_logits: Sequence[tf.Tensor],
    student_logits: Sequence[tf.Tensor],
    task_balance: float = 0.3,
    distill_tempreture: float = 2.0,
    labels: tf.Tensor | None = None,
    loss_type: LossType = "mse",
    alpha: float = 1.0,
) -> tf.Tensor:
    """Returns the sum of `build_kd_loss` over the probes on the layers below the student's last.

    Probe i of a student of N_s layers learns from probe ceil(i N_t / N_s) of a teacher of N_t layers, probe 0 being the
    one on the embeddings. The last layer is left to `build_kd_loss`.

    Args:
        teacher_logits: N_t + 1 logits, each [batch, classes].
        student_logits: N_s + 1 logits, each [batch, classes].
        task_balance: See `build_kd_loss`, as all further ones.
        distill_tempreture: T.
        labels: Class ids.
        loss_type: `mse`, `xent` or `kld`.
        alpha: Factor of `mse`.

    Returns:
        Scalar float32; 0 for a student with one probe.

    Raises:
        ValueError: See `build_kd_loss`.
    """
    teacher_layers, student_layers = len(teacher_logits) - 1, len(student_logits) - 1
    losses = [
        build_kd_loss(
            teacher_logits[layer_at_height(i, student_layers, teacher_layers)],
            student_logits[i],
            task_balance,
            distill_tempreture,
            labels,
            loss_type,
            alpha,
        )
        for i in range(student_layers)
    ]
    return tf.add_n(losses) if losses else tf.constant(0.0)
