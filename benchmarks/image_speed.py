"""Training images/s of image_classify beside a plain tf_keras `fit` loop and torch, and the input's share of a step.

    python benchmarks/image_speed.py [--network resnet20_cifar] [--steps 120] [--precision none bfloat16]

All sides have the same network (a CIFAR ResNet of basic blocks; the numbers of parameters are compared), batch,
precision, AdamW and augmentation (zero padding of 4 pixels, random crop, random flip) on the same random 32 x 32 colour
images, and the same cores. Each runs in a process of its own; the first `--skip` steps are left out. The peers
augment whole batches, as we do: `fit` in a `tf.data` pipeline that runs ahead, torch between the steps. For our
side the share of a step spent waiting for batches and on augmentation (which runs inside the step) is printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import history, print_table, run_process, versions

SIZE, PADDING, CLASSES = 32, 4, 10
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2
LOG_EVERY = 5


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [rows, 32, 32, 3] and labels int64 [rows]."""
    with np.load(path) as arrays:
        return arrays["x_train"], arrays["y_train"]


def run_ours(options: argparse.Namespace) -> dict[str, object]:
    """Trains by the command line's own path and reads speed and input share from the log of the run."""
    from appzoo import jobs
    from appzoo.cli.reader import JobReader

    values = {
        "model_name": "image_classify",
        "data.train_table": f"{options.data}#train",
        "data.eval_table": f"{options.data}#test",
        "model.network": options.network,
        "train.batch_size": options.batch,
        "train.num_epochs": options.steps * options.batch / len(load(options.data)[0]),
        "train.learning_rate": LEARNING_RATE,
        "train.weight_decay_ratio": WEIGHT_DECAY,
        "train.log_step_count_steps": LOG_EVERY,
        "runtime.mixed_precision": options.precision,
    }
    with tempfile.TemporaryDirectory() as folder:
        values["checkpoint_dir"] = f"{folder}/run"
        job = JobReader("train", [f"--set={key}={value}" for key, value in values.items()], []).read()
        jobs.train(job.config)
        records = history(Path(folder, "run"), "step")
    used = [record for record in records if record["step"] > options.skip and record["step"] % LOG_EVERY == 0]
    steps = sum(record["step_s"] for record in used)
    return {
        "rows_per_s": sum(record["rows_per_s"] * record["step_s"] for record in used) / steps,
        "waiting": sum(record["input_s"] for record in used) / steps,
        "augmenting": augmentation_seconds(options) * len(used) / steps,
        "parameters": count_parameters(options.network),
    }


def augmentation_seconds(options: argparse.Namespace, repeats: int = 30) -> float:
    """Returns the seconds our augmentation of one batch takes by itself; in training it is a part of the step."""
    import tensorflow as tf

    from easytransfer.image.augment import Augmentation
    from easytransfer.image.settings import AugmentSettings
    from easytransfer.layers.draws import RowDraws

    change = Augmentation(AugmentSettings(crop_padding=PADDING), fill=[0.5] * 3)
    rows = options.batch
    run = tf.function(lambda images, seed: tf.reduce_sum(change(images, RowDraws(seed, tf.constant(rows)))))
    images = tf.constant(load(options.data)[0][:rows])
    run(images, tf.constant([0, 0]))
    begin = time.monotonic()
    for repeat in range(repeats):
        run(images, tf.constant([1, repeat])).numpy()
    return (time.monotonic() - begin) / repeats


def build_network(name: str):
    """Returns the network of the ModelZoo with fresh weights."""
    from modelzoo.cnn.backbone import CnnBackbone
    from modelzoo.cnn.names import named

    model = CnnBackbone(named(name), CLASSES, 0)
    model(np.zeros([1, SIZE, SIZE, 3], np.float32))
    return model


def count_parameters(name: str) -> int:
    """Returns the number of trained parameters of a network."""
    return int(sum(np.prod(variable.shape) for variable in build_network(name).trainable_variables))


