"""Lane detection beside the published code: modules with copied weights, and both metrics on random lanes.

    python benchmarks/lane_parity.py [--resa FOLDER] [--tusimple FILE] [--sets 500]

FOLDER is a checkout of the authors' repository (`models/resa.py` and `models/decoder.py` are read from it), FILE the
benchmark's own `evaluate/lane.py`. CULane's metric is compared with one that draws lanes by `cv2.line`, where OpenCV is
installed. What is not at hand is left out and said so. Needs PyTorch for the modules.
"""

from __future__ import annotations

import argparse
import re
import types
from pathlib import Path
from typing import Any

import numpy as np

# Map and channels of the comparison; the authors' classes fix 128 channels.
SIZE, CHANNELS, ITERATIONS, CLASSES = (64, 128), 128, 3, 7
ROWS = list(range(160, 720, 10))
IMAGE, LANE_WIDTH = (590, 1640), 30


def published(path: Path, names: tuple[str, ...], **known: Any) -> list[Any]:
    """Returns classes of a file, which is read without the modules that it imports from its own repository."""
    text = re.sub(
        r"^\s*(from (models|runner|utils|\.)\S* import .*|import ujson as json)$", "", path.read_text(), flags=re.M
    )
    text = re.sub(r"^@\w+\.register_module$", "", text.split("if __name__")[0], flags=re.M)
    module = types.ModuleType(path.stem)
    vars(module).update(known)
    exec(compile(text, str(path), "exec"), vars(module))  # a file that the user names, as a program
    return [getattr(module, name) for name in names]


# Modules -------------------------------------------------------------------------------------------------------


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference as a share of the largest number."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def copied(layer: Any, peer: Any) -> None:
    """Copies a convolution, dense layer or batch normalisation from PyTorch."""
    if hasattr(peer, "running_mean"):
        for name, value in (("gamma", peer.weight), ("beta", peer.bias), ("moving_mean", peer.running_mean)):
            getattr(layer, name).assign(value.detach().numpy())
        layer.moving_variance.assign(peer.running_var.numpy())
        return
    weight = peer.weight.detach().numpy()
    layer.kernel.assign(weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0))
    if peer.bias is not None:
        layer.bias.assign(peer.bias.detach().numpy())


def compare_modules(folder: Path) -> None:
    """Prints how far RESA, BUSD and the existence head are from the authors' classes."""
    import torch

    from appzoo.lane_detection.decoders import BusdDecoder, ExistHead
    from appzoo.lane_detection.resa import Resa

    settings = types.SimpleNamespace
    config = settings(
        img_height=8 * SIZE[0], img_width=8 * SIZE[1], num_classes=CLASSES, backbone=settings(fea_stride=8),
        resa=settings(iter=ITERATIONS, input_channel=CHANNELS, alpha=2.0, conv_stride=9),
    )  # fmt: skip
    resa, exist = published(folder / "models" / "resa.py", ("RESA", "ExistHead"))
    (busd,) = published(folder / "models" / "decoder.py", ("BUSD",))
    torch.manual_seed(0)
    peers = [kind(config).eval() for kind in (resa, busd, exist)]
    with torch.no_grad():
        for module in peers[1].modules():
            if hasattr(module, "running_mean"):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    x = np.random.default_rng(0).normal(size=(1, *SIZE, CHANNELS)).astype(np.float32)
    image = torch.tensor(x.transpose(0, 3, 1, 2))
    layers = [
        Resa(ITERATIONS, 9, 2.0),
        BusdDecoder(CHANNELS, CLASSES, 0),
        ExistHead(CHANNELS, SIZE, CLASSES, 128, 0.1, 0),
    ]
    for layer in layers:
        layer(x)
    for name, kernel in layers[0].kernels.items():
        kernel.assign(getattr(peers[0], f"conv_{name}").weight.detach().numpy().transpose(2, 3, 1, 0))
    for block, peer in zip(layers[1].blocks, peers[1].layers, strict=True):
        copied_block(block, peer)
    copied(layers[1].logits, peers[1].output_conv)
    for layer, peer in (
        (layers[2].maps, peers[2].conv8),
        (layers[2].dense, peers[2].fc9),
        (layers[2].logits, peers[2].fc10),
    ):
        copied(layer, peer)
    with torch.no_grad():
        theirs = [peer(image).numpy() for peer in peers]
    ours = [np.asarray(layer(x)) for layer in layers]
    ours[:2] = [each.transpose(0, 3, 1, 2) for each in ours[:2]]
    ours[2] = 1 / (1 + np.exp(-ours[2]))
    for name, one, other in zip(("RESA", "BUSD", "existence"), ours, theirs, strict=True):
        print(f"{name}: relative difference {difference(one, other):.1e}")


def copied_block(block: Any, peer: Any) -> None:
    """Copies a block of the decoder."""
    block.up.kernel.assign(peer.conv.weight.detach().numpy().transpose(2, 3, 1, 0))
    block.up.bias.assign(peer.conv.bias.detach().numpy())
    pairs = [(block.up_norm, peer.bn), (block.coarse, peer.interpolate_conv), (block.coarse_norm, peer.interpolate_bn)]
    for fine, other in zip(block.fine, peer.follows, strict=True):
        pairs += [(getattr(fine, f"conv{form}_{n}"), getattr(other, f"conv{form}_{n}"))
                  for form in ("3x1", "1x3") for n in (1, 2)]  # fmt: skip
        pairs += [(fine.norm1, other.bn1), (fine.norm2, other.bn2)]
    for layer, other in pairs:
        copied(layer, other)


