"""Text to text: words copied or reversed, sentences classified by writing, and what keeping keys and values is worth.

    python benchmarks/text_generation_results.py copy [--seeds 1 2 3] [--rows 20000] [--epochs 20]
    python benchmarks/text_generation_results.py sst2 --data DIR [--model NAME] [--seeds 1 2 3] [--rows N] [--epochs 10]
    python benchmarks/text_generation_results.py cache [--tokens 64] [--rows 8] [--repeats 5]

`copy`: rows as `examples/text_generation/make_texts.py` draws them, 1,000 others to test, the small network there from
random weights; the share of texts that are right word by word, after the last step.
`sst2`: SST-2 as text (Raffel et al. 2020, appendix D.16): `sst2 sentence: ...` is to become `positive` or `negative`;
the share of dev.tsv that is right after the last step, beside the share of its more frequent class. Texts that are
neither are wrong. DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1). Without a model it is a small T5 from
random weights, with 4,000 pieces trained on the sentences of train.tsv.
`cache`: seconds that a network of the size of T5-small, random weights, needs for texts of so many pieces, greedily:
as it is, and keeping nothing but the encoder's states, so that keys, values and all places of the decoder are computed
again for every piece. Both take turns; the texts must be equal. The end is left out of the choice, so that every text
has all pieces. Processor time is less disturbed by other programs than the clock. Needs no PyTorch and no data.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sides import mean_and_spread, print_table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = f"{ROOT}/appzoo/text_generation/configs/smoke.yaml"
ANSWERS = ("negative", "positive")
# Of the T5 that starts from random weights.
SIZES = ["--layers=2", "--hidden=128", "--heads=4", "--intermediate=256"]
# T5-small: Raffel et al. 2020, section 2.3 and the published configuration.
SMALL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}


def copy(options: argparse.Namespace) -> None:
    """Trains by the command line and prints the metrics of every seed."""
    path = ROOT / "examples" / "text_generation" / "make_texts.py"
    spec = importlib.util.spec_from_file_location("make_texts", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, rows, seed in (("train", options.rows, 11), ("dev", 1000, 12)):
            lines = ["\t".join(row) + "\n" for row in made.rows(rows, seed)]
            Path(folder, f"{name}.tsv").write_text("".join(lines))
        for seed in options.seeds:
            found.append(trained(folder, seed, options.epochs))
    mean, spread = mean_and_spread(found)
    print(
        f"exact match {mean:.4f} ± {spread:.4f}, {len(found)} seeds, {options.rows * options.epochs // 64} steps of 64"
    )


def sst2(options: argparse.Namespace) -> None:
    """Trains on sentences whose class is written, and prints the metrics of every seed."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("train", "dev"):
            lines = Path(options.data, f"{name}.tsv").read_text(encoding="utf-8").splitlines()
            if name == "train" and options.rows is not None:
                lines = random.Random(0).sample(lines, options.rows)
            texts, labels = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
            rows = [f"{text}\t{ANSWERS[int(label)]}\n" for text, label in zip(texts, labels, strict=True)]
            Path(folder, f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
            if name == "train":
                seen = "\n".join((*texts, *(f"sst2 sentence: {answer}" for answer in ANSWERS * 100)))
                Path(folder, "seen.txt").write_text(f"{seen}\n", encoding="utf-8")
        most = max(labels.count(label) for label in set(labels)) / len(labels)
        model, settings = options.model, ["model.target_length=8", "data.sequence_length=96"]
        if model is None:
            model = f"{folder}/t5"
            command(["zoo", "new", model, "--type=t5", f"--texts={folder}/seen.txt", "--vocabSize=4000", *SIZES])
        settings += ["model.prefix=sst2 sentence: ", f"model.pretrain_model_name_or_path={model}"]
        settings += [f"model.from_scratch={str(options.model is None).lower()}", f"train.learning_rate={options.rate}"]
        for seed in options.seeds:
            found.append(trained(folder, seed, options.epochs, settings))
    mean, spread = mean_and_spread(found)
    print(
        f"{len(labels)} rows of dev.tsv: {mean:.4f} ± {spread:.4f} right, {len(found)} seeds; "
        f"the more frequent class has {most:.4f}"
    )


def trained(folder: str, seed: int, epochs: int, settings: Sequence[str] = ()) -> float:
    """Returns the exact match on dev.tsv of a folder after a training on its train.tsv, and prints all metrics."""
    settings = [f"runtime.seed={seed}", "train.eval_every_steps=1000000", *settings]
    words = ["train", f"--config={CONFIG}", f"--checkpointDir={folder}/{seed}", f"--numEpochs={epochs}"]
    words += [f"--inputTable={folder}/train.tsv,{folder}/dev.tsv", *(f"--set={setting}" for setting in settings)]
    begin = time.perf_counter()
    metrics = json.loads(command(words).splitlines()[-1])["metrics"]
    print(f"seed {seed}: {json.dumps(metrics)}, {time.perf_counter() - begin:.0f} s", flush=True)
    return metrics["exact_match"]


def command(words: Sequence[str]) -> str:
    """Runs a command line of the program in a process of its own and returns what it prints."""
    code = f"import sys; from appzoo.cli.main import main; sys.exit(main({list(words)!r}))"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def cache(options: argparse.Namespace) -> None:
    """Prints seconds of both ways and their ratio."""
    import tensorflow as tf

    from easytransfer.text.decoding import Decoding, written
    from modelzoo.t5.backbone import T5Backbone
    from modelzoo.t5.config import T5Config

    network, how = T5Backbone(T5Config.from_dict(SMALL)), Decoding(options.tokens, 0, end=-1)
    ids = np.random.default_rng(0).integers(2, 32000, (options.rows, 32)).astype(np.int32)
    inputs = {"input_ids": tf.constant(ids), "input_mask": tf.ones_like(ids)}

    @tf.function
    def kept() -> tf.Tensor:
        return written(*network.writer(inputs), options.rows, how)

    @tf.function
    def again() -> tf.Tensor:
        states, mask = network.encoded(inputs), inputs["input_mask"]
        words, output = network._table(), network._output_table()

        def next_logits(last: tf.Tensor, place: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, Any]:
            before = tf.concat([before, last[:, None]], 1)
            memory = network.decoder.memory(states)
            decoded = network.decoder(tf.gather(words, before), memory=memory, memory_mask=mask)
            return network._logits(decoded[:, -1], output), before

        return written(next_logits, tf.zeros([options.rows, 0], tf.int32), options.rows, how)

    sides: dict[str, Any] = {"keys and values kept": kept, "computed again": again}
    texts = {name: call().numpy() for name, call in sides.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, call in sides.items():
            begin = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    middle = {name: np.median(values, axis=0) for name, values in seconds.items()}
    header = ["way", "seconds", "of the processors"]
    print_table(header, [[name, *(f"{part:.3f}" for part in value)] for name, value in middle.items()])
    ratio, processors = middle["computed again"] / middle["keys and values kept"]
    same = np.mean([np.array_equal(*rows) for rows in zip(*texts.values(), strict=True)])
    print(
        f"{options.tokens} pieces, {options.rows} texts: {ratio:.1f} times as fast, {processors:.1f} times less "
        f"processor time; {same:.0%} of the texts are equal"
    )


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one, two, three = (parts.add_parser(name) for name in ("copy", "cache", "sst2"))
    one.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    one.add_argument("--rows", type=int, default=20_000)
    one.add_argument("--epochs", type=int, default=20)
    two.add_argument("--tokens", type=int, default=64)
    two.add_argument("--rows", type=int, default=8)
    two.add_argument("--repeats", type=int, default=5)
    three.add_argument("--data", type=Path, required=True)
    three.add_argument("--model", help="a T5 that is here; else a small one from random weights")
    three.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    three.add_argument("--rows", type=int, default=None, help="drawn from train.tsv; all if left out")
    three.add_argument("--epochs", type=int, default=10)
    three.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    options = parser.parse_args()
    {"copy": copy, "cache": cache, "sst2": sst2}[options.part](options)


if __name__ == "__main__":
    main()