def run_fit(options: argparse.Namespace) -> dict[str, object]:
    """Trains with `compile` and `fit` on a `tf.data` pipeline."""
    import tensorflow as tf

    from easytransfer import keras

    if options.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    images, labels = load(options.data)
    mean, std = (np.float32(f(images / 255, axis=(0, 1, 2))) for f in (np.mean, np.std))

    def augment(batch, label):
        batch = tf.image.random_flip_left_right(tf.pad(batch, [[0, 0], [PADDING] * 2, [PADDING] * 2, [0, 0]]))
        corner = tf.random.uniform([tf.shape(batch)[0], 2], 0, 2 * PADDING + 1, tf.int32)
        rows, columns = corner[:, :1] + tf.range(SIZE), corner[:, 1:] + tf.range(SIZE)
        batch = tf.gather(tf.gather(batch, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        return (tf.cast(batch, tf.float32) / 255 - mean) / std, label

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat()
    data = data.batch(options.batch).map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    network = build_network(options.network)
    inputs = keras.Input([SIZE, SIZE, 3])
    model = keras.Model(inputs, keras.layers.Softmax(dtype="float32")(network(inputs)["logits"]))
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=options.xla)
    model.fit(data, steps_per_epoch=options.skip, verbose=0)
    begin = time.monotonic()
    model.fit(data, steps_per_epoch=options.steps - options.skip, verbose=0)
    seconds = time.monotonic() - begin
    trained = int(sum(np.prod(variable.shape) for variable in network.trainable_variables))
    return {"rows_per_s": (options.steps - options.skip) * options.batch / seconds, "parameters": trained}


def torch_network(name: str):
    """Returns the network of the same name in torch: a CIFAR ResNet of 6 n + 2 layers with strided 1 x 1 shortcuts."""
    from torch import nn

    found = re.fullmatch(r"resnet(\d+)_cifar", name)
    if not found or (int(found[1]) - 2) % 6:
        raise SystemExit(f"the torch side knows resnet<6 n + 2>_cifar, not {name}")

    def conv(source: int, width: int, stride: int = 1, size: int = 3) -> list[nn.Module]:
        return [nn.Conv2d(source, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)]

    class Block(nn.Module):
        def __init__(self, source: int, width: int, stride: int) -> None:
            super().__init__()
            self.inner = nn.Sequential(*conv(source, width, stride), nn.ReLU(), *conv(width, width))
            same = source == width and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*conv(source, width, stride, 1))

        def forward(self, x):
            return nn.functional.relu(self.inner(x) + self.shortcut(x))

    layers, source = [*conv(3, 16), nn.ReLU()], 16
    for width in (16, 32, 64):
        for block in range((int(found[1]) - 2) // 6):
            layers.append(Block(source, width, 2 if width > 16 and not block else 1))
            source = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def run_torch(options: argparse.Namespace) -> dict[str, object]:
    """Trains a plain loop in the memory format that is fastest for convolutions."""
    import torch

    torch.set_num_threads(options.cores)
    images, labels = (torch.from_numpy(array) for array in load(options.data))
    scaled = images.float() / 255
    mean, std = scaled.mean((0, 1, 2)).view(1, 3, 1, 1), scaled.std((0, 1, 2)).view(1, 3, 1, 1)
    images = torch.nn.functional.pad(images.permute(0, 3, 1, 2), [PADDING] * 4)
    model = torch_network(options.network).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    low = options.precision == "bfloat16"

    def augmented(rows):
        count = len(rows)
        down, right = (torch.randint(0, 2 * PADDING + 1, [count, 1]) + torch.arange(SIZE) for _ in range(2))
        right = torch.where(torch.rand(count, 1) < 0.5, right.flip(1), right)
        picked = images[rows[:, None, None], :, down[:, :, None], right[:, None, :]]  # [batch, height, width, channels]
        return (picked.permute(0, 3, 1, 2).float() / 255 - mean) / std

    for step in range(options.steps):
        if step == options.skip:
            begin = time.monotonic()
        rows = torch.randint(0, len(images), [options.batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(augmented(rows).contiguous(memory_format=torch.channels_last))
            loss = torch.nn.functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.monotonic() - begin
    trained = sum(parameter.numel() for parameter in model.parameters())
    return {"rows_per_s": (options.steps - options.skip) * options.batch / seconds, "parameters": trained}


SIDES = {"EasyTransfer": run_ours, "tf_keras fit": run_fit, "torch": run_torch}


def compare(options: argparse.Namespace, precision: str) -> list[list[str]]:
    """Runs all sides in turn, in processes of their own, and returns the lines of the table."""
    flags = [f"--{name}={getattr(options, name)}" for name in ("network", "batch", "steps", "skip", "cores", "data")]
    flags += [f"--precision={precision}", *(["--xla"] if options.xla else [])]
    script = str(Path(__file__).resolve())
    runs: dict[str, list] = {side: [] for side in SIDES}
    # In turns, since the speed of a machine drifts.
    for _ in range(options.rounds):
        for side, mine in runs.items():
            mine.append(run_process([sys.executable, script, f"--side={side}", *flags], options.cores))
    found = {side: sorted(mine, key=lambda run: run["rows_per_s"])[len(mine) // 2] for side, mine in runs.items()}
    if len({side["parameters"] for side in found.values()}) > 1:
        raise SystemExit(f"the networks differ: {found}")
    ours = found["EasyTransfer"]
    return [
        [
            {"none": "float32"}.get(precision, precision),
            name,
            f"{side['rows_per_s']:.1f}",
            *(f"{side[part]:.1%}" if part in side else "not measured" for part in ("waiting", "augmenting")),
            f"{side['peak_mb']}",
            f"{ours['rows_per_s'] / side['rows_per_s']:.2f}",
        ]
        for name, side in found.items()
    ]


def main() -> None:
    """Measures every side for each precision and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20_cifar")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--skip", type=int, default=20, help="first steps left out of the speed")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many runs of every side counts")
    parser.add_argument("--rows", type=int, default=10000, help="random images")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--precision", nargs="+", choices=["none", "bfloat16"], default=["none"])
    parser.add_argument("--xla", action="store_true", help="compile the step of `fit`")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        options.precision = options.precision[0]
        print(json.dumps(SIDES[options.side](options)))
        return
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        options.data = f"{folder}/images.npz"
        images = random.integers(0, 256, (options.rows, SIZE, SIZE, 3)).astype(np.uint8)
        labels = random.integers(0, CLASSES, options.rows)
        np.savez(options.data, x_train=images, y_train=labels, x_test=images[:256], y_test=labels[:256])
        table = [line for precision in options.precision for line in compare(options, precision)]
    print(f"{options.network}, batch {options.batch}, {options.cores} cores, {versions()}\n")
    print_table(["precision", "side", "images/s", "waiting for input", "augmenting", "peak MB", "ours / this"], table)


if __name__ == "__main__":
    main()
