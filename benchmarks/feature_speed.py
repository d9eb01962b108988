"""Vectors of a table of short texts: ours against the batched loop of transformers on PyTorch.

    python benchmarks/feature_speed.py --data DIR [--rows 50000]

The table holds the sentences of DIR/{train,dev,test}.tsv and then new ones, each the first half of one sentence and the
second half of another, all different. The peer loads the model, runs its fast tokenizer on batches of 32 rows in table
order, pads to the longest row, calls the model under `inference_mode` and averages over the tokens; both sides write
float32 arrays. `job` runs from before the model is loaded to the closed file (imports excluded), `whole process` is
everything. The rows of both sides are compared one by one. Then our job is killed with SIGKILL in the middle, started
again, and its files are compared with those of the unbroken job.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import MAX_LENGTH, MODEL, print_table, run_process, versions

from easytransfer.data.npy_tables import read_npy

_COMMAND = [sys.executable, "-c", "from appzoo.cli.features import main; raise SystemExit(main())"]
TOLERANCE = 1e-4


def make_table(data: Path, rows: int, target: Path) -> None:
    """Writes `rows` different texts, one a line."""
    names = [name for name in ("train.tsv", "dev.tsv", "test.tsv") if (data / name).is_file()]
    lines = [line for name in names for line in (data / name).read_text(encoding="utf-8").splitlines()]
    sentences = list(dict.fromkeys(line.split("\t")[0] for line in lines))
    texts, draw = dict.fromkeys(sentences[:rows]), random.Random(0)
    while len(texts) < rows:
        first, second = (draw.choice(sentences).split() for _ in range(2))
        texts[" ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])] = None
    target.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def ours_command(table: Path, output: Path, batch_size: int) -> list[str]:
    """Returns our command line."""
    flags = {
        "modelName": MODEL, "inputTable": table, "inputSchema": "text:str:1", "firstSequence": "text",
        "outputSchema": "mean_output", "sequenceLength": MAX_LENGTH, "outputTable": f"{output}/",
        "batchSize": batch_size,
    }  # fmt: skip
    return [*_COMMAND, *(f"--{name}={value}" for name, value in flags.items())]


def peer(table: Path, output: Path, batch_size: int, threads: int) -> dict[str, object]:
    """Writes mean vectors as a careful script would; run in a process of its own."""
    import torch
    from peer import weights_folder
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    begin = time.monotonic()
    tokenizer, model = AutoTokenizer.from_pretrained(weights_folder()), AutoModel.from_pretrained(weights_folder())
    model.eval()
    texts = table.read_text(encoding="utf-8").splitlines()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            batch = tokenizer(part, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(-1).float()
            vectors.append(((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy())
    np.save(output, np.concatenate(vectors))
    seconds = time.monotonic() - begin
    return {"job_s": seconds, "rows_per_second": len(texts) / seconds}


def kill_and_resume(command: list[str], output: Path, rows: int, share: float) -> dict[str, object] | None:
    """Kills a job when `share` of the rows are written, and starts it again.

    Returns:
        The result of the second start, with the rows that were finished at the kill as `killed_at`; None when the job
        ended before, since all rows are one piece.
    """
    progress = Path(f"{output}.pieces") / "progress.json"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    written = 0
    while written < share * rows and process.poll() is None:
        time.sleep(0.05)
        written = json.loads(progress.read_text())["account"]["written"] if progress.exists() else 0
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {**run_process(command, len(os.sched_getaffinity(0))), "killed_at": written}


def digests(folder: Path) -> dict[str, str]:
    """Returns the hash of every file of an output."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main() -> None:
    """Measures both sides, compares their rows, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50000)
    parser.add_argument("--batch-size", type=int, default=32, help="rows per call of ours; the peer takes 32")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--kill-at", type=float, default=0.4, help="share of the rows written when the job is killed")
    parser.add_argument("--peer", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(*options.peer, batch_size=32, threads=options.cores)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = folder / "table.tsv"
        make_table(options.data, options.rows, table)
        script = [sys.executable, __file__, f"--data={options.data}", f"--cores={options.cores}", "--peer"]
        found = {"transformers, batch 32, in order": run_process([*script, table, folder / "peer.npy"], options.cores)}
        command = ours_command(table, folder / "ours", options.batch_size)
        found[f"EasyTransfer, batch {options.batch_size}"] = ours = run_process(command, options.cores)
        mine, theirs = read_npy(folder / "ours")["mean_output"], np.load(folder / "peer.npy")
        assert mine.shape == theirs.shape == (options.rows, theirs.shape[1]), (mine.shape, theirs.shape)
        difference = float(np.abs(mine - theirs).max())
        command = ours_command(table, folder / "killed", options.batch_size)
        resumed = kill_and_resume(command, folder / "killed", options.rows, options.kill_at)
        equal = resumed is None or digests(folder / "ours") == digests(folder / "killed")
    rows = [
        [
            name,
            f"{result['rows_per_second']:.0f}",
            f"{options.rows / result['rows_per_second']:.1f}",
            f"{result['process_s']:.1f}",
            f"{result['peak_mb']}",
            f"{ours['rows_per_second'] / result['rows_per_second']:.2f}",
        ]
        for name, result in found.items()
    ]
    print(f"{options.rows} rows, {options.cores} cores, {json.dumps(versions())}\n")
    print_table(["side", "rows/s", "job s", "whole process s", "peak MB", "ours is faster by"], rows)
    print(f"\nsame order: every vector within {difference:.1e} of the peer's (allowed {TOLERANCE})")
    if resumed is None:
        print("not killed: too few rows for two pieces")
    else:
        print(
            f"killed behind row {resumed['killed_at']}, started again: {resumed['written']} rows, files equal: {equal}"
        )
    if difference > TOLERANCE or not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
