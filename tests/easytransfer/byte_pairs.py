"""Byte-level BPE for tests, trained on the corpus as RoBERTa's was, and one whose merges come in any order."""

from __future__ import annotations

import json
import random
from functools import lru_cache

from multilingual_corpus import SENTENCES, corpus
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from easytransfer.text.bpe_model import SPECIAL_TOKENS, BpeFiles

# In the order of RoBERTa's ids; its mask is the last one.
ROLES_IN_ORDER = ("<s>", "<pad>", "</s>", "<unk>")


@lru_cache(maxsize=2)
def trained_bpe(size: int = 1500, add_prefix_space: bool = False) -> BpeFiles:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(ROLES_IN_ORDER),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES * 4, *corpus()[::4]], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    return BpeFiles([*vocab, "<mask>"], merges, add_prefix_space, SPECIAL_TOKENS)


def shuffled_bpe(size: int = 1500) -> BpeFiles:
    """Merges of which some are older than what they are made of: equal pairs may then not be merged at once."""
    files = trained_bpe(size)
    merges = list(files.merges)
    random.Random(5).shuffle(merges)
    return BpeFiles(files.vocab, merges, files.add_prefix_space, files.special)