# Metrics -------------------------------------------------------------------------------------------------------


def lanes_in_rows(random: np.random.Generator, like: np.ndarray | None = None) -> np.ndarray:
    """Returns x of a lane in every row, or of one near another; -2 where it is not seen."""
    line = random.uniform(0, 1280) + random.uniform(-1.5, 1.5) * (np.array(ROWS) - 400)
    line = line if like is None else np.where(like >= 0, like + random.normal(0, random.choice([2, 12, 30]), 56), -2)
    found = np.rint(line)
    found[(found < 0) | (found >= 1280) | (np.arange(56) < random.integers(0, 20))] = -2
    return found


def compare_tusimple(path: Path, sets: int) -> None:
    """Prints on how many random sets of lanes the official script has the same three numbers."""
    import json

    from appzoo.lane_detection.tusimple import score_image

    (official,) = published(path, ("LaneEval",), json=json)
    random, same, largest = np.random.default_rng(0), 0, 0.0
    for _ in range(sets):
        true = [lanes_in_rows(random) for _ in range(random.integers(0, 7))]
        predicted = [lanes_in_rows(random, lane) for lane in true if random.random() < 0.85]
        predicted += [lanes_in_rows(random) for _ in range(random.integers(0, 3))]
        found = score_image(predicted, true, ROWS)
        theirs = official.bench([p.tolist() for p in predicted], [t.tolist() for t in true], ROWS, 0)
        gap = float(np.abs(np.subtract((found.accuracy, found.fp, found.fn), theirs)).max())
        same, largest = same + (gap < 1e-9), max(largest, gap)
    print(f"TuSimple: equal on {same} of {sets} sets of lanes, largest difference {largest:.1e}")


def points(random: np.random.Generator) -> np.ndarray:
    """Returns the points of a lane, every 20 pixels from the bottom."""
    y = np.arange(589, random.integers(260, 450), -20.0)
    up = 589 - y
    x = random.uniform(0, 1640) + random.uniform(-2, 2) * up + random.uniform(-0.002, 0.002) * up**2
    inside = (x >= 0) & (x < IMAGE[1])
    return np.stack([x[inside], y[inside]], axis=1)


def raster_counts(cv2: Any, predicted: list[np.ndarray], true: list[np.ndarray]) -> tuple[int, int, int]:
    """Returns true and false positives and misses with lanes drawn by OpenCV."""
    from scipy.optimize import linear_sum_assignment

    from appzoo.lane_detection.culane import smoothed

    def drawn(lane: np.ndarray) -> np.ndarray:
        mask, places = np.zeros(IMAGE, np.uint8), np.rint(smoothed(lane)).astype(int).tolist()
        for start, end in zip(places[:-1], places[1:], strict=True):
            cv2.line(mask, tuple(start), tuple(end), 1, LANE_WIDTH)
        return mask > 0

    if not predicted or not true:
        return 0, len(predicted), len(true)
    ours, theirs = (list(map(drawn, lanes)) for lanes in (true, predicted))
    shared = np.array([[(a & b).sum() / max((a | b).sum(), 1) for b in theirs] for a in ours])
    tp = int((shared[linear_sum_assignment(shared, maximize=True)] > 0.5).sum())
    return tp, len(predicted) - tp, len(true) - tp


def compare_culane(sets: int) -> None:
    """Prints on how many random sets of lanes the counts are those of lanes drawn by OpenCV."""
    try:
        import cv2
    except ImportError:
        print("CULane: not compared, OpenCV is not installed")
        return
    from appzoo.lane_detection.culane import count_image

    random, same = np.random.default_rng(5), 0
    for _ in range(sets):
        true = [lane for lane in (points(random) for _ in range(random.integers(0, 5))) if len(lane) > 1]
        near = [lane + [random.normal(0, random.choice([2, 6, 12])), 0] for lane in true if random.random() < 0.85]
        near = [lane + random.normal(0, 1, lane.shape) * [1, 0] for lane in near]
        predicted = near + [lane for lane in (points(random) for _ in range(random.integers(0, 2))) if len(lane) > 1]
        found = count_image(predicted, true, IMAGE, LANE_WIDTH)
        same += (found.tp, found.fp, found.fn) == raster_counts(cv2, predicted, true)
    print(f"CULane: counts equal on {same} of {sets} sets of lanes ({same / sets:.1%})")


def main() -> None:
    """Compares what is at hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resa", type=Path, default=None)
    parser.add_argument("--tusimple", type=Path, default=None)
    parser.add_argument("--sets", type=int, default=500)
    options = parser.parse_args()
    if options.resa is None:
        print("modules: not compared, --resa names no checkout")
    else:
        compare_modules(options.resa)
    if options.tusimple is None:
        print("TuSimple: not compared, --tusimple names no script")
    else:
        compare_tusimple(options.tusimple, options.sets)
    compare_culane(options.sets)


if __name__ == "__main__":
    main()
