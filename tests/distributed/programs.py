"""What workers of the distributed tests run: `programs.py NAME[,NAME...] FOLDER SHARDS STAGES`.

Each program writes `FOLDER/<name>/rank-N.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import modelzoo  # noqa: F401 - before a folder of tests has the same name on the path
from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.collectives import Group
from easytransfer.distributed.horovod_workers import HorovodWorkers
from easytransfer.distributed.layers import (
    ColumnParallelDense,
    RowParallelDense,
    ShardedClassifier,
    ShardedEmbedding,
)
from easytransfer.distributed.reducer import GradientReducer
from easytransfer.distributed.shards import whole_value
from easytransfer.distributed.strategy import is_worker
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Loss
from easytransfer.train.task import Task
from easytransfer.train.trainer import Trainer

# The checkout first: it has the package that a folder of tests is called after.
sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from lane_task import LaneTask, lane_table  # noqa: E402

ROWS, WORDS, CLASSES = 208, 50, 3


def table() -> EncodedTable:
    """Returns rows of 3 to 11 word ids; the label is decided by the words."""
    random = np.random.default_rng(7)
    rows = [random.integers(1, WORDS, random.integers(3, 12)) for _ in range(ROWS)]
    labels = np.array([int(row.sum()) % CLASSES for row in rows], np.int32)
    columns = {"input_ids": Ragged.from_lists(rows), "label_id": labels}
    return EncodedTable(columns, masks={"input_mask": "input_ids"})


class MeanAccuracy:
    """Accuracy over all rows given to it, and their number."""

    main_metric, higher_is_better = "accuracy", True

    def __init__(self) -> None:
        self.right, self.rows = 0, 0

    def update(self, batch, outputs):
        self.right += int((outputs["logits"].argmax(1) == batch["label_id"]).sum())
        self.rows += len(batch["label_id"])

    def state(self):
        return self.right, self.rows

    def merge(self, state):
        self.right, self.rows = self.right + state[0], self.rows + state[1]

    def result(self):
        return {"accuracy": self.right / max(self.rows, 1), "rows": float(self.rows)}


class Words(Task):
    """Mean of word vectors, two dense layers."""

    def build_model(self):
        ids, mask = keras.Input([None], dtype=tf.int32), keras.Input([None], dtype=tf.int32)
        vectors = keras.layers.Embedding(WORDS, 16, name="embedding")(ids)
        shown = tf.cast(mask, tf.float32)[:, :, None]
        mean = tf.reduce_sum(vectors * shown, 1) / tf.reduce_sum(shown, 1)
        hidden = keras.layers.Dense(32, activation="tanh", name="hidden")(mean)
        logits = keras.layers.Dense(CLASSES, name="head")(hidden)
        return keras.Model([ids, mask], {"logits": logits})

    def forward(self, batch, training=False):
        return self.model([batch["input_ids"], batch["input_mask"]], training=training)

    def losses(self, batch, outputs, step):
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label_id"], outputs["logits"])
        return {"loss": Loss(tf.reduce_sum(each * batch["example_weight"]), tf.reduce_sum(batch["example_weight"]))}

    def evaluator(self):
        return MeanAccuracy()


class Recorder:
    """Keeps the losses and evaluations of a run."""

    def __init__(self) -> None:
        self.losses, self.evaluations = [], []

    def start(self, total_steps, start_step=0): ...
    def stage(self, names, number, step): ...
    def saved(self, step, path): ...
    def message(self, text): ...
    def end(self, status): ...

    def step(self, step, metrics):
        self.losses.append(metrics["loss"])

    def evaluation(self, step, metrics):
        self.evaluations.append([metrics["loss"], metrics["accuracy"], metrics["rows"]])


def run_training(
    workers: Workers,
    *,
    steps: int = 50,
    batch: int = 16,
    accumulate: int = 1,
    folder: Path | None = None,
    **settings: object,
) -> dict[str, np.ndarray]:
    """Trains `steps` steps with a global batch of `batch` on all workers; returns weights, losses, evaluations."""
    per_epoch = -(-ROWS // batch)
    config = TrainConfig(
        optimizer_type="adamw",
        learning_rate=1e-2,
        weight_decay_ratio=0.01,
        eval_every_steps=25,
        num_epochs=steps / per_epoch,
        num_accumulated_batches=accumulate,
        log_step_count_steps=1,
        **settings,
    )
    rows, shard, recorder = table(), (workers.rank, workers.size), Recorder()
    training = Batches(rows, batch // workers.size // accumulate, shuffle=True, seed=3, shard=shard, pad_multiple=1)
    held_out = Batches(rows.take(range(100)), 7, shuffle=False, shard=shard, pad_multiple=1)
    trainer = Trainer(Words(), config, RuntimeConfig(seed=11), folder, recorder, workers=workers)
    trainer.fit(training, held_out)
    weights = {f"weight_{i}": variable.numpy() for i, variable in enumerate(trainer.task.model.weights)}
    return {"losses": np.array(recorder.losses), "evaluations": np.array(recorder.evaluations), **weights}


class LanesAsTheyAre(LaneTask):
    """Without augmentation, which follows the micro-batch."""

    def training_batch(self, batch, draws):
        return batch


def run_weighted(workers: Workers, accumulate: int = 1) -> dict[str, np.ndarray]:
    """Trains losses with three weights of their own; the last step of an epoch has 8 of 16 rows."""
    if workers.size > 1:
        workers.reduce = GradientReducer(workers.everyone)
    task = LaneTask() if accumulate == 1 else LanesAsTheyAre()
    size, shard = 16 // workers.size // accumulate, (workers.rank, workers.size)
    batches = Batches(lane_table(40), size, shuffle=True, seed=3, shard=shard)
    config = TrainConfig(num_epochs=3, learning_rate=0.05, optimizer_type="adagrad", num_accumulated_batches=accumulate)
    config = config.model_copy(update={"log_step_count_steps": 1})
    recorder = Recorder()
    trainer = Trainer(task, config, RuntimeConfig(seed=11), None, recorder, workers=workers)
    trainer.fit(batches)
    weights = {f"weight_{i}": variable.numpy() for i, variable in enumerate(trainer.task.model.weights)}
    return {"losses": np.array(recorder.losses), **weights}


# Settings of the reducer by scenario; `broken` is another reducer.
REDUCERS = {
    "plain": {},
    "small_buckets": {"bucket_mb": 1e-4},
    "gathered": {"sparse": "gather"},
    "dense": {"sparse": "dense"},
    "float16": {"wire_dtype": "float16"},
    "int8": {"wire_dtype": "int8"},
}


class SumsNothing(GradientReducer):
    """A reducer that forgets to exchange."""

    def __call__(self, tensors, variables):
        return tensors


def data_parallel(workers: Workers, folder: Path) -> None:
    """Trains with every reducer, with accumulation, and without a working reduction."""
    results = {"accumulated": run_training(workers, accumulate=2)}
    if workers.size == 1:
        results["plain"] = run_training(workers)
    else:
        for name, settings in REDUCERS.items():
            workers.reduce = GradientReducer(workers.everyone, **settings)
            results[name] = run_training(workers)
        workers.reduce = SumsNothing(workers.everyone)
        results["broken"] = run_training(workers)
    results["weighted"] = run_weighted(workers)
    results["weighted_accumulated"] = run_weighted(workers, accumulate=2)
    arrays = {f"{name}/{key}": value for name, found in results.items() for key, value in found.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **arrays)


INT8_STEPS, INT8_SIZES = 6, (700, 1500)


def int8_gradients(rank: int) -> np.ndarray:
    """Returns gradients [steps, numbers] of one rank, of very different magnitudes; one step has a NaN."""
    random = np.random.default_rng(rank)
    found = random.standard_normal([INT8_STEPS, sum(INT8_SIZES)]).astype(np.float32)
    found[:, : INT8_SIZES[0]] *= 1e-3
    if rank == 1:
        found[3, 5] = np.nan
    return found


def int8_wire(workers: Workers, folder: Path) -> None:
    """Sums given gradients in one bucket, and trains with stops in between."""
    reduce = GradientReducer(workers.everyone, wire_dtype="int8")
    variables = [tf.Variable(tf.zeros([n])) for n in INT8_SIZES]
    residuals = reduce.keep_residuals(variables)
    step = tf.function(lambda a, b: reduce([a, b, tf.zeros([1]) + a[0]], variables)[:2], autograph=False)
    sums, kept = [], []
    for gradient in int8_gradients(workers.rank):
        sums.append(np.concatenate([total.numpy() for total in step(*np.split(gradient, INT8_SIZES[:1]))]))
        kept.append(np.concatenate([residual.numpy() for residual in residuals]))
    with reduce.joined_residuals():
        joined = np.concatenate([residual.numpy() for residual in residuals])
    runs = {}
    for name, stops in {"unbroken": (50,), "stopped": (25, 50)}.items():
        for steps in stops:
            # A worker that starts again makes everything anew.
            workers.reduce = GradientReducer(workers.everyone, wire_dtype="int8")
            settings = {"save_checkpoint_steps": 25, "lr_decay": "constant", "warmup_ratio": 0.0}
            runs[name] = run_training(workers, steps=steps, folder=folder / name, **settings)
    trained = {f"{name}/{key}": value for name, found in runs.items() for key, value in found.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", sums=sums, residuals=kept, joined=joined, **trained)


class StagedWords(Words):
    """Trains what is below the head, then the head, which the first worker has changed between the two."""

    def stages(self):
        first = {"optimizer_type": "sgd", "learning_rate": 0.2}
        return [
            TrainingStage("below", steps=6, trains=["embedding/", "hidden/"], settings=first),
            TrainingStage("head", steps=6, trains=["head/"], begin=self.begin),
        ]

    def begin(self):
        kernel = self.model.get_layer("head").kernel
        kernel.assign(0.5 * kernel + self.workers.rank)


class Lost(Exception):
    """Ends a worker in the middle of a step, as a crash would."""


class Losing(Recorder):
    """Ends its worker after a step."""

    def __init__(self, last_step: int) -> None:
        super().__init__()
        self.last_step = last_step

    def step(self, step, metrics):
        super().step(step, metrics)
        if step == self.last_step:
            raise Lost


def run_stages(workers: Workers, folder: Path, ends: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Trains two stages of six steps, started again after each of `ends`; a checkpoint is written every two steps."""
    config = TrainConfig(
        optimizer_type="adamw", learning_rate=1e-2, weight_decay_ratio=0.01, ema_decay=0.5, num_accumulated_batches=2,
        log_step_count_steps=1, save_checkpoint_steps=2,
    )  # fmt: skip
    for recorder in [*map(Losing, ends), Recorder()]:
        shard = (workers.rank, workers.size)
        training = Batches(table(), 8 // workers.size, shuffle=True, seed=3, shard=shard, pad_multiple=1)
        trainer = Trainer(StagedWords(), config, RuntimeConfig(seed=11), folder, recorder, workers=workers)
        try:
            trainer.fit(training)
        except Lost:
            continue
    return {f"weight_{i}": variable.numpy() for i, variable in enumerate(trainer.task.model.weights)}


def staged(workers: Workers, folder: Path) -> None:
    """Trains two stages unbroken, and with ends in the first, right behind the border, and in the second."""
    runs = {
        "unbroken": run_stages(workers, folder / "unbroken"),
        "broken": run_stages(workers, folder / "b", (4, 7, 9)),
    }
    arrays = {f"{name}/{key}": value for name, found in runs.items() for key, value in found.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **arrays)


class Split(Words):
    """The same network with its layers split: table and head over the replicas, the hidden block over the shards."""

    splits = ("tensor",)

    def __init__(self, data: Group, tensor: Group) -> None:
        self.data, self.tensor = data, tensor

    def build_model(self):
        self.model = SplitModel(self.data, self.tensor)
        ids = tf.ones([1, 3], tf.int32)
        self.model({"input_ids": ids, "input_mask": ids})
        self.model.head.build([None, 32])
        return self.model

    def forward(self, batch, training=False):
        hidden = self.model(batch, training=training)
        return {"hidden": hidden, "logits": self.model.head(hidden)}

    def losses(self, batch, outputs, step):
        each = self.model.head.losses_of(outputs["hidden"], batch["label_id"])
        return {"loss": Loss(tf.reduce_sum(each * batch["example_weight"]), tf.reduce_sum(batch["example_weight"]))}


class SplitModel(keras.Model):
    """Mean of word vectors, a residual block of two dense layers, and a head that is called apart."""

    def __init__(self, data: Group, tensor: Group) -> None:
        super().__init__()
        seeded = lambda seed: keras.initializers.GlorotUniform(seed=seed)  # noqa: E731
        self.embedding = ShardedEmbedding(48, 32, data, seeded(1), name="embedding")
        self.wide = ColumnParallelDense(64, tensor, "tanh", seeded(2), name="wide")
        self.narrow = RowParallelDense(32, tensor, seeded(3), name="narrow")
        self.head = ShardedClassifier(8, data, seeded(4), name="head")

    def call(self, batch, training=False):
        shown = tf.cast(batch["input_mask"], tf.float32)[:, :, None]
        mean = tf.reduce_sum(self.embedding(batch["input_ids"] % 48) * shown, 1) / tf.reduce_sum(shown, 1)
        return mean + self.narrow(self.wide(mean))


def run_split(workers: Workers, data: Group, tensor: Group, folder: Path | None, steps: int) -> dict[str, np.ndarray]:
    """Trains the split network with a global batch of 16; returns whole weights, losses and the parts' sizes."""
    batch, per_epoch = 16, -(-ROWS // 16)
    config = TrainConfig(
        optimizer_type="adamw",
        learning_rate=1e-2,
        weight_decay_ratio=0.01,
        clip_norm_value=0.1,
        num_epochs=steps / per_epoch,
        log_step_count_steps=1,
        save_checkpoint_steps=1000,
    )
    recorder, rows = Recorder(), table()
    shard = (data.rank, data.size)
    training = Batches(rows, batch // data.size, shuffle=True, seed=3, shard=shard, pad_multiple=1)
    trainer = Trainer(Split(data, tensor), config, RuntimeConfig(seed=11), folder, recorder, workers=workers)
    trainer.fit(training)
    variables = trainer.task.model.weights
    weights = {f"weight_{i}": whole_value(variable) for i, variable in enumerate(variables)}
    sizes = np.array([int(np.prod(variable.shape)) for variable in variables])
    return {"losses": np.array(recorder.losses), "sizes": sizes, **weights}


def model_parallel(workers: Workers, folder: Path) -> None:
    """Trains the split network in the layout of the job."""
    alone = Group("alone", (0,), 0)
    data, tensor = (alone, alone) if workers.size == 1 else (workers.data, workers.tensor)
    np.savez(folder / f"rank-{workers.rank}.npz", **run_split(workers, data, tensor, folder / "run", steps=50))


def bert_classifier(workers: Workers, folder: Path) -> None:
    """Trains a BERT in the layout of the job."""
    import bert

    bert.run(workers, folder)


def pruning(workers: Workers, folder: Path) -> None:
    """Prunes a network and trains it."""
    import pruning

    pruning.run(workers, folder)


def distillation(workers: Workers, folder: Path) -> None:
    """Trains a student of a teacher that every worker has a copy of."""
    import distillation

    distillation.run(workers, folder)


def adversarial_training(workers: Workers, folder: Path) -> None:
    """Trains with attacks, the weight of the robust term adjusted."""
    import adversarial

    adversarial.run(workers, folder)


def lane_detection(workers: Workers, folder: Path) -> None:
    """Trains lanes with a last batch that is smaller."""
    import lanes

    lanes.run(workers, folder)


def stereo_matching(workers: Workers, folder: Path) -> None:
    """Trains a warm start and an iteration with a teacher."""
    import stereo

    stereo.run(workers, folder)


def co_training_networks(workers: Workers, folder: Path) -> None:
    """Trains two networks, one per worker of the layout."""
    import co_training_runs

    co_training_runs.run(workers, folder, "networks")


def co_training_rows(workers: Workers, folder: Path) -> None:
    """Trains two networks on every worker."""
    import co_training_runs

    co_training_runs.run(workers, folder, "rows")


def text_generation(workers: Workers, folder: Path) -> None:
    """Trains an encoder and a decoder on texts of several lengths."""
    import written_texts

    written_texts.run(workers, folder)


def multimodal_match(workers: Workers, folder: Path) -> None:
    """Trains a network on texts and images, and ranks lists."""
    import matched_images

    matched_images.run(workers, folder)


def text_pretrain(workers: Workers, folder: Path) -> None:
    """Trains an encoder on hidden words and pairs."""
    import hidden_words

    hidden_words.run(workers, folder)


def text_students(workers: Workers, folder: Path) -> None:
    """Trains students of texts, labellers and classifiers of several domains."""
    import text_students as students

    students.run(workers, folder)


def vl_pretraining(workers: Workers, folder: Path) -> None:
    """Trains networks on hidden words, regions and labels."""
    import hidden_pairs

    hidden_pairs.run(workers, folder)


def win_prediction(workers: Workers, folder: Path) -> None:
    """Trains three stages on games of different lengths."""
    import win_games

    win_games.run(workers, folder)


def person_reid_baseline(workers: Workers, folder: Path) -> None:
    """Trains features of persons on batches of whole identities."""
    import person_reid_runs

    person_reid_runs.run(workers, folder, "baseline")


def person_reid_as_gan(workers: Workers, folder: Path) -> None:
    """Trains a generator and a critic."""
    import person_reid_runs

    person_reid_runs.run(workers, folder, "as_gan")


def main() -> None:
    """Runs programs on this worker, each as in a process of its own: names of layers and the reducer are new."""
    names, folder, shards, stages = sys.argv[1:]
    layout = {"tensor_parallel": int(shards), "pipeline_stages": int(stages), "micro_batches": 3}
    workers = HorovodWorkers(**layout) if is_worker() else ONE_WORKER
    reduce = workers.reduce
    for name in names.split(","):
        keras.backend.clear_session()
        workers.reduce = reduce
        (Path(folder) / name).mkdir(exist_ok=True)
        globals()[name](workers, Path(folder) / name)
    workers.barrier()  # one that ended earlier would end the exchanges of the others


if __name__ == "__main__":
    main()
