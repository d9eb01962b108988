"""Offline prediction of a table: ours against the batched loop of transformers on PyTorch.

    python benchmarks/predict_speed.py --data DIR [--rows 20000] [--checkpoint RUN_FOLDER]

The table is made of the texts in DIR/{train,dev,test}.tsv, repeated up to `--rows`. The peer loads the model, runs its
fast tokenizer on each batch in table order, pads to the longest row, and calls the model under `inference_mode`;
batch sizes 32 and 128 are tried, and a variant that sorts by length first, which few scripts do. Both sides write
label and probabilities for each row in input order. `job` runs from before the model is loaded to the closed file
(imports excluded), `whole process` is everything. Weights differ (the peer's head is random), which costs no time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

from sides import SCHEMA, head, print_table, run_ours, run_peer, train_ours, versions


def make_table(data: Path, rows: int, target: Path) -> Path:
    """Writes `rows` lines, the texts of all tables of `data` in turn."""
    names = [name for name in ("train.tsv", "dev.tsv", "test.tsv") if (data / name).is_file()]
    lines = [line for name in names for line in (data / name).read_text(encoding="utf-8").splitlines()]
    target.write_text("".join(f"{line}\n" for line in itertools.islice(itertools.cycle(lines), rows)), encoding="utf-8")
    return target


def trained(data: Path, folder: Path, cores: int) -> Path:
    """Trains two steps, enough for a run folder that predicts."""
    train = head(data / "train.tsv", folder / "train.tsv", 64)
    train_ours(train, train, folder / "run", cores=cores, epochs=1, seed=1)
    return folder / "run"


def main() -> None:
    """Measures all variants and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--checkpoint", type=Path, default=None, help="run folder; default: train two steps")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per call of ours")
    parser.add_argument("--precision", choices=["none", "bfloat16"], default="none")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = make_table(options.data, options.rows, folder / "table.tsv")
        checkpoint = options.checkpoint or trained(options.data, folder, options.cores)
        for batch_size, sort in ((32, 0), (128, 0), (32, 1)):
            name = f"transformers, batch {batch_size}, {'sorted by length' if sort else 'in order'}"
            found[name] = run_peer(
                "predict",
                options.cores,
                input=table,
                output=folder / "peer.tsv",
                batch_size=batch_size,
                sort=sort,
                precision=options.precision,
            )
        ours = run_ours(
            "predict",
            options.cores,
            checkpointPath=checkpoint,
            inputTable=table,
            outputTable=folder / "ours.tsv",
            inputSchema=SCHEMA,
            firstSequence="content",
            outputSchema="predictions,probabilities",
            batchSize=options.batch_size,
            mixedPrecision=options.precision,
        )
        for name in ("ours.tsv", "peer.tsv"):
            assert len((folder / name).read_text(encoding="utf-8").splitlines()) == options.rows, name
    speed = float(ours["rows_per_second"])
    found[f"EasyTransfer, batch {options.batch_size}"] = {**ours, "rows_per_s": speed, "job_s": options.rows / speed}
    rows = [
        [
            name,
            f"{result['rows_per_s']:.0f}",
            f"{result['job_s']:.1f}",
            f"{result['process_s']:.1f}",
            f"{result['peak_mb']}",
            f"{speed / result['rows_per_s']:.2f}",
        ]
        for name, result in found.items()
    ]
    print(f"{options.rows} rows, {options.cores} cores, {options.precision}, {json.dumps(versions())}\n")
    print_table(["side", "rows/s", "job s", "whole process s", "peak MB", "ours is faster by"], rows)


if __name__ == "__main__":
    main()
