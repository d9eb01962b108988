"""Small tasks on synthetic data for the training tests."""

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.layers.dropout import Dropout
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss
from easytransfer.train.task import Task

WORDS, WIDTH, CLASSES = 40, 8, 3


def words_table(rows=50, seed=0):
    """Texts of 1 to 12 word ids; the label is the class of the word ids' sum."""
    random = np.random.default_rng(seed)
    texts = [random.integers(1, WORDS, random.integers(1, 13)) for _ in range(rows)]
    labels = np.array([int(text.sum()) % CLASSES for text in texts], np.int32)
    return EncodedTable({"input_ids": Ragged.from_lists(texts), "label_id": labels}, {"input_mask": "input_ids"})


def words_batches(rows=50, batch_size=8, shuffle=True, seed=0):
    return Batches(words_table(rows, seed), batch_size, shuffle=shuffle, seed=3)


class Accuracy:
    main_metric = "accuracy"
    higher_is_better = True

    def __init__(self):
        self.right = self.total = 0

    def update(self, batch, outputs):
        self.right += int((outputs["logits"].argmax(-1) == batch["label_id"]).sum())
        self.total += len(batch["label_id"])

    def result(self):
        return {"accuracy": self.right / self.total, "rows": float(self.total)}


class WordModel(keras.Model):
    """Embedding, mean over real words, two layers with dropout, head."""

    def __init__(self, dropout):
        super().__init__(name="words")
        self.embedding = keras.layers.Embedding(WORDS, WIDTH, name="embeddings")
        self.layer_0 = keras.layers.Dense(WIDTH, activation="tanh", name="layer_0")
        self.layer_1 = keras.layers.Dense(WIDTH, activation="tanh", name="layer_1")
        self.dropout = Dropout(dropout)
        self.head = keras.layers.Dense(CLASSES, name="head")

    def call(self, batch, training=False):
        return self.classify(self.embedding(batch["input_ids"]), batch["input_mask"], training)

    def classify(self, embedded, mask, training):
        mask = tf.cast(mask, embedded.dtype)[..., None]
        x = tf.reduce_sum(embedded * mask, 1) / tf.reduce_sum(mask, 1)
        x = self.dropout(self.layer_0(x), training=training)
        x = self.dropout(self.layer_1(x), training=training)
        return {"logits": self.head(x)}


class WordTask(Task):
    """Classifies word lists."""

    def __init__(self, dropout=0.1):
        self.dropout = dropout
        self.restored = None

    def build_model(self):
        model = WordModel(self.dropout)
        model({"input_ids": tf.ones([1, 2], tf.int32), "input_mask": tf.ones([1, 2], tf.int32)})
        return model

    def losses(self, batch, outputs, step):
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label_id"], outputs["logits"])
        weight = batch["example_weight"]
        return {"cross_entropy": Loss(tf.reduce_sum(each * weight), tf.reduce_sum(weight))}

    def evaluator(self):
        return Accuracy()

    def layer_groups(self):
        m = self.model
        return [layer.trainable_variables for layer in (m.embedding, m.layer_0, m.layer_1, m.head)]

    def state(self):
        return {"note": "kept"}

    def restore_state(self, state):
        self.restored = state


class AdversarialWordTask(WordTask):
    """Adds the loss at embeddings moved one step along the sign of their gradient (FGSM)."""

    SIZE = 0.05

    def train_step(self, step, batch):
        with tf.GradientTape() as tape:
            embedded = self.model.embedding(batch["input_ids"])
            with tf.GradientTape() as inner:
                inner.watch(embedded)
                clean = self._loss(batch, embedded, step)
            direction = tf.stop_gradient(tf.sign(inner.gradient(clean.sum, embedded)))
            adversarial = self._loss(batch, embedded + tf.cast(self.SIZE, embedded.dtype) * direction, step)
            losses = {"clean": clean, "adversarial": Loss(adversarial.sum, clean.weight)}
            objective = step.objective(losses)
        step.update(tape.gradient(objective, step.variables()))
        return losses

    def _loss(self, batch, embedded, step):
        logits = self.model.classify(embedded, batch["input_mask"], True)["logits"]
        return self.losses(batch, {"logits": tf.cast(logits, tf.float32)}, step)["cross_entropy"]


class GeneratorCriticTask(WordTask):
    """Head and encoder as two players with an optimizer each; the encoder moves in every second step only."""

    def optimizers(self):
        m = self.model
        encoder = m.embedding.trainable_variables + m.layer_0.trainable_variables + m.layer_1.trainable_variables
        chosen = {"learning_rate": 1.0, "optimizer_type": "adagrad"}
        return {"critic": OptimizerPart(m.head.trainable_variables), "generator": OptimizerPart(encoder, chosen)}

    def train_step(self, step, batch):
        with tf.GradientTape(persistent=True) as tape:
            loss, weight = self.losses(batch, self.forward(batch, training=True), step)["cross_entropy"]
            if tf.reduce_max(batch["label_id"]) >= 0:  # A Python `if` on a tensor must work here.
                loss = tf.identity(loss)
            losses = {"critic": Loss(loss, weight), "generator": Loss(-0.5 * loss, weight)}
            critic, generator = (step.objective({name: losses[name]}, name) for name in losses)
        step.update(tape.gradient(critic, step.variables("critic")), "critic")
        moves = step.number % 2 == 0
        step.update(tape.gradient(generator, step.variables("generator")), "generator", when=moves)
        return losses


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.steps, self.evaluations, self.saves, self.messages, self.status = {}, {}, {}, [], None
        self.stages = []

    def start(self, total_steps, start_step=0):
        self.total_steps, self.start_step = total_steps, start_step

    def stage(self, names, number, step):
        self.stages.append((names[number], step))

    def step(self, step, metrics):
        self.steps[step] = dict(metrics)

    def evaluation(self, step, metrics):
        self.evaluations[step] = dict(metrics)

    def saved(self, step, path):
        self.saves[step] = path

    def message(self, text):
        self.messages.append(text)

    def end(self, status):
        self.status = status
