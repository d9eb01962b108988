"""Linear-chain conditional random field over the words of a sequence (Lafferty et al. 2001; Sutton and McCallum 2012).

The score of tags y for emissions e is sum_t e[t, y_t] + sum_t A[y_(t-1), y_t] with the transitions A. Sequences are
padded at the end; all sums and maxima are exact, in float32.
"""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras


@keras.utils.register_keras_serializable(package="easytransfer")
class LinearChainCRF(keras.layers.Layer):
    """Scores neighbouring tags on top of a network's emissions.

    Calling the layer decodes; `log_likelihood` is what training maximizes.

    Args:
        tags: Number of tags.
        rate_factor: The transitions learn this much faster than the rest of the model: they start from 0 and could not
            get anywhere at the learning rate that suits a pre-trained encoder.

    Call arguments:
        emissions: [batch, words, tags].
        lengths: Words of each sequence, int [batch].

    Returns:
        `tags`, the best sequence (Viterbi), int32 [batch, words], 0 behind the end; and `log_probabilities`, the log
        marginals log p(y_t = j | e) by forward-backward, float32 [batch, words, tags].

    Example:
        >>> crf = LinearChainCRF(3)
        >>> crf(tf.random.normal([2, 5, 3]), tf.constant([5, 2]))["tags"].shape
        TensorShape([2, 5])
    """

    def __init__(self, tags: int, rate_factor: float = 1.0, **kwargs) -> None:
        super().__init__(**{"dtype": "float32", "name": "crf", **kwargs})
        self.tags, self.rate_factor = tags, rate_factor

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the transitions, [from, to], at 0: no preference."""
        self._kernel = self.add_weight(name="transitions", shape=[self.tags, self.tags], initializer="zeros")
        super().build(input_shape)

    @property
    def transitions(self) -> tf.Tensor:
        """Scores A, float32 [from, to]."""
        kernel = tf.convert_to_tensor(self._kernel)
        # The gradient is that of the kernel alone, so every optimizer moves the transitions by rate_factor * its step.
        return kernel + tf.stop_gradient((self.rate_factor - 1) * kernel)

    def call(self, emissions: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        """See the class."""
        transitions = self.transitions
        return {
            "tags": viterbi(emissions, lengths, transitions),
            "log_probabilities": log_marginals(emissions, lengths, transitions),
        }

    def log_likelihood(self, emissions: tf.Tensor, tags: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns log p(tags | emissions) of every sequence, float32 [batch]; 0 for an empty one.

        Args:
            emissions: [batch, words, tags].
            tags: int [batch, words]; anything behind the end.
            lengths: int [batch].
        """
        if not self.built:
            self.build(emissions.shape)
        return log_likelihood(emissions, tags, lengths, self.transitions)

    def get_config(self) -> dict:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "tags": self.tags, "rate_factor": self.rate_factor}


def log_likelihood(emissions: tf.Tensor, tags: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Returns log p(tags | emissions), float32 [batch]; arguments as in the layer, transitions [tags, tags]."""
    emissions, real = _padded(emissions, lengths)
    tags = tf.where(real[:, :-1], tags, 0)
    at_words = tf.gather(emissions[:, :-1], tags, axis=2, batch_dims=2)
    between = tf.gather_nd(transitions, tf.stack([tags[:, :-1], tags[:, 1:]], axis=-1))
    score = tf.reduce_sum(tf.where(real[:, :-1], at_words, 0.0), 1)
    score += tf.reduce_sum(tf.where(real[:, 1:-1], between, 0.0), 1)
    log_norm = tf.reduce_logsumexp(_forward(emissions, real, transitions)[-1], axis=-1)
    return tf.where(lengths > 0, score - log_norm, 0.0)


def log_marginals(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Returns log p(y_t = j | emissions), float32 [batch, words, tags]; meaningless behind the end."""
    emissions, real = _padded(emissions, lengths)
    alpha = _forward(emissions, real, transitions)

    def step(later: tf.Tensor, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        emission, is_real = inputs
        message = tf.reduce_logsumexp(transitions + (emission + later)[:, tf.newaxis, :], axis=-1)
        return tf.where(is_real[:, tf.newaxis], message, later)

    nothing = tf.zeros_like(emissions[:, 0])
    messages = tf.scan(step, _time_major(emissions[:, 1:], real[:, 1:]), nothing, reverse=True)
    log_joint = alpha + tf.concat([messages, nothing[tf.newaxis]], axis=0)
    return tf.transpose(tf.nn.log_softmax(log_joint), [1, 0, 2])[:, :-1]


def viterbi(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Returns the tags with the highest score, int32 [batch, words], 0 behind the end; ties go to the lower tag."""
    emissions, real = _padded(emissions, lengths)
    own = tf.range(tf.shape(emissions)[2]) + tf.zeros_like(emissions[:, 0], tf.int32)

    def forward(state: tuple[tf.Tensor, tf.Tensor], inputs: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        emission, is_real = inputs
        paths = state[0][:, :, tf.newaxis] + transitions
        is_real = is_real[:, tf.newaxis]
        best = tf.argmax(paths, axis=1, output_type=tf.int32)
        # Behind the end nothing changes, and every tag points back to itself.
        return tf.where(is_real, tf.reduce_max(paths, axis=1) + emission, state[0]), tf.where(is_real, best, own)

    start = (emissions[:, 0], own)
    scores, back = tf.scan(forward, _time_major(emissions[:, 1:], real[:, 1:]), start)
    final = tf.concat([emissions[tf.newaxis, :, 0], scores], axis=0)[-1]
    last = tf.argmax(final, axis=-1, output_type=tf.int32)
    earlier = tf.scan(lambda tag, pointers: tf.gather(pointers, tag, batch_dims=1), back, last, reverse=True)
    path = tf.transpose(tf.concat([earlier, last[tf.newaxis]], axis=0))
    return tf.where(real, path, 0)[:, :-1]


def _forward(emissions: tf.Tensor, real: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Returns log sums over all beginnings that end in a tag, [words, batch, tags]; kept behind the end."""

    def step(alpha: tf.Tensor, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        emission, is_real = inputs
        moved = tf.reduce_logsumexp(alpha[:, :, tf.newaxis] + transitions, axis=1) + emission
        return tf.where(is_real[:, tf.newaxis], moved, alpha)

    first = emissions[:, 0]
    rest = tf.scan(step, _time_major(emissions[:, 1:], real[:, 1:]), first)
    return tf.concat([first[tf.newaxis], rest], axis=0)


def _padded(emissions: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds one position behind the end, as `tf.scan` needs a step to make, and returns which positions are real."""
    emissions = tf.pad(tf.cast(emissions, tf.float32), [[0, 0], [0, 1], [0, 0]])
    return emissions, tf.sequence_mask(lengths, tf.shape(emissions)[1])


def _time_major(emissions: tf.Tensor, real: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.transpose(emissions, [1, 0, 2]), tf.transpose(real)
