"""Texts written id by id, inside a graph: the most probable id, the best of several beams, or a drawn one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Nested tensors whose first axis is that of the texts: what a network keeps of the ids before.
Cache = Any
# (id written last int32 [texts], number of ids written, cache) -> logits of the next id [texts, ids], cache.
NextLogits = Callable[[tf.Tensor, tf.Tensor, Cache], tuple[tf.Tensor, Cache]]

# Of beams that must not win.
_LOST = -1e9


@dataclass(frozen=True)
class Decoding:
    """How texts are written.

    Attributes:
        most: Most ids of a text, its end included.
        start: Id that stands before the first one.
        end: Id that ends a text.
        beams: Texts that are followed at a time; 1 takes the most probable id at every place.
        length_penalty: Log-probabilities of beams are divided by the number of ids to this power: above 0 for longer
            texts, below for shorter ones.
        is_drawn: Ids are drawn by their probabilities; then `beams` must be 1.
        temperature: Logits are divided by it before an id is drawn.
        top_k: Only so many of the most probable ids are drawn from; 0 for all.
        top_p: Only the fewest ids whose probabilities sum up to this much are drawn from.
        seed: Of the draws; equal inputs in equal batches give equal texts.
    """

    most: int
    start: int
    end: int
    beams: int = 1
    length_penalty: float = 1.0
    is_drawn: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def written(next_logits: NextLogits, cache: Cache, rows: tf.Tensor, how: Decoding) -> tf.Tensor:
    """Returns the ids of texts, int32 [rows, most]; behind the end of a text all ids are 0.

    Args:
        next_logits: The network, see `NextLogits`.
        cache: What it needs at the first place, of `rows * how.beams` texts, the beams of a text side by side.
        rows: Number of texts, a scalar.
        how: See `Decoding`.

    Example:
        >>> count = lambda last, place, cache: (tf.one_hot(tf.fill([2], place + 1), 5), cache)
        >>> written(count, (), 2, Decoding(most=4, start=0, end=3))
        array([[1, 2, 3, 0], [1, 2, 3, 0]])
    """
    if how.beams > 1:
        return _beam_search(next_logits, cache, rows, how)

    def goes_on(place: tf.Tensor, ids: tf.Tensor, last: tf.Tensor, is_open: tf.Tensor, cache: Cache) -> tf.Tensor:
        return tf.reduce_any(is_open)

    def step(place: tf.Tensor, ids: tf.Tensor, last: tf.Tensor, is_open: tf.Tensor, cache: Cache) -> tuple[Any, ...]:
        logits, cache = next_logits(last, place, cache)
        chosen = _drawn(logits, place, how) if how.is_drawn else tf.argmax(logits, -1, output_type=tf.int32)
        chosen = tf.where(is_open, chosen, 0)
        return place + 1, _put(ids, place, chosen), chosen, is_open & (chosen != how.end), cache

    state = tf.zeros([], tf.int32), tf.zeros([rows, how.most], tf.int32), tf.fill([rows], how.start)
    return _looped(goes_on, step, (*state, tf.ones([rows], tf.bool), cache), how.most)[1]


def _beam_search(next_logits: NextLogits, cache: Cache, rows: tf.Tensor, how: Decoding) -> tf.Tensor:
    """Returns the best text of each row.

    At every place the 2 * beams best continuations of a row are looked at. Those that end, if they are among the first
    `beams`, are kept with their log-probability divided by their length; the best others are followed. A row is done
    when it keeps `beams` texts and none that is followed is better than the worst of them.
    """
    beams = how.beams
    offsets = tf.range(rows)[:, None] * beams

    def goes_on(place: tf.Tensor, *state: Any) -> tf.Tensor:
        return tf.reduce_any(state[-2])

    def step(
        place: tf.Tensor,
        ids: tf.Tensor,
        scores: tf.Tensor,
        kept: tf.Tensor,
        kept_scores: tf.Tensor,
        is_open: tf.Tensor,
        cache: Cache,
    ) -> tuple[Any, ...]:
        last = tf.where(place > 0, tf.gather(ids, tf.maximum(place - 1, 0), axis=2), how.start)
        logits, cache = next_logits(tf.reshape(last, [-1]), place, cache)
        count = tf.shape(logits)[-1]
        sums = tf.nn.log_softmax(tf.reshape(tf.cast(logits, tf.float32), [rows, beams, count])) + scores[..., None]
        best, places = tf.math.top_k(tf.reshape(sums, [rows, beams * count]), 2 * beams)
        parents, chosen = places // count, places % count
        longer = _put(tf.gather(ids, parents, batch_dims=1), place, chosen)
        ended = (chosen == how.end) | (place == how.most - 1)

        first = tf.range(2 * beams)[None, :] < beams
        length = tf.cast(place + 1, tf.float32) ** how.length_penalty
        final = tf.where(ended & first & is_open[:, None], best / length, _LOST)
        all_scores, all_ids = tf.concat([kept_scores, final], 1), tf.concat([kept, longer], 1)
        kept_scores, which = tf.math.top_k(all_scores, beams)
        kept = tf.gather(all_ids, which, batch_dims=1)

        scores, which = tf.math.top_k(tf.where(ended, best + _LOST, best), beams)
        ids, parents = tf.gather(longer, which, batch_dims=1), tf.gather(parents, which, batch_dims=1)
        cache = tf.nest.map_structure(lambda x: tf.gather(x, tf.reshape(parents + offsets, [-1])), cache)
        is_open &= scores[:, 0] / length > kept_scores[:, -1]
        return place + 1, ids, scores, kept, kept_scores, is_open, cache

    none = tf.zeros([rows, beams, how.most], tf.int32)
    alone = tf.tile(tf.where(tf.range(beams) > 0, _LOST, 0.0)[None], [rows, 1])
    state = tf.zeros([], tf.int32), none, alone, none, tf.fill([rows, beams], _LOST), tf.ones([rows], tf.bool), cache
    return _looped(goes_on, step, state, how.most)[3][:, 0]


def _looped(goes_on: Callable[..., Any], step: Callable[..., Any], state: tuple[Any, ...], most: int) -> Any:
    # A cache grows along an axis that only the network knows.
    shapes = [tensor.shape for tensor in state[:-1]]
    open_shapes = tf.nest.map_structure(lambda tensor: tf.TensorShape([None] * tensor.shape.rank), state[-1])
    return tf.while_loop(goes_on, step, state, (*shapes, open_shapes), maximum_iterations=most)


def _put(ids: tf.Tensor, place: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Returns ids with those of one place of the last axis, where zeros are."""
    return ids + chosen[..., None] * tf.one_hot(place, tf.shape(ids)[-1], dtype=tf.int32)


def _drawn(logits: tf.Tensor, place: tf.Tensor, how: Decoding) -> tf.Tensor:
    logits = tf.cast(logits, tf.float32) / how.temperature
    count = tf.shape(logits)[-1]
    if how.top_k:
        weakest = tf.math.top_k(logits, tf.minimum(how.top_k, count)).values[:, -1:]
        logits = tf.where(logits < weakest, -float("inf"), logits)
    if how.top_p < 1:
        ordered, order = tf.math.top_k(logits, count)
        shares = tf.nn.softmax(ordered)
        # Of an id those before it: the first one that exceeds the sum is still drawn from.
        left_out = tf.cumsum(shares, axis=-1, exclusive=True) >= how.top_p
        ordered = tf.where(left_out, -float("inf"), ordered)
        logits = tf.gather(ordered, tf.argsort(order), batch_dims=1)
    noise = tf.random.stateless_uniform(tf.shape(logits), [how.seed, place], minval=1e-20, maxval=1.0)
    return tf.argmax(logits - tf.math.log(-tf.math.log(noise)), -1, output_type=tf.int32)
