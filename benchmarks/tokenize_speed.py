"""Speed of the tokenizers: the fast path for training and prediction, and the one inside the graph for serving.

    python benchmarks/tokenize_speed.py --data FILE --model FOLDER [--rows 100000] [--cores 2]

FILE holds one text per line, or a text before the first tab; its lines are repeated up to `--rows`. FOLDER holds
`vocab.txt`. Printed beside ours: `tokenizers` alone on the same rows (all rows in one batched call, then the ids
taken out), and, where it is installed, `transformers`' fast tokenizer. "first call" starts without remembered words.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path


def read_texts(path: Path, rows: int) -> list[str]:
    """Returns `rows` texts, the lines of the file in turn."""
    lines = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    return list(itertools.islice(itertools.cycle(lines), rows))


def report(name: str, rows: int, run: Callable[[], int]) -> None:
    """Runs once and prints rows and tokens per second; `run` returns the number of tokens."""
    start = time.perf_counter()
    tokens = run()
    seconds = time.perf_counter() - start
    print(f"{name:<44} {rows:>8} {seconds:>8.2f} {rows / seconds:>12,.0f} {tokens / seconds:>14,.0f}", flush=True)


def fast_path(model: Path, texts: list[str], max_length: int) -> None:
    """Measures `WordPiece`, cold and warm, and `tokenizers` without it."""
    from easytransfer.text.wordpiece import WordPiece

    tokenizer, other = WordPiece.from_folder(model), WordPiece.from_folder(model)
    distinct = list(dict.fromkeys(texts))

    def encode(tokenizer: WordPiece, texts: list[str]) -> int:
        return len(tokenizer.encode(texts, max_length=max_length).input_ids.values)

    report("WordPiece.encode, distinct rows, first call", len(distinct), lambda: encode(other, distinct))
    report("WordPiece.encode, first call", len(texts), lambda: encode(tokenizer, texts))
    report("WordPiece.encode, second call", len(texts), lambda: encode(tokenizer, texts))
    plain = tokenizer._tokenizer
    report(
        "tokenizers encode_batch_fast",
        len(texts),
        lambda: sum(len(row.ids) + 2 for row in plain.encode_batch_fast(texts, add_special_tokens=False)),
    )
    try:
        from transformers import BertTokenizerFast
    except ImportError:
        return
    peer = BertTokenizerFast.from_pretrained(str(model))
    report(
        "transformers BertTokenizerFast",
        len(texts),
        lambda: sum(map(len, peer(texts, truncation=True, max_length=max_length)["input_ids"])),
    )


def graph_path(model: Path, texts: list[str], max_length: int, cores: int) -> None:
    """Measures `GraphWordPiece` as one traced function, for several batch sizes."""
    import tensorflow as tf

    from easytransfer.text.wordpiece import WordPiece

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    encoder = WordPiece.from_folder(model).in_graph(max_length)
    encode = tf.function(encoder, input_signature=[tf.TensorSpec([None], tf.string)])
    for size in (1, 32, 256, 2048):
        batches = [tf.constant(texts[at : at + size]) for at in range(0, min(len(texts), size * 1000), size)]
        encode(batches[0])
        rows = sum(map(len, batches))
        report(
            f"GraphWordPiece, batch {size}",
            rows,
            lambda batches=batches: sum(int(encode(batch)["input_mask"].numpy().sum()) for batch in batches),
        )


def main() -> None:
    """Measures both paths and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    # Both libraries size their thread pools when they are first used.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    os.environ["RAYON_NUM_THREADS"] = str(options.cores)
    texts = read_texts(options.data, options.rows)
    print(f"{'path':<44} {'rows':>8} {'seconds':>8} {'rows/s':>12} {'tokens/s':>14}")
    fast_path(options.model, texts, options.max_length)
    graph_path(options.model, texts, options.max_length, options.cores)


if __name__ == "__main__":
    main()
