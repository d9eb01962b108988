"""Stereo matching without ground truth on synthetic pairs and real ones, and the speed of its networks.

    python benchmarks/stereo_results.py claims [--seeds 0 1 2] [--steps 600] [--network tiny|reduced] [--online]
    python benchmarks/stereo_results.py pairs --data DIR [--names aloe art moebius] [--before 600]
        [--after 300]
    python benchmarks/stereo_results.py speed [--size 256 512] [--disparities 192] [--steps 3]

`claims`: pairs of 64 x 128 pixels. For every seed a run with iterations and a frozen teacher, measured with its hidden
pixels filled and not (`train+post`, `train`), and one without, of as many steps (`post`, `none`); with `--online` also
one whose masks and targets are the network's own, as they are in each step. `--network reduced` is another network:
features of a quarter of the size and blocks as in psm_basic, with 8 channels.

`pairs`: NAME1.png, NAME5.png and NAME1_true.png (a grey value is half a pixel) in DIR, at half their size; a network is
trained on synthetic pairs, then on the images of one pair alone, and measured before and after.

`speed`: a training step (forward, backward, no update) of psm_basic at batch 1 beside the same network in torch, one
after the other in turns, and the memory of each in a process of its own; `--size 256 512 --disparities 192` are those
of the paper.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLUMNS = ("noc_epe", "occ_epe", "noc_bad1_error", "occ_bad1_error", "mask_iou")
# Errors of the constant solution are far above.
LEFT_CONSTANT = 0.8


def make_app(sections: dict[str, Any], seed: int, online: bool = False) -> Any:
    """Returns an application with a built model, and random weights of a seed."""
    import tensorflow as tf

    from appzoo.stereo_matching.app import StereoMatching
    from appzoo.stereo_matching.config import StereoMatchingConfig
    from easytransfer import keras

    class Online(StereoMatching):
        def _taught_by(self, pair: Any, own: Any) -> Any:
            return tf.stop_gradient(own)

    keras.utils.set_random_seed(seed)
    config = StereoMatchingConfig(model_name="stereo_matching", runtime={"seed": seed}, **sections)
    app = (Online if online else StereoMatching)(config)
    app.load_assets(None)
    return app


def scenes_table(count: int, seed: int, size: tuple[int, int], disparities: int) -> Any:
    """Returns synthetic pairs with what is true of them."""
    from appzoo.stereo_matching.synthetic import scene
    from easytransfer.data.encoded import EncodedTable

    made = [scene(np.random.default_rng([seed, i]), *size, disparities) for i in range(count)]
    columns = {name: np.stack([getattr(s, name) for s in made]) for name in ("left", "right")}
    columns["truth"] = np.stack([s.disparity for s in made])
    columns["truth_visible"] = np.stack([s.visible for s in made]).astype(np.uint8)
    columns["size"] = np.tile(np.int32(size), (count, 1))
    return EncodedTable(columns)


def measured(app: Any, table: Any, fill: bool, has_visible: bool = True) -> dict[str, float]:
    """Returns the metrics of a table, with hidden pixels filled or as the network has them."""
    import tensorflow as tf

    from appzoo.stereo_matching.metrics import StereoEvaluator

    evaluator = StereoEvaluator(True, has_visible, False)
    predict = tf.function(app.predict_step)
    for row in range(0, len(table), 8):
        batch = table.batch(np.arange(row, min(row + 8, len(table))))
        found = predict({name: tf.constant(batch[name]) for name in app.specs()})
        found = {name: value.numpy() for name, value in found.items()}
        evaluator.update(batch, found if fill else {**found, "disparity": found["disparity_raw"]})
    return evaluator.result()


def train(app: Any, table: Any, batch: int) -> dict[str, Any]:
    """Trains without evaluations; returns what the masks hid."""
    from easytransfer.data.batches import Batches
    from easytransfer.train.trainer import Trainer

    config = app.config
    app.on_train_table(table)
    trainer = Trainer(app, config.train, config.runtime, None)
    trainer.fit(Batches(table, batch, shuffle=True, seed=config.runtime.seed), None)
    return app.state()["masks"]


def take_reduced_network() -> None:
    """Has the name `tiny` stand for psm_basic with 8 channels and without its pyramid, which needs larger images."""
    from appzoo.stereo_matching import networks
    from appzoo.stereo_matching.layers import ConvNorm, Residual

    class Features(networks.TinyFeatures):
        scale = 4

        def __init__(self) -> None:
            super().__init__()
            halves = [ConvNorm(8, stride=2, name=f"half_{i}") for i in (1, 2)]
            self.layers = [*halves, *(Residual(8, name=f"reduced_{i}") for i in (1, 2))]

    class Matching(networks.TinyMatching):
        def __init__(self) -> None:
            super().__init__()
            blocks = (Residual(8, axes=3, name=f"reduced_{i}") for i in (1, 2, 3, 4))
            self.layers = [ConvNorm(8, axes=3, name="on_volume"), *blocks]

    networks._PARTS["tiny"] = (Features, Matching)


# Claims --------------------------------------------------------------------------------------------------------


def claims(options: argparse.Namespace) -> None:
    """Prints a row for each seed and variant, and their means."""
    if options.network == "reduced":
        take_reduced_network()
    size, disparities, batch, rows = (64, 128), 16, 4, 240
    table, held_out = (scenes_table(n, seed, size, disparities) for n, seed in ((rows, 1), (40, 2)))
    each = options.steps // 3 * batch / rows
    found: dict[str, list[dict[str, float]]] = {}
    print("| seed | variant | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 2), flush=True)
    for seed in options.seeds:
        for use in ("train", "none", *(("online",) if options.online else ())):
            epochs = options.steps * batch / rows + (2 * each if use == "none" else 0)
            sections = {
                "model": {"network": "tiny", "max_disparity": disparities, "image_size": size},
                "loss": {"smooth_weight": 0.02, "smooth_relative": False},
                "occlusion": {
                    "mask_use": "none" if use == "none" else "train+post",
                    "iterations": 2,
                    "iteration_epochs": each,
                    "fill_weight": options.fill,
                    "jump": 1.0,
                    "stop_change": 0.0,
                    "most_hidden": 1.0,
                },
                "train": {"num_epochs": epochs, "learning_rate": options.rate, "log_step_count_steps": 10_000},
            }
            app = make_app(sections, seed, online=use == "online")
            begun = time.monotonic()
            masks = train(app, table, batch)
            filling = make_app({**sections, "occlusion": {**sections["occlusion"], "mask_use": "post"}}, seed)
            filling.model = app.model
            names = {"none": ("none", "post"), "train": ("train", "train+post"), "online": ("online", "online+post")}
            for name, fill in zip(names[use], (False, True), strict=True):
                result = measured(filling, held_out, fill)
                found.setdefault(name, []).append(result)
                print(f"| {seed} | {name} | " + " | ".join(f"{result[c]:.3f}" for c in COLUMNS) + " |", flush=True)
            print(f"  {use}: {time.monotonic() - begun:.0f} s, masks {masks}", flush=True)
    for name, results in found.items():
        left = [r for r in results if r["noc_epe"] < LEFT_CONSTANT]
        means = (f"{statistics.mean(r[c] for r in left):.3f}" if left else "-" for c in COLUMNS)
        print(
            f"| mean of {len(left)} of {len(results)} that left the constant solution | {name} | {' | '.join(means)} |"
        )


# Real pairs ----------------------------------------------------------------------------------------------------


def real_pair(folder: Path, name: str, whole: tuple[int, int]) -> Any:
    """Returns a pair at half its size with its true disparities, filled up to `whole`, as a table of one row."""
    from appzoo.stereo_matching.inputs import filled_up
    from easytransfer.data.encoded import EncodedTable

    images = [Image.open(folder / f"{name}{view}.png").convert("RGB") for view in ("1", "5")]
    small = [image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX) for image in images]
    truth = np.asarray(Image.open(folder / f"{name}1_true.png").convert("L"), np.float32)
    # Grey values are twice the disparities, and half the size halves them again; every second pixel is taken.
    truth = truth[1::2, 1::2][: small[0].height, : small[0].width] / 4
    columns = {"size": np.int32([[small[0].height, small[0].width]])}
    for column, image in zip(("left", "right"), small, strict=True):
        columns[column] = np.zeros((1, *whole, 3), np.uint8)
        filled_up(columns[column][0], np.asarray(image))
    columns["truth"] = np.zeros((1, *whole), np.float32)
    filled_up(columns["truth"][0], truth)
    return EncodedTable(columns)


def pairs(options: argparse.Namespace) -> None:
    """Prints errors of each real pair before and after training on its images."""
    whole, part, disparities, batch = (288, 352), (96, 192), 64, 2
    synthetic = scenes_table(120, 1, part, disparities)
    sections = {
        "model": {"network": "tiny", "max_disparity": disparities, "image_size": part},
        "loss": {"smooth_weight": 0.02, "smooth_relative": False},
        "occlusion": {"mask_use": "none"},
        "train": {"num_epochs": options.before * batch / 120, "learning_rate": 2e-3, "log_step_count_steps": 100},
    }
    app = make_app(sections, options.seed)
    begun = time.monotonic()
    train(app, synthetic, batch)
    start = app.model.get_weights()
    print(f"synthetic pairs: {options.before} steps, {time.monotonic() - begun:.0f} s", flush=True)
    print("| pair | when | epe | bad1 | bad3 |\n| --- | --- | --- | --- | --- |", flush=True)
    for name in options.names:
        table = real_pair(Path(options.data), name, whole)
        real = {
            **sections,
            "model": {**sections["model"], "image_size": whole, "crop_size": part},
            "occlusion": {"iterations": 1, "iteration_epochs": options.after * batch / 3 / 32, "jump": 2.0},
            "train": {**sections["train"], "num_epochs": options.after * batch / 32, "learning_rate": 5e-4},
        }
        app = make_app(real, options.seed)
        app.build_model()
        app.model.set_weights(start)
        # The one pair stands in the table often: each time another part of it is trained on.
        often = table.take(np.zeros(32, int))
        for when in ("before", "after"):
            if when == "after":
                app.build_model = lambda folder=None, model=app.model: model
                train(app, often, batch)
            for fill in (False, True):
                found = measured(app, table, fill, has_visible=False)
                label = f"{when}, {'filled' if fill else 'as it is'}"
                numbers = " | ".join(f"{found[c]:.3f}" for c in ("epe", "bad1_error", "bad3_error"))
                print(f"| {name} | {label} | {numbers} |", flush=True)


# Speed ---------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> None:
    """Prints seconds and memory of a training step of psm_basic and of the same network in torch."""
    from sides import print_steps, say_peak, timed

    height, width = options.size
    images = np.random.default_rng(0).random((2, 1, height, width, 3)).astype(np.float32)
    sides = {"ours": our_step, "torch": torch_step}
    if options.side:
        say_peak(sides[options.side](images, options.disparities))
        return
    print(f"psm_basic, {height} x {width}, {options.disparities} disparities, forward and backward of a pair")
    size = ["--size", str(height), str(width), "--disparities", str(options.disparities)]
    steps = {side: made(images, options.disparities) for side, made in sides.items()}
    print_steps(timed(steps, options.steps), [__file__, "speed", *size])


def our_step(images: np.ndarray, disparities: int) -> Callable[[], Any]:
    """Returns a call that makes a step of the platform's network."""
    import tensorflow as tf

    from appzoo.stereo_matching.networks import build

    network = build("psm_basic", disparities)

    @tf.function
    def step(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(left, right, training=True)[-1])
        return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(loss, network.trainable_variables)])

    return lambda: step(*map(tf.constant, images)).numpy()


