"""Does RESA help where lanes are hidden, and the bilateral decoder where they are thin? Drawn roads, several seeds.

    python benchmarks/lane_results.py [--seeds 3] [--steps 600] [--kinds plain_none plain_resa ...] [--log FILE]

Roads of 64 x 160 pixels (`examples/lane_detection/make_scenes.py`) with two opaque boxes of 24 to 40 x 50 to 110
pixels; labels are whole lanes, also where they are hidden. A tiny network with and without RESA (K = 3, alpha 1), with
the plain and the bilateral decoder, has the same steps, rate and data for each seed. F1 of lanes 6 pixels wide with an
overlap of more than half, and the overlap of pixels, on test roads that no training saw, after the last step. Finished
runs are appended to the log and not repeated, so the script can be stopped and started again. Needs no PyTorch and no
data.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from image_sides import Log, claim, fit, parameters
from sides import mean_and_spread, print_table

from easytransfer.data.encoded import EncodedTable

ROOT = Path(__file__).resolve().parents[1]
# Decoder, and whether RESA stands before it.
KINDS = {
    "plain_none": ("plain", False),
    "plain_resa": ("plain", True),
    "busd_none": ("busd", False),
    "busd_resa": ("busd", True),
}
SIZES = {
    **{"network": "tiny", "channels": 32, "exist_units": 64, "image_size": [64, 160], "original_size": [64, 160]},
    **{"cut_height": 0, "slots": 4, "line_width": 4, "benchmark": "culane", "row_step": 4, "row_count": 12},
    **{"f1_width": 6, "rotation_degrees": 0.0, "mirror": False},
}
RESA = {"iterations": 3, "kernel_width": 5, "alpha": 1.0}


def roads(seed: int, rows: int) -> EncodedTable:
    """Returns a table of hidden lanes as the application encodes it."""
    from appzoo.lane_detection.lanes import slot_mask

    path = ROOT / "examples" / "lane_detection" / "make_scenes.py"
    spec = importlib.util.spec_from_file_location("make_scenes", path)
    scenes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenes)
    random = np.random.default_rng(seed)
    images, masks, true = [], [], np.full([rows, 4, 64, 2], np.nan, np.float32)
    for number in range(rows):
        image, lanes = scenes.scene(random, boxes=2)
        points = {slot: np.array(lane) for slot, lane in lanes.items()}
        images.append(image)
        # A width of 4 covers 5 pixels, as in OpenCV.
        masks.append(slot_mask(list(points.values()), list(points), 4, image.shape[:2]))
        for place, lane in enumerate(points.values()):
            true[number, place, : len(lane)] = lane
    masks = np.stack(masks)
    exist = np.stack([(masks == slot).any(axis=(1, 2)) for slot in range(1, 5)], axis=1).astype(np.float32)
    columns = {"image": np.stack(images), "mask": masks, "exist": exist, "true_lanes": true}
    return EncodedTable({**columns, "category": np.full(rows, -1, np.int32)})


def run(options: argparse.Namespace, kind: str, seed: int, train: EncodedTable, test: EncodedTable) -> dict[str, Any]:
    """Trains one network and measures it."""
    from appzoo.jobs.inference import evaluated
    from appzoo.jobs.trained import model_call
    from appzoo.lane_detection.app import LaneDetection
    from appzoo.lane_detection.config import BaselineConfig, ResaConfig

    decoder, resa = KINDS[kind]
    config = (ResaConfig if resa else BaselineConfig)(
        model={**SIZES, "decoder": decoder, **(RESA if resa else {})},
        train={
            **{"num_epochs": options.steps * 16 / len(train), "batch_size": 16, "optimizer_type": "adam"},
            **{"learning_rate": 3e-3, "weight_decay_ratio": 0.0, "gradient_clip": True, "clip_norm_value": 5.0},
            "warmup_ratio": 100 / 600,
        },
        runtime={"seed": seed},
    )
    app, begin = LaneDetection(config), time.process_time()
    app.load_assets(None)
    fit(app, train)
    seconds = time.process_time() - begin
    metrics = evaluated(app, test, model_call(app, labelled=True), 20).result()
    found = {name: metrics[name] for name in ("f1", "pixel_iou")}
    return {**found, "parameters": parameters(app), "cpu_seconds": round(seconds, 1)}


def main() -> None:
    """Trains what the log does not have, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="of 16 roads")
    parser.add_argument("--train-rows", type=int, default=1600)
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "lanes.jsonl")
    options = parser.parse_args()
    log = Log(options.log, options, ("seeds", "kinds", "log"))
    test = roads(10_000, options.test_rows)
    for seed in range(1, options.seeds + 1):
        train = None
        for kind in options.kinds:
            if not log.runs(kind=kind, seed=seed):
                train = train or roads(seed, options.train_rows)
                log.add({"kind": kind, "seed": seed}, run(options, kind, seed, train, test))
    runs = {kind: {r["seed"]: r for r in log.runs(kind=kind)} for kind in KINDS}
    table = []
    for kind, found in runs.items():
        if found:
            spreads = [mean_and_spread([r[name] for r in found.values()]) for name in ("f1", "pixel_iou")]
            table.append([kind, str(len(found)), *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in spreads)])
    print_table(["network", "seeds", "F1", "pixel IoU"], table)

    def values(kind: str, name: str) -> dict[int, float]:
        return {seed: found[name] for seed, found in runs[kind].items()}

    print(claim("RESA above none, plain decoder", values("plain_resa", "f1"), values("plain_none", "f1"), "F1"))
    print(claim("RESA above none, bilateral", values("busd_resa", "f1"), values("busd_none", "f1"), "F1"))
    better, worse = (values(kind, "pixel_iou") for kind in ("busd_resa", "plain_resa"))
    print(claim("bilateral above plain decoder, with RESA", better, worse, "pixel IoU"))


if __name__ == "__main__":
    main()
