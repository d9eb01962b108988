"""Real roads: a small network trained on five annotated images of a car's camera, looked at on a sixth and on others.

    python benchmarks/lane_real.py --data DIR [--steps 600] [--pictures FOLDER] [--sheet FILE]

DIR holds `image/0000.png` to `0005.png` with `gt_instance_image/` of the same names (a value for each lane), and
`tusimple_test_image/0.jpg` to `3.jpg` without annotation. Five images teach no network roads: that it learns them by
heart shows that masks, slots, decoding and metric fit each other on real data, and the others show what is left of it.
`--pictures` takes the images with lanes over them, predicted ones in colours and true ones in white; `--sheet` a
picture of the lanes alone, on black, which may be shown where the images may not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from image_sides import fit
from sides import print_table

from easytransfer.data.encoded import EncodedTable

SETTINGS = {
    **{"network": "tiny", "channels": 32, "image_size": [176, 320], "iterations": 4, "kernel_width": 9, "alpha": 1.0},
    # The same images every time: what is looked at is whether they can be learnt by heart.
    # Lanes are 4 pixels wide in these small images; the mean over 9 pixels, which both rules take, leaves 0.4 of them.
    **{"mask_values": "instances", "rotation_degrees": 0.0, "mirror": False, "threshold": 0.2},
}


def make_app(options: argparse.Namespace) -> Any:
    """Returns the application, prepared."""
    from appzoo.lane_detection.app import LaneDetection
    from appzoo.lane_detection.config import ResaConfig

    train = {
        **{"num_epochs": options.steps, "batch_size": 5, "optimizer_type": "adam", "learning_rate": 3e-3},
        **{"weight_decay_ratio": 0.0, "gradient_clip": True, "clip_norm_value": 5.0},
    }
    app = LaneDetection(ResaConfig(model=SETTINGS, train=train, runtime={"seed": options.seed}))
    app.load_assets(None)
    return app


def encoded(app: Any, folder: Path, rows: list[dict[str, str]], labels: bool) -> EncodedTable:
    """Returns the rows of a table as the application reads them."""
    from easytransfer.data.table import open_table

    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chunk,) = open_table(str(path), schema=None, texts=app.text_columns()).chunks()
    return app.encode(chunk, labels)


def main() -> None:
    """Trains, measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=Path, default=None)
    parser.add_argument("--sheet", type=Path, default=None)
    options = parser.parse_args()
    from appzoo.jobs.inference import evaluated_with_outputs, outputs_in_order
    from appzoo.jobs.trained import model_call
    from appzoo.lane_detection.metrics import true_lanes_of
    from appzoo.lane_detection.pictures import by_slot, overlay
    from easytransfer.image.contact_sheet import write_contact_sheet

    app, data, begin = make_app(options), options.data.resolve(), time.process_time()
    known = [
        {"image": str(path), "lanes": str(data / "gt_instance_image" / path.name)}
        for path in sorted((data / "image").glob("*.png"))
    ]
    others = [{"image": str(path)} for path in sorted((data / "tusimple_test_image").glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as folder:
        parts = {"the five": encoded(app, Path(folder), known[:5], True)}
        parts["the sixth"] = encoded(app, Path(folder), known[5:], True)
        plain = encoded(app, Path(folder), others, False)
    fit(app, parts["the five"])
    print(f"{options.steps} steps of five images, {time.process_time() - begin:.0f} s of processor time")
    rows, pictures = [], []
    for name, table in parts.items():
        evaluator, outputs = evaluated_with_outputs(app, table, model_call(app, labelled=True), 5, keep=len(table))
        result = evaluator.result()
        rows.append([name, *(f"{result[metric]:.3f}" for metric in ("lane_accuracy", "f1", "pixel_iou"))])
        true = [true_lanes_of(lanes) for lanes in table.columns["true_lanes"]]
        pictures += [(table.columns["image"][i], outputs["lane_x"][i], true[i]) for i in range(len(table))]
    print_table(["images", "accuracy of TuSimple", "F1", "pixel IoU"], rows)
    found = outputs_in_order(plain, model_call(app), 4)["lane_x"]
    print("lanes in the images without annotation:", [(x >= 0).any(axis=1).sum().item() for x in found])
    pictures += [(plain.columns["image"][i], found[i], []) for i in range(len(plain))]
    captions = [[f"{name} {i + 1}"] for name, table in parts.items() for i in range(len(table))]
    captions += [[f"not annotated {i + 1}"] for i in range(len(plain))]
    settings = app.config.model

    def drawn(image: Any, lane_x: Any, true: Any) -> Any:
        return overlay(np.asarray(image), by_slot(lane_x, settings), true, settings)

    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            drawn(*picture).save(options.pictures / f"{number}.png")
    if options.sheet:
        sheet = np.stack([np.asarray(drawn(np.zeros_like(image), *lanes)) for image, *lanes in pictures])
        write_contact_sheet(options.sheet, sheet[:, ::2, ::2], captions, columns=5)


if __name__ == "__main__":
    main()