def torch_step(images: np.ndarray, disparities: int) -> Callable[[], Any]:
    """Returns a call that makes a step of the same network in torch."""
    import sys

    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "appzoo"))
    from test_stereo_networks import BasicMatching, PyramidFeatures, Whole

    network = Whole(PyramidFeatures(), BasicMatching(), disparities, 4).train()

    def step() -> None:
        network.zero_grad()
        network(*(torch.tensor(x).permute(0, 3, 1, 2) for x in images))[-1].mean().backward()

    return step


def main() -> None:
    """Runs the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("claims")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--steps", type=int, default=600)
    one.add_argument("--rate", type=float, default=2e-3)
    one.add_argument("--network", choices=["tiny", "reduced"], default="tiny")
    one.add_argument("--fill", type=float, default=0.1)
    one.add_argument("--online", action="store_true")
    two = parts.add_parser("pairs")
    two.add_argument("--data", required=True)
    two.add_argument("--names", nargs="+", default=["aloe", "art", "moebius"])
    two.add_argument("--before", type=int, default=600)
    two.add_argument("--after", type=int, default=300)
    two.add_argument("--seed", type=int, default=0)
    three = parts.add_parser("speed")
    three.add_argument("--size", type=int, nargs=2, default=[256, 512])
    three.add_argument("--disparities", type=int, default=192)
    three.add_argument("--steps", type=int, default=3)
    three.add_argument("--side", choices=["ours", "torch"], default=None, help="two steps of one side, for its memory")
    options = parser.parse_args()
    {"claims": claims, "pairs": pairs, "speed": speed}[options.part](options)


if __name__ == "__main__":
    main()
