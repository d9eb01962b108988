"""Words of the small vocabularies that `zoo make-tiny` makes, and such a vocabulary for WordPiece."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from easytransfer.text.vocabulary import SPECIAL_TOKENS, check_vocabulary, read_vocab_file

WORDS = """
the a an and or but if of to in on at by for from with without as is are was were be been being am do does did done have
has had not no nor yes i you he she it we they me him her us them my your his its our their this that these those who
what when where why how which there here all any some many much more most less few each every other another same own
can could will would shall should may might must go goes went gone come came get got give gave take took make made see
saw seen know knew think thought say said tell told find found want need like love hate feel felt look seem try use work
play read write run walk eat drink buy sell open close start stop good bad great poor best worst better worse new old
big small long short high low hot cold fast slow easy hard happy sad funny boring beautiful ugly nice terrible awful
excellent perfect wonderful interesting dull smart stupid right wrong true false time day week month year night morning
man woman child people friend family home house city country world school book film movie story music song food water
money price product service phone computer word text model data test one two three four five six seven eight nine ten
first last next before after over under up down out off again very too so just only also even still never always often
""".split()
SUFFIXES = "s ed ing er est ly ness ment tion able ful less y al en ity".split()
CJK = (
    "的一是不了在人有我他这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对"
    "小多然于心学么之都好看起发当没成只如事把还用第样道想作种开美乎无情己面最女但现前些所同日手又行意动方"
    "期它头经长儿回位分爱老因很给名法间斯知世什两次使身者被高已亲其进此话常与活正感差评坏棒"
)


def tiny_vocabulary() -> list[str]:
    """Returns special tokens, letters, digits, punctuation, common Chinese characters and English words."""
    letters, digits = string.ascii_lowercase, string.digits
    tokens = [*SPECIAL_TOKENS, *string.punctuation, *digits, *letters, *CJK, *WORDS]
    tokens += [f"##{piece}" for piece in (*digits, *letters, *SUFFIXES)]
    return list(dict.fromkeys(tokens))


def chosen_tokens(vocab: Sequence[str] | str | Path | None) -> list[str]:
    """Returns the tokens of a WordPiece vocabulary.

    Args:
        vocab: Tokens, or a file with one per line; `tiny_vocabulary()` when None.

    Raises:
        ModelError: A special token is missing.
    """
    tokens = tiny_vocabulary() if vocab is None else list(vocab)
    if isinstance(vocab, str | Path):
        tokens = read_vocab_file(vocab)
    check_vocabulary(tokens, vocab if isinstance(vocab, str | Path) else "the vocabulary")
    return tokens
