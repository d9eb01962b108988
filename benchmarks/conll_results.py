"""Named entities of CoNLL-2003: ours, ours with a CRF, and the same recipe in transformers + PyTorch. One table.

    python benchmarks/conll_results.py --data DIR [--seeds 3] [--epochs 3] [--log FILE]

Recipe of all: batch 32, AdamW 5e-5 with weight decay 0.01, linear schedule with 10 % warm-up, clipping at 1, dropout
0.1, at most 128 tokens, label on the first piece. The score is the entity F1 of the last epoch on testa, never the best
one, by one scorer for all (`appzoo.labeling.entities`). Every finished run is appended to the log, and runs
found there are not repeated, so the script can be stopped and started again.
DIR holds `eng.train` and `eng.testa`: lines `token POS chunk tag`, an empty line behind each sentence. They become
tables `text TAB tags` with IOB1 turned into BIO; `--convert FILE TABLE` does only that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from sides import MAX_LENGTH, MODEL, history, mean_and_spread, print_table, run_process, train_ours, versions

from appzoo.labeling.entities import to_bio

OURS, CRF, PEER = "EasyTransfer", "EasyTransfer, CRF", "transformers + PyTorch"
SYSTEMS = {"ours": OURS, "crf": CRF, "peer": PEER}
SCHEMA = "text:str:1,tags:str:1"


def convert(source: Path, target: Path, rows: int | None = None) -> Path:
    """Writes the sentences of a file in CoNLL's column format as `text TAB tags`; the tags become BIO.

    Args:
        source: Lines whose first field is the word and whose last is the tag; `-DOCSTART-` lines are left out.
        target: Table to write.
        rows: Stop after this many sentences.
    """
    blocks = source.read_text(encoding="utf-8").split("\n\n")
    sentences = [[line.split(" ") for line in block.splitlines() if line.strip()] for block in blocks]
    sentences = [fields for fields in sentences if fields and fields[0][0] != "-DOCSTART-"][:rows]
    with target.open("w", encoding="utf-8") as table:
        for fields in sentences:
            words, tags = [field[0] for field in fields], to_bio([field[-1] for field in fields])
            table.write(f"{' '.join(words)}\t{' '.join(tags)}\n")
    return target


def run(system: str, seed: int, train: Path, dev: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains one system with one seed; `f1` has one value per epoch."""
    if system == PEER:
        script = str(Path(__file__).with_name("peer_labeling.py"))
        flags = {"threads": options.cores, "train": train, "dev": dev, "epochs": options.epochs, "seed": seed}
        return run_process(
            [sys.executable, script, *(f"--{key}={value}" for key, value in flags.items())], options.cores
        )
    with tempfile.TemporaryDirectory() as folder:
        result = train_ours(
            train,
            dev,
            Path(folder) / "run",
            cores=options.cores,
            epochs=options.epochs,
            seed=seed,
            flags={
                "modelName": "sequence_labeling_bert",
                "inputSchema": SCHEMA,
                "firstSequence": "text",
                "labelName": "tags",
                "labelEnumerateValues": "auto",
            },
            use_crf=str(system == CRF).lower(),
        )
        f1 = [record["f1"] for record in history(Path(folder) / "run", "evaluation")]
    return {"f1": f1, "process_s": result["process_s"], "peak_mb": result["peak_mb"]}


def encoding_speed(table: Path) -> float:
    """Returns the rows/s at which a table is read and turned into token ids and labels; best of three."""
    from appzoo.jobs.tables import load_rows
    from appzoo.sequence_labeling.app import BertLabeling
    from appzoo.sequence_labeling.config import BertLabelingConfig

    config = BertLabelingConfig.model_validate(
        {
            "data": {"input_schema": SCHEMA, "first_sequence": "text", "label_name": "tags"}
            | {"label_enumerate_values": "auto", "sequence_length": MAX_LENGTH},
            "model": {"pretrain_model_name_or_path": MODEL},
        }
    )
    rates = []
    for _ in range(3):
        app = BertLabeling(config)
        tags = [line.rstrip("\n").split("\t")[1] for line in table.open(encoding="utf-8")]
        app.load_assets(None, lambda column, tags=tags: tags)
        begin = time.monotonic()
        rows = load_rows(app, str(table), True).encoded.row_count
        rates.append(rows / (time.monotonic() - begin))
    return max(rates)


def read_log(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """Returns the logged runs that were made with `settings`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["settings"] == settings]


def summary(records: list[dict[str, object]]) -> list[list[str]]:
    """Returns the rows of the table: mean and spread over seeds, and the distance from the peer."""
    by_system = {name: [record for record in records if record["system"] == name] for name in SYSTEMS.values()}
    scores = {name: mean_and_spread([100 * r["f1"][-1] for r in runs]) for name, runs in by_system.items() if runs}
    rows = []
    for system, (mean, spread) in scores.items():
        runs = by_system[system]
        epochs = " ".join(f"{100 * sum(v) / len(v):.1f}" for v in zip(*(r["f1"] for r in runs), strict=True))
        seconds = sum(record["process_s"] for record in runs) / len(runs)
        away = f"{mean - scores[PEER][0]:+.2f}" if PEER in scores else ""
        rows.append([system, f"{mean:.2f}", f"{spread:.2f}", str(len(runs)), epochs, f"{seconds:.0f}", away])
    return rows


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--convert", type=Path, nargs=2, metavar=("FILE", "TABLE"), help="only convert one file")
    parser.add_argument("--encoding", action="store_true", help="only measure how fast eng.train is encoded")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rows", type=int, default=None, help="use only the first sentences, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "conll.jsonl")
    options = parser.parse_args()
    if options.convert:
        convert(*options.convert)
        return
    if options.data is None:
        parser.error("--data is needed")
    settings = {"epochs": options.epochs, "rows": options.rows, "cores": options.cores}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        train = convert(options.data / "eng.train", Path(folder) / "train.tsv", options.rows)
        dev = convert(options.data / "eng.testa", Path(folder) / "testa.tsv", options.rows)
        if options.encoding:
            print(f"{encoding_speed(train):,.0f} rows/s")
            return
        # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
        for seed in range(1, options.seeds + 1):
            for system in (SYSTEMS[name] for name in options.systems):
                done = read_log(options.log, settings)
                if any(record["system"] == system and record["seed"] == seed for record in done):
                    continue
                found = run(system, seed, train, dev, options)
                record = {"system": system, "seed": seed, "settings": settings, "versions": versions(), **found}
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                print(f"{system}, seed {seed}: {found['f1']}", flush=True)
    header = ["system", "entity F1 %", "spread", "seeds", "after each epoch", "s per run", "from peer"]
    print_table(header, summary(read_log(options.log, settings)))


if __name__ == "__main__":
    main()
