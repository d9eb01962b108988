"""Peak memory of `evaluate` and `predict` on a table, and on 4 and 20 times its rows: it must not grow with them.

Trains a small model of each kind, writes tables that repeat its evaluation rows, and runs each verb in processes of its
own. Prints one JSON line for each kind, verb and number of workers; the workers of `predict` each write their part of
the output, and the peak is that of the largest. The smallest table is no longer than the chunks that are read
ahead; what a row takes shows between the others.

    python benchmarks/inference_memory.py
    python benchmarks/inference_memory.py --kinds images --rows 1000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MAIN = "from appzoo.cli.main import main; raise SystemExit(main())"
# Megabytes of encoded rows in memory when evaluating: less than the smaller table of any kind has.
MEMORY_MB = 0.25
CONFIGURATIONS = {
    "text": "appzoo/text_classify/configs/smoke_cnn.yaml",
    "labelling": "appzoo/sequence_labeling/configs/smoke.yaml",
    "images": "appzoo/image_classify/configs/smoke.yaml",
}


def call(words: list[str]) -> subprocess.Popen:
    """Starts the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def peak_mb(processes: list[subprocess.Popen]) -> float:
    """Waits for processes; returns the peak resident memory of the largest, those that they started among them."""
    peaks = []
    for process in processes:
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(said.decode("utf-8", "replace")[-3000:])
        peaks.append(usage.ru_maxrss / 1024)
    return max(peaks)


def repeated(source: Path, target: Path, rows: int) -> None:
    """Writes a table of `rows` rows: those of `source`, again and again."""
    lines = source.read_bytes().splitlines(keepends=True)
    with open(target, "wb") as file:
        for start in range(0, rows, len(lines)):
            file.writelines(lines[: rows - start])


def trained(kind: str, folder: Path) -> tuple[Path, Path]:
    """Trains the smoke configuration of a kind; returns its run folder and its evaluation table."""
    from appzoo.cli.reader import JobReader

    run, further = folder / f"run-{kind}", []
    if kind == "labelling":
        tiny = folder / "tiny"
        if not tiny.exists():
            peak_mb([call(["zoo", "make-tiny", str(tiny)])])
        further = [f"--set=model.pretrain_model_name_or_path={tiny}"]
    words = [f"--config={CONFIGURATIONS[kind]}", f"--set=checkpoint_dir={run}", *further]
    config = JobReader("train", words, []).read().config
    if not run.exists():
        peak_mb([call(["train", *words])])
    return run, REPOSITORY / config.data.eval_table


def measured(verb: str, run: Path, table: Path, output: Path, workers: int) -> float:
    """Returns the peak memory of a verb on a table."""
    words = [verb, f"--checkpointPath={run}", f"--inputTable={table}"]
    if verb == "evaluate":
        return peak_mb([call([*words, f"--set=data.table_memory_mb={MEMORY_MB}", f"--workerCount={workers}"])])
    words.append(f"--outputTable={output}")
    if workers == 1:
        return peak_mb([call(words)])
    return peak_mb([call([*words, f"--workerCount={workers}", f"--task_index={w}"]) for w in range(workers)])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(CONFIGURATIONS), help="comma list")
    parser.add_argument("--verbs", default="evaluate,predict", help="comma list")
    parser.add_argument("--rows", type=int, default=10000, help="rows of the smaller table")
    parser.add_argument("--times", default="1,4,20", help="comma list: how many times as many rows the tables have")
    parser.add_argument("--workers", default="1,2", help="comma list of numbers of workers")
    parser.add_argument("--folder", type=Path, default=None, help="where tables and runs go; default a temporary one")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="inference-memory-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds.split(","):
        run, rows = trained(kind, folder)
        tables = {times: folder / f"{kind}-{times}.tsv" for times in map(int, options.times.split(","))}
        for times, table in tables.items():
            repeated(rows, table, options.rows * times)
        for verb in options.verbs.split(","):
            for workers in map(int, options.workers.split(",")):
                found = {}
                for times, table in tables.items():
                    output = folder / f"{kind}-{times}-{workers}.out.tsv"
                    found[f"peak_mb_{times}x"] = round(measured(verb, run, table, output, workers))
                facts = {"kind": kind, "verb": verb, "workers": workers, "rows": options.rows}
                print(json.dumps({**facts, **found}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
