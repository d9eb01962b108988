"""Losses on the vectors of paired texts, SUMMED over the rows as in `classification`.

The in-batch losses compare a text with the second texts of other rows, so their value depends on which rows share a
batch: splitting a batch over workers or accumulation gives another (equally valid) loss. Rows of weight 0, which only
fill a batch, are neither anchors nor candidates.
"""

from __future__ import annotations

from easytransfer.deferred import tf

# Keeps the direction of a zero vector defined.
_SQUARED_NORM_EPSILON = 1e-12


def unit_vectors(vectors: tf.Tensor) -> tf.Tensor:
    """Returns the vectors [..., size] scaled to length 1, as float32; a zero vector stays zero."""
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1, epsilon=_SQUARED_NORM_EPSILON)


def cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the cosine of each pair of rows, float32 [batch]."""
    return tf.reduce_sum(unit_vectors(first) * unit_vectors(second), axis=-1)


def text_ids(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a number for every text of a batch, equal for texts with the same tokens, within and across both sides.

    Args:
        first: Token ids of first texts, 0 behind their end, int [batch, tokens].
        second: Token ids of second texts; the two sides may differ in width.

    Returns:
        Two int [batch]; they mean nothing outside this batch.
    """
    width = tf.maximum(tf.shape(first)[1], tf.shape(second)[1])
    both = tf.concat([tf.pad(side, [[0, 0], [0, width - tf.shape(side)[1]]]) for side in (first, second)], axis=0)
    equal = tf.reduce_all(both[:, None] == both[None, :], axis=2)
    ids = tf.argmax(tf.cast(equal, tf.int32), axis=1)  # the first text that is equal
    rows = tf.shape(first)[0]
    return ids[:rows], ids[rows:]


def in_batch_negatives(
    anchor_ids: tf.Tensor, candidate_ids: tf.Tensor, matches: tf.Tensor, example_weight: tf.Tensor
) -> tf.Tensor:
    """Returns which candidates [batch, batch] may be negatives of which anchors.

    Row i is an anchor when its pair matches. The candidate of row j is a negative of it unless the batch shows that
    they belong together (some row pairs these two texts as a match), both are the same text, or row j is a filler.

    Args:
        anchor_ids: What identifies the text of each anchor, [batch].
        candidate_ids: What identifies the text of each candidate, [batch], equal to an anchor's for equal texts.
        matches: Whether the pair of a row matches, bool [batch].
        example_weight: [batch]; 0 for fillers.
    """
    real = tf.cast(example_weight, tf.float32) > 0
    anchors = matches & real
    same_anchor = (anchor_ids[:, None] == anchor_ids[None, :]) & anchors[None, :]
    same_candidate = candidate_ids[:, None] == candidate_ids[None, :]
    # Counts, for anchor i and candidate j, the rows k with a matching pair of the text of i and the text of j.
    partners = tf.matmul(tf.cast(same_anchor, tf.float32), tf.cast(same_candidate, tf.float32)) > 0
    identical = anchor_ids[:, None] == candidate_ids[None, :]
    return anchors[:, None] & real[None, :] & ~partners & ~identical


