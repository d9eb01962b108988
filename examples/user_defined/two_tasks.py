"""Two tasks on one encoder: each row carries the label of one of them, and trains that task's head."""

import tensorflow as tf

from easytransfer import base_model, layers, model_zoo, preprocessors
from easytransfer.evaluators import mean_eval_metric
from easytransfer.losses import softmax_cross_entropy


class TwoTasks(base_model):
    """Heads for `sentiment` and `topic`; label ids count through the names of both."""

    def heads(self):
        """Returns name, first label id and number of labels of every head."""
        return (("sentiment", 0, self.num_sentiments), ("topic", self.num_sentiments, self.num_topics))

    def build_logits(self, features, mode=None):
        """Returns logits [batch, labels of the head] by head, and label ids [batch]."""
        preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path)
        encoder = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
        input_ids, input_mask, segment_ids, label_ids = preprocessor(features)
        _, pooled = encoder([input_ids, input_mask, segment_ids], mode=mode)
        return {name: layers.Dense(size, name=name)(pooled) for name, _, size in self.heads()}, label_ids

    def own_rows(self, labels, first, size):
        """Returns which rows belong to a head, and their labels counted from 0."""
        mine = tf.cast((labels >= first) & (labels < first + size), tf.float32)
        return mine, tf.clip_by_value(labels - first, 0, size - 1)

    def build_loss(self, logits, labels):
        """Returns the sum of the mean cross entropies, each over the rows of its task."""
        losses = []
        for name, first, size in self.heads():
            mine, ids = self.own_rows(labels, first, size)
            losses.append(softmax_cross_entropy(ids, size, logits[name], example_weight=mine))
        return tf.add_n(losses)

    def build_eval_metrics(self, logits, labels):
        """Returns the accuracy of each task."""
        metrics = {}
        for name, first, size in self.heads():
            mine, ids = self.own_rows(labels, first, size)
            right = tf.cast(tf.argmax(logits[name], axis=-1, output_type=tf.int32) == ids, tf.float32)
            metrics |= mean_eval_metric(f"{name}_accuracy", right, mine)
        return metrics

    def build_predictions(self, predict_output):
        """Returns the label id of every head, for every row."""
        logits, _ = predict_output
        return {name: first + tf.argmax(logits[name], axis=-1) for name, first, _ in self.heads()}


if __name__ == "__main__":
    TwoTasks().run()
