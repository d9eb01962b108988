"""Makes the sample tables, and the folder with tokenizer and sizes of a small network: words copied or reversed.

python examples/text_generation/make_texts.py
"""

import json
import random
from pathlib import Path

from modelzoo.t5.tiny import trained_pieces

FOLDER = Path(__file__).parent
WORDS = "red green blue black white small large old new round flat warm cold left right".split()
SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
POSITIONS = {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 20}


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Returns what is asked and the answer."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        words = draw.sample(WORDS, draw.randint(2, 5))
        task = draw.choice(["copy", "reverse"])
        found.append((f"{task}: {' '.join(words)}", " ".join(words if task == "copy" else words[::-1])))
    return found


def main() -> None:
    """Writes everything anew; the same files every time."""
    for name, count, seed in (("train", 2000, 1), ("dev", 200, 2)):
        lines = ["\t".join(row) for row in rows(count, seed)]
        (FOLDER / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [f"{task}: {' '.join(WORDS)}" for task in ("copy", "reverse")]
    model = trained_pieces(texts, 90, model_type="bpe", normalization_rule_name="identity", character_coverage=1.0)
    network = FOLDER / "tiny-t5"
    network.mkdir(exist_ok=True)
    (network / "spiece.model").write_bytes(model)
    config = {"model_type": "t5", "vocab_size": 96, **SIZES, **POSITIONS}
    (network / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
