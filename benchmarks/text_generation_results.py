"""Text to text: words copied or reversed by a small network, and what keeping keys and values of a text is worth.

    python benchmarks/text_generation_results.py copy [--seeds 1 2 3] [--rows 20000] [--epochs 20]
    python benchmarks/text_generation_results.py cache [--tokens 64] [--rows 8] [--repeats 5]

`copy`: rows as `examples/text_generation/make_texts.py` draws them, 1,000 others to test, the small network there from
random weights; the share of texts that are right word by word, after the last step.
`cache`: seconds that a network of the size of T5-small, random weights, needs for texts of so many pieces, greedily:
as it is, and computing all places of the decoder again for every piece. Both take turns; the texts must be equal. The
end is left out of the choice, so that every text has all pieces. Needs no PyTorch and no data.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import mean_and_spread, print_table

ROOT = Path(__file__).resolve().parents[1]
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
            words = [
                *("train", f"--config={ROOT}/appzoo/text_generation/configs/smoke.yaml"),
                *(f"--checkpointDir={folder}/{seed}", f"--inputTable={folder}/train.tsv,{folder}/dev.tsv"),
                *(
                    f"--numEpochs={options.epochs}",
                    f"--set=runtime.seed={seed}",
                    "--set=train.eval_every_steps=1000000",
                ),
            ]
            code = f"import sys; from appzoo.cli.main import main; sys.exit(main({words!r}))"
            begin = time.perf_counter()
            result = subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
            )
            metrics = json.loads(result.stdout.splitlines()[-1])["metrics"]
            found.append(metrics["exact_match"])
            print(f"seed {seed}: {json.dumps(metrics)}, {time.perf_counter() - begin:.0f} s", flush=True)
    mean, spread = mean_and_spread(found)
    print(
        f"exact match {mean:.4f} ± {spread:.4f}, {len(found)} seeds, {options.rows * options.epochs // 64} steps of 64"
    )


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
        memory = network.decoder.memory(states)

        def next_logits(last: tf.Tensor, place: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, Any]:
            before = tf.concat([before, last[:, None]], 1)
            decoded = network.decoder(tf.gather(network.shared, before), memory=memory, memory_mask=mask)
            return network._logits(decoded[:, -1]), before

        return written(next_logits, tf.zeros([options.rows, 0], tf.int32), options.rows, how)

    sides: dict[str, Any] = {"keys and values kept": kept, "computed again": again}
    texts = {name: call().numpy() for name, call in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, call in sides.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    middle = {name: float(np.median(values)) for name, values in seconds.items()}
    print_table(["way", "seconds"], [[name, f"{value:.3f}"] for name, value in middle.items()])
    ratio = middle["computed again"] / middle["keys and values kept"]
    same = np.mean([np.array_equal(*rows) for rows in zip(*texts.values(), strict=True)])
    print(
        f"{options.tokens} pieces, {options.rows} texts: {ratio:.1f} times as fast; {same:.0%} of the texts are equal"
    )


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one, two = parts.add_parser("copy"), parts.add_parser("cache")
    one.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    one.add_argument("--rows", type=int, default=20_000)
    one.add_argument("--epochs", type=int, default=20)
    two.add_argument("--tokens", type=int, default=64)
    two.add_argument("--rows", type=int, default=8)
    two.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    {"copy": copy, "cache": cache}[options.part](options)


if __name__ == "__main__":
    main()