def margin_sum(
    first: tf.Tensor,
    second: tf.Tensor,
    matches: tf.Tensor,
    negatives: tf.Tensor,
    example_weight: tf.Tensor,
    *,
    margin: float = 0.3,
    threshold: float = 0.5,
) -> tf.Tensor:
    """Returns sum_i w_i l_i with cosines s_ij of first text i and second text j.

    A matching row has l_i = sum_j max(0, m - s_ii + s_ij) / (n_i + 1) over its n_i negatives; when all rows match and
    no text repeats, the mean over rows is the loss of the original, whose mean counts the diagonal as a zero. A row
    that does not match has no partner to be compared with, so the threshold of the decision stands for it:
    l_i = max(0, m - t + s_ii).

    Args:
        first: Vectors of first texts, [batch, size].
        second: Vectors of second texts, [batch, size].
        matches: Whether the pair of a row matches, bool [batch].
        negatives: See `in_batch_negatives`, bool [batch, batch].
        example_weight: w, [batch]; 0 for fillers.
        margin: m.
        threshold: t, the cosine above which a pair is predicted to match.

    Returns:
        Scalar float32; divide it by the sum of the weights.
    """
    similarity = tf.matmul(unit_vectors(first), unit_vectors(second), transpose_b=True)
    own = tf.linalg.diag_part(similarity)
    allowed = tf.cast(negatives, tf.float32)
    # h_ij = max(0, m - s_ii + s_ij) for the negatives j of i.
    hinge = allowed * tf.nn.relu(margin - own[:, None] + similarity)
    matched = tf.reduce_sum(hinge, axis=1) / (tf.reduce_sum(allowed, axis=1) + 1.0)
    return _weighted_sum(matches, matched, tf.nn.relu(margin - threshold + own), example_weight)


def softmax_sum(
    first: tf.Tensor,
    second: tf.Tensor,
    matches: tf.Tensor,
    negatives: tf.Tensor,
    reverse_negatives: tf.Tensor,
    example_weight: tf.Tensor,
    *,
    scale: float = 20.0,
    threshold: float = 0.5,
) -> tf.Tensor:
    """Returns sum_i w_i l_i with scaled cosines z_ij = scale s_ij of first text i and second text j.

    A matching row has the symmetric InfoNCE loss (arXiv 1807.03748, equation 4, in both directions)
    l_i = 1/2 [log sum_j exp(z_ij) - z_ii] + 1/2 [log sum_j exp(z_ji) - z_ii], j over the row itself and its negatives
    in that direction. A row that does not match has l_i = log(1 + exp(z_ii - scale t)): the threshold of the decision
    stands for the partner it lacks.

    Args:
        first: Vectors of first texts, [batch, size].
        second: Vectors of second texts, [batch, size].
        matches: Whether the pair of a row matches, bool [batch].
        negatives: Second texts against first ones, see `in_batch_negatives`, bool [batch, batch].
        reverse_negatives: First texts against second ones, bool [batch (second), batch (first)].
        example_weight: w, [batch]; 0 for fillers.
        scale: Factor of the cosines, the inverse of a temperature.
        threshold: t, the cosine above which a pair is predicted to match.

    Returns:
        Scalar float32; divide it by the sum of the weights.
    """
    logits = scale * tf.matmul(unit_vectors(first), unit_vectors(second), transpose_b=True)
    own = tf.linalg.diag_part(logits)
    forward = _log_sum_exp(logits, own, negatives) - own
    backward = _log_sum_exp(tf.transpose(logits), own, reverse_negatives) - own
    return _weighted_sum(matches, (forward + backward) / 2, tf.nn.softplus(own - scale * threshold), example_weight)


def matching_embedding_margin_loss(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the original's margin loss: every row matches, all other second texts are negatives, margin 0.3.

    Args:
        first: Vectors of first texts, [batch, size].
        second: Vectors of second texts, [batch, size].

    Returns:
        mean_i mean_j max(0, 0.3 - s_ii + s_ij), the term of j = i being zero; scalar float32.
    """
    rows = tf.shape(first)[0]
    everything = tf.ones([rows], tf.bool)
    others = ~tf.cast(tf.eye(rows), tf.bool)
    weight = tf.ones([rows], tf.float32)
    return margin_sum(first, second, everything, others, weight) / tf.cast(rows, tf.float32)


def _log_sum_exp(logits: tf.Tensor, own: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
    """Returns log(exp(own_i) + sum over negatives j of exp(logits_ij)), [batch]."""
    kept = tf.where(negatives, logits, logits.dtype.min)
    return tf.reduce_logsumexp(tf.concat([own[:, None], kept], axis=1), axis=1)


def _weighted_sum(matches: tf.Tensor, matched: tf.Tensor, unmatched: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(weight, tf.float32) * tf.where(matches, matched, unmatched))
