"""Speed of lane detection: RESA beside slice-by-slice propagation, and a training step beside torch eager.

    python benchmarks/lane_speed.py module [--repeats 5]
    python benchmarks/lane_speed.py step [--network resnet18_imagenet] [--batch 2] [--repeats 5]

`module`: RESA (K = 4, 16 convolutions) beside SCNN's propagation (one slice after the other, 268 convolutions) on a map
of 36 x 100 x 128, forward and backward. `step`: one training step of the network (RESA, bilateral decoder, existence,
SGD) on 368 x 640 images, ours as the engine makes it with augmentation, beside the same network in PyTorch without
compilation, on the same cores. Sides take turns; the times are medians of wall clock and of processor time, which other
jobs of the machine change less. Peak memory is that of a process of its own for each side (`--side`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from sides import print_steps, print_table, say_peak, timed

HEIGHT, WIDTH, CHANNELS = 36, 100, 128
SIZE, CLASSES = (368, 640), 7


# RESA beside propagation slice by slice ------------------------------------------------------------------------


def propagation(x: Any, kernels: list[Any]) -> Any:
    """Returns SCNN's message passing (Pan et al., AAAI 2018): each slice adds what the one before it says."""
    import tensorflow as tf

    for axis, kernel, back in ((1, 0, False), (1, 1, True), (2, 2, False), (2, 3, True)):
        slices = tf.split(x, x.shape[axis], axis)
        slices = slices[::-1] if back else slices
        found = [slices[0]]
        for one in slices[1:]:
            found.append(one + tf.nn.relu(tf.nn.conv2d(found[-1], kernels[kernel], 1, "SAME")))
        x = tf.concat(found[::-1] if back else found, axis)
    return x


def measure_module(options: argparse.Namespace) -> None:
    """Prints the seconds of both, forward and backward."""
    import tensorflow as tf

    from appzoo.lane_detection.resa import Resa

    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(1, HEIGHT, WIDTH, CHANNELS)).astype(np.float32))
    layer = Resa(4)
    layer(x)
    shapes = [(1, 9), (1, 9), (9, 1), (9, 1)]
    kernels = [tf.Variable(random.normal(0, 0.01, (*s, CHANNELS, CHANNELS)).astype(np.float32)) for s in shapes]

    def gradients(call: Callable[[Any], Any], variables: list[Any]) -> Callable[[], Any]:
        @tf.function(autograph=False)
        def step() -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(call(x))
            return tape.gradient(loss, variables)

        return lambda: [g.numpy() for g in step()]

    forward = {name: tf.function(call, autograph=False) for name, call in
               {"RESA": layer, "slice by slice": lambda x: propagation(x, kernels)}.items()}  # fmt: skip
    rows = []
    for what, sides in {
        "forward": {name: lambda call=call: call(x).numpy() for name, call in forward.items()},
        "forward and backward": {
            "RESA": gradients(layer, list(layer.kernels.values())),
            "slice by slice": gradients(lambda x: propagation(x, kernels), kernels),
        },
    }.items():
        found = timed(sides, options.repeats)
        for kind, place in (("wall clock", 0), ("processor", 1)):
            ours, theirs = (found[name][place] for name in ("RESA", "slice by slice"))
            rows.append([what, kind, f"{1000 * ours:.1f}", f"{1000 * theirs:.1f}", f"{theirs / ours:.2f}"])
    print_table(["what", "time", "RESA, ms", "slice by slice, ms", "ratio"], rows)


# A training step beside PyTorch --------------------------------------------------------------------------------


def ours(options: argparse.Namespace) -> Callable[[], Any]:
    """Returns a call that makes a training step."""
    from appzoo.lane_detection.app import LaneDetection
    from appzoo.lane_detection.config import ResaConfig
    from easytransfer.data.batches import Batches
    from easytransfer.data.encoded import EncodedTable
    from easytransfer.train.engine import Engine
    from easytransfer.train.train_schedule import batch_signature

    config = ResaConfig(model={"network": options.network}, train={"batch_size": options.batch})
    app = LaneDetection(config)
    app.load_assets(None)
    app.build_model()
    table = EncodedTable(arrays(options.batch))
    batches = Batches(table, options.batch, shuffle=False)
    engine = Engine(app, config.train, config.runtime, 1000, epoch_batches=1000, signature=batch_signature(batches))
    batch = table.batch(range(options.batch))
    return lambda: engine.run_step([batch]).numpy()


def arrays(rows: int) -> dict[str, np.ndarray]:
    """Returns random images, masks and existence."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (rows, *SIZE, 3)).astype(np.uint8),
        "mask": (random.integers(0, 60, (rows, *SIZE)) * (random.random((rows, *SIZE)) < 0.1) % CLASSES).astype(
            np.uint8
        ),
        "exist": np.ones([rows, CLASSES - 1], np.float32),
    }


def theirs(options: argparse.Namespace) -> Callable[[], Any]:
    """Returns a call that makes a training step of the same network in PyTorch, not augmented."""
    import torch
    from peer_lanes import LaneNet

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    found = arrays(options.batch)
    network = LaneNet(int(options.network.split("_")[0].removeprefix("resnet")), SIZE, CLASSES).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.02, 0.9, weight_decay=1e-4)
    images = torch.tensor(np.moveaxis(found["image"], -1, 1).astype(np.float32)) - 110
    mask, exist = torch.tensor(found["mask"].astype(np.int64)), torch.tensor(found["exist"])
    weights = torch.tensor([0.4] + [1.0] * (CLASSES - 1))
    maps, slots = torch.nn.CrossEntropyLoss(weights), torch.nn.BCEWithLogitsLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits, there = network(images)
        loss = maps(logits, mask) + 0.1 * slots(there, exist)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def measure_step(options: argparse.Namespace) -> None:
    """Prints the seconds of a step of both sides, and the peak memory of each in a process of its own."""
    if options.side:
        say_peak({"ours": ours, "torch": theirs}[options.side](options))
        return
    print(f"{options.network}, {SIZE[0]} x {SIZE[1]}, batch {options.batch}, one training step")
    command = [__file__, "step", f"--network={options.network}", f"--batch={options.batch}"]
    print_steps(timed({"ours": ours(options), "torch": theirs(options)}, options.repeats), command)


def main() -> None:
    """Measures one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["module", "step"])
    parser.add_argument("--network", default="resnet18_imagenet")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=["ours", "torch"], default=None, help="make two steps of one side alone")
    options = parser.parse_args()
    {"module": measure_module, "step": measure_step}[options.what](options)


if __name__ == "__main__":
    main()
