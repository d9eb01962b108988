"""Makes the sample texts, and folders with vocabulary and sizes of small networks: who has what, told twice.

python examples/text_pretrain/make_texts.py
"""

import json
import random
from pathlib import Path

from modelzoo.t5.tiny import trained_pieces

FOLDER = Path(__file__).parent
NAMES = "anna ben clara david emma felix greta hugo".split()
COLOURS = "red green blue black white brown".split()
ANIMALS = "cat dog horse bird fish goat".split()
PLACES = "town forest valley harbour garden desert".split()
SENTENCES = (
    "{name} has a {colour} {animal} .",
    "the {animal} of {name} is {colour} .",
    "{name} lives in the {place} .",
    "in the {place} there is a {colour} {animal} .",
    "the {colour} {animal} sleeps in the {place} .",
    "nobody in the {place} but {name} has a {animal} .",
)
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
T5_SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
PIECES = 150
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def documents(count: int, seed: int) -> list[list[str]]:
    """Returns documents as lists of sentences; each is about one person, animal and place."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        facts = {"name": draw.choice(NAMES), "colour": draw.choice(COLOURS)}
        facts |= {"animal": draw.choice(ANIMALS), "place": draw.choice(PLACES)}
        chosen = draw.sample(SENTENCES, draw.randint(3, len(SENTENCES)))
        found.append([sentence.format(**facts) for sentence in chosen])
    return found


def main() -> None:
    """Writes everything anew; the same files every time."""
    for name, count, seed in (("train", 800, 1), ("dev", 100, 2)):
        texts = ["\n".join(sentences) for sentences in documents(count, seed)]
        (FOLDER / f"{name}.text").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    words = dict.fromkeys(word for text in SENTENCES for word in text.split() if "{" not in word)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *NAMES, *COLOURS, *ANIMALS, *PLACES]
    network = FOLDER / "tiny-bert"
    network.mkdir(exist_ok=True)
    (network / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = {"model_type": "bert", "vocab_size": len(vocabulary), **SIZES, **DROPOUT, "max_position_embeddings": 64}
    (network / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    lines = (FOLDER / "train.text").read_text(encoding="utf-8").split("\n")
    model = trained_pieces(
        filter(None, lines), PIECES, model_type="bpe", normalization_rule_name="identity", character_coverage=1.0
    )
    network = FOLDER / "tiny-t5"
    network.mkdir(exist_ok=True)
    (network / "spiece.model").write_bytes(model)
    # Behind the pieces stand the sentinels.
    config = {"model_type": "t5", "vocab_size": PIECES + 100, **T5_SIZES}
    (network / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
