"""Training throughput on SST-2: ours against the transformers Trainer, same weights, batch, precision and cores.

    python benchmarks/train_speed.py --data DIR [--steps 216] [--precision none bfloat16]

Both sides tokenize before the clock starts, pad each batch to its longest row and group rows by length. The first
`--skip` steps (tracing, allocation, first use of kernels) are left out of the speed of both; `whole process` has them,
with imports, tokenization and, for ours, the final evaluation, checkpoint and export.
DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sides import BATCH_SIZE, head, history, print_table, run_peer, train_ours, versions

LOG_EVERY = 10


def ours(train: Path, dev: Path, rows: int, options: argparse.Namespace, precision: str) -> dict[str, object]:
    """Trains `options.steps` steps and reads the speed from the log of the run."""
    with tempfile.TemporaryDirectory() as folder:
        result = train_ours(
            train,
            head(dev, Path(folder) / "dev.tsv", 32),
            Path(folder) / "run",
            cores=options.cores,
            epochs=options.steps * BATCH_SIZE / rows,
            seed=1,
            precision=precision,
            log_step_count_steps=LOG_EVERY,
        )
        records = history(Path(folder) / "run", "step")
    # Whole intervals after the skipped steps; each record tells its interval's rates.
    used = [r for r in records if r["step"] > options.skip and r["step"] % LOG_EVERY == 0] or records[-1:]
    seconds = [LOG_EVERY * BATCH_SIZE / r["rows_per_s"] for r in used]
    tokens = sum(r["tokens_per_s"] * s for r, s in zip(used, seconds, strict=True))
    return {
        **result,
        "rows_per_s": len(used) * LOG_EVERY * BATCH_SIZE / sum(seconds),
        "tokens_per_s": tokens / sum(seconds),
    }


def main() -> None:
    """Measures both sides for each precision and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=216, help="training steps; 216 are about one epoch")
    parser.add_argument("--skip", type=int, default=20, help="first steps left out of the speed")
    parser.add_argument("--precision", nargs="+", choices=["none", "bfloat16"], default=["none"])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as folder:
        train = head(options.data / "train.tsv", Path(folder) / "train.tsv", options.rows)
        rows = len(train.read_text(encoding="utf-8").splitlines())
        for precision in options.precision:
            peer = run_peer(
                "train", options.cores, train=train, steps=options.steps, skip=options.skip, precision=precision
            )
            mine = ours(train, options.data / "dev.tsv", rows, options, precision)
            ratio = mine["rows_per_s"] / peer["rows_per_s"]
            name = {"none": "float32"}.get(precision, precision)
            for side, found in (("transformers Trainer", peer), ("EasyTransfer", mine)):
                table.append(
                    [
                        name,
                        side,
                        f"{found['rows_per_s']:.1f}",
                        f"{found['tokens_per_s']:.0f}",
                        f"{found['peak_mb']}",
                        f"{found['process_s']:.0f}",
                        f"{ratio:.2f}" if found is mine else "1",
                    ]
                )
    print(f"{options.steps} steps of {BATCH_SIZE} rows, {options.cores} cores, {json.dumps(versions())}\n")
    print_table(["precision", "side", "rows/s", "tokens/s", "peak MB", "whole process s", "ratio"], table)


if __name__ == "__main__":
    main()
