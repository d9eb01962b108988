"""Going on with pre-training on the texts of a domain, then fine-tuning there, beside fine-tuning alone.

    python benchmarks/domain_pretraining.py --data DIR --log results/domain_pretraining.jsonl
    python benchmarks/domain_pretraining.py --log results/domain_pretraining.jsonl --table

DIR has reviews of several domains: `<domain>.task.train`, `.test` (label, TAB, text), `.unlabel` (text). MiniLM guesses
hidden words of the unlabelled texts, a tenth of which is held out; its encoder is then fine-tuned on labelled rows.
The other side is fine-tuned without it: same rows, epochs, rates and seeds; nothing is chosen by results, accuracy
is that on the test rows with the weights of the last step. Everything is done by commands of the product. Finished runs
are in the log and not repeated, so that the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sides import MODEL, mean_and_spread, print_table

DOMAINS = ("apparel", "MR", "kitchen_housewares")
ALONE, AFTER = "fine-tuned", "pre-trained further, fine-tuned"
LENGTH = 128
PRETRAINING = {"numEpochs": 5, "batchSize": 32, "learningRate": 1e-4, "set": ("train.eval_every_steps=80",)}
FINE_TUNING = {"numEpochs": 3, "batchSize": 32, "learningRate": 5e-5, "set": ("train.eval_every_steps=1000000",)}


def write_tables(data: Path, domain: str, folder: Path) -> None:
    """Writes a domain for the product: rows as `train.tsv` and `test.tsv`, texts as `more.text` and `held.text`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        rows = [line.split("\t", 1) for line in lines_of(data / f"{domain}.task.{part}") if line.strip()]
        (folder / f"{part}.tsv").write_text("".join(f"{' '.join(text.split())}\t{label}\n" for label, text in rows))
    texts = [line for line in lines_of(data / f"{domain}.task.unlabel") if line.strip()]
    for name, some in (("more", [t for i, t in enumerate(texts) if i % 10]), ("held", texts[::10])):
        (folder / f"{name}.text").write_text("\n\n".join(some) + "\n", encoding="utf-8")


def lines_of(path: Path) -> list[str]:
    """Returns the lines of a file in UTF-8 or, where it is none, in Windows-1252."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace").split("\n")


def call(mode: str, *, set: tuple[str, ...] = (), **flags: object) -> dict:
    """Runs a command of the product and returns the line it prints."""
    words = [mode, *(f"--{name}={value}" for name, value in flags.items()), *(f"--set={each}" for each in set)]
    code = f"import sys; from appzoo.cli.main import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pretrained(folder: Path, seed: int) -> tuple[Path, list[float]]:
    """Returns the folder of an encoder that has seen the texts of a domain, and its perplexities by evaluation."""
    run, encoder = folder / f"further-{seed}", folder / f"encoder-{seed}"
    sets = PRETRAINING["set"] + (f"model.pretrain_model_name_or_path={MODEL}", f"runtime.seed={seed}")
    call(
        "train", modelName="text_pretrain", checkpointDir=run, inputTable=f"{folder}/more.text,{folder}/held.text",
        sequenceLength=LENGTH, **{**PRETRAINING, "set": sets},
    )  # fmt: skip
    call("export", checkpointPath=run, exportType="convert_bert_to_hf", exportDirBase=encoder)
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return encoder, [round(record["perplexity"], 3) for record in records if "perplexity" in record]


def fine_tuned(folder: Path, seed: int, encoder: Path | str, name: str) -> float:
    """Returns the accuracy on the test rows."""
    sets = FINE_TUNING["set"] + (f"model.pretrain_model_name_or_path={encoder}", f"runtime.seed={seed}")
    result = call(
        "train", modelName="text_classify_bert", checkpointDir=folder / f"{name}-{seed}",
        inputTable=f"{folder}/train.tsv,{folder}/test.tsv", inputSchema="text:str:1,label:str:1", firstSequence="text",
        labelName="label", labelEnumerateValues="0,1", sequenceLength=LENGTH, **{**FINE_TUNING, "set": sets},
    )  # fmt: skip
    return float(result["metrics"]["accuracy"])


def main() -> None:
    """Runs what the log does not have, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the reviews")
    parser.add_argument("--log", type=Path, required=True, help="one JSON line a run")
    parser.add_argument("--domains", nargs="*", default=list(DOMAINS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="print the table of the log and stop")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    if not options.table:
        done += run(options, {(line["domain"], line["seed"], line["side"]) for line in done})
    rows = []
    for domain in options.domains:
        for side in (ALONE, AFTER):
            found = [line for line in done if (line["domain"], line["side"]) == (domain, side)]
            if found:
                mean, spread = mean_and_spread([100 * line["accuracy"] for line in found])
                fell = [line["perplexity"] for line in found if "perplexity" in line]
                rows.append(
                    (domain, side, f"{mean:.1f} ± {spread:.1f}", "; ".join(f"{each[0]} -> {each[-1]}" for each in fell))
                )
    print_table(("domain", "side", "accuracy, %", "perplexity, first -> last evaluation, by seed"), rows)


def run(options: argparse.Namespace, have: set[tuple[str, int, str]]) -> list[dict]:
    """Trains what is missing; appends to the log."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            for domain in options.domains:
                folder = Path(temporary, domain)
                write_tables(options.data, domain, folder)
                for side in (ALONE, AFTER):
                    if (domain, seed, side) in have:
                        continue
                    begin, line = time.monotonic(), {"domain": domain, "seed": seed, "side": side}
                    encoder: Path | str = MODEL
                    if side == AFTER:
                        encoder, line["perplexity"] = pretrained(folder, seed)
                    line["accuracy"] = fine_tuned(folder, seed, encoder, "after" if side == AFTER else "alone")
                    line["seconds"] = round(time.monotonic() - begin)
                    with open(options.log, "a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(json.dumps(line), flush=True)
                    found.append(line)
    return found


if __name__ == "__main__":
    main()
