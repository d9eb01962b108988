"""Whole words where the tokenizer knows none: lists of words, blanks, n-grams; against plain loops and counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from appzoo.text_pretrain.words import LONGEST, WordList, inside_words, marks_of
from easytransfer.errors import ConfigError, DataError
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import TextDraws, WordHider
from easytransfer.text.wordpiece import WordPiece

CHARACTERS = "我们喜欢这个城市的人不知道明天去看书和电影很好质量北京大学生活"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, "new", "york", "##er", "##s", "is"]
WORDS = ["北京", "北京大学", "大学", "大学生", "学生", "生活", "知道", "我们", "喜欢", "电影", "质量", "new york"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPiece:
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    return WordPiece.from_folder(folder)


def row_of(tokenizer: WordPiece, text: str) -> np.ndarray:
    return tokenizer.encode([text], max_length=64).input_ids[0]


def groups_of(tokenizer: WordPiece, text: str, words: WordList) -> list[str]:
    """The row of a text in groups, as `WordHider` takes them."""
    ids = row_of(tokenizer, text)[None]
    special = np.isin(ids, list(tokenizer.special_ids.values()))
    starts = ~special & ~tokenizer.continues[ids]
    found = starts & words.boundaries(tf.constant(ids), tf.constant(starts), 64).numpy()
    places = np.flatnonzero(found[0]).tolist()
    pieces = [tokenizer.vocab[number] for number in ids[0]]
    ends = [*places, len(pieces) - 1][1:]
    return ["".join(pieces[a:b]).replace("##", "") for a, b in zip(places, ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        # 北京大学 is longer than 北京; the 生 behind it is no word any more, though 大学生 and 学生 are.
        ("北京大学生活", ["北京大学", "生活"]),
        ("北京大学生", ["北京大学", "生"]),
        ("去大学生活", ["去", "大学生", "活"]),
        ("我们不知道", ["我们", "不", "知道"]),
        # Words of several languages; what continues the last piece goes with it.
        ("New York is", ["newyork", "is"]),
        ("new yorkers", ["newyorkers"]),
        ("new new york", ["new", "newyork"]),
        ("", []),
    ],
)
def test_the_longest_word_at_every_place_from_left_to_right(tokenizer, text, groups):
    words = WordList(WORDS, tokenizer, "the test")
    assert groups_of(tokenizer, text, words) == groups


def test_words_are_those_of_a_plain_loop(tokenizer):
    """Random rows of few characters, so that words overlap in every way; special pieces and padding between them."""
    random = np.random.default_rng(1)
    characters = tokenizer.pieces(["北京大学生活"]).values
    texts = ["".join(tokenizer.vocab[n] for n in random.choice(characters, random.integers(2, 5))) for _ in range(30)]
    words = WordList(texts, tokenizer, "the test")
    rows = random.choice([*characters, tokenizer.sep_id, tokenizer.pad_id], (400, 37)).astype(np.int32)
    begins = ~np.isin(rows, [tokenizer.sep_id, tokenizer.pad_id])
    found = words.boundaries(tf.constant(rows), tf.constant(begins), 40).numpy()
    known = {tuple(tokenizer.pieces([word]).values.tolist()) for word in texts}
    for row, own in zip(rows.tolist(), found, strict=True):
        expected, at = np.zeros(37, bool), 0
        while at < 37:
            expected[at] = True
            at += next((n for n in range(4, 1, -1) if tuple(row[at : at + n]) in known), 1)
        np.testing.assert_array_equal(own, expected)


def test_words_that_say_nothing_are_left_out(tokenizer, tmp_path):
    path = tmp_path / "words.dict"
    path.write_text(f"我们 120 r\n我们\n\n好\n北龘\n{'大' * (LONGEST + 1)}\n质量 4\n", encoding="utf-8")
    words = WordList.from_file(path, tokenizer)
    assert words.words == ["我们", "质量"]
    words.save(tmp_path)
    again = WordList.from_file(tmp_path / WordList.FILE, tokenizer)
    assert again.words == words.words and again.digest == words.digest
    path.write_text("好\nnew\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no word of 2 to 16 known pieces"):
        WordList.from_file(path, tokenizer)
    path.write_bytes("好的".encode("gbk"))
    with pytest.raises(DataError, match=r"words.dict:1: invalid UTF-8"):
        WordList.from_file(path, tokenizer)
    with pytest.raises(DataError, match="does not exist|cannot read"):
        WordList.from_file(tmp_path / "none", tokenizer)


TEXTS = ["我们 喜欢  这个城市", " new york's 北京", "", "  ", "人", "是\t好\u3000看"]


def test_pieces_between_blanks_are_one_word(tokenizer):
    ids, spans = tokenizer.pieces_with_offsets(TEXTS)
    marks = marks_of(TEXTS, spans)
    for row, text in enumerate(TEXTS):
        # By the words of Python: a piece is inside of a word if it is not the first of it.
        expected = [
            mark for word in text.split() for mark in [0, *[1] * (int(tokenizer.pieces([word]).lengths[0]) - 1)]
        ]
        assert marks[row].tolist() == expected, text
    graph = tokenizer.in_graph(32)
    of_graph = inside_words(tf.constant(TEXTS), graph.pieces_with_offsets(tf.constant(TEXTS))[1])
    np.testing.assert_array_equal(of_graph.values, marks.values)


def counted(tokenizer: WordPiece, text: str, **settings) -> tuple[dict[str, np.ndarray], np.ndarray]:
    ids = np.tile(row_of(tokenizer, text), (5000, 1))
    batch = {"input_ids": tf.constant(ids), "input_mask": tf.ones_like(ids)}
    if "inside" in settings:
        batch["inside_word"] = tf.constant(np.tile(settings.pop("inside"), (len(ids), 1)))
    hider = WordHider(tokenizer, **{"share": 0.15, "most": 20, "max_length": 64, **settings})
    found = hider.hide(batch, RowDraws(tf.constant([3, 4]), tf.constant(len(ids))))
    return {name: value.numpy() for name, value in found.items()}, ids


def places_of(found: dict[str, np.ndarray], row: int) -> set[int]:
    return set(found["hidden_positions"][row][found["hidden_weights"][row] > 0].tolist())


def test_chinese_words_are_hidden_as_a_whole_with_exact_shares(tokenizer):
    """5,000 rows of 42 pieces: 6 are to be hidden, 30,000 in all; of words of 1 to 4 pieces at most 3 are left."""
    text = "我们喜欢北京大学的生活不知道" * 2 + "我们看电影很好这个城市"
    words = WordList(WORDS, tokenizer, "the test")
    found, ids = counted(tokenizer, text, words=words, share=6 / 41)
    assert ids.shape[1] == 41
    groups = groups_of(tokenizer, text, words)
    ends = 1 + np.cumsum([len(group) for group in groups])
    spans = [set(range(end - len(group), end)) for group, end in zip(groups, ends, strict=True)]
    counts = found["hidden_weights"].sum(axis=1)
    assert counts.max() == 6 and counts.min() >= 3
    chosen = np.zeros(len(spans))
    for row in range(2000):
        places = places_of(found, row)
        inside = [bool(places & span) for span in spans]
        assert all(span <= places for span, hit in zip(spans, inside, strict=True) if hit)
        chosen += inside
    # Every word has its turn; of pieces that do not fit together, the shorter word takes the room that is left.
    assert (chosen > 0).all()
    row, column = np.nonzero(found["hidden_weights"])
    at = found["hidden_positions"][row, column]
    shown = found["input_ids"][row, at]
    assert (shown == tokenizer.mask_id).mean() == pytest.approx(0.8, abs=0.008)
    assert (found["hidden_ids"][row, column] == ids[row, at]).all()
    plain, _ = counted(tokenizer, text, share=6 / 41)
    assert (plain["hidden_weights"].sum(axis=1) == 6).all()


def test_words_by_blanks_are_hidden_as_a_whole(tokenizer):
    text = "我们 喜欢 北京 大学 的 生活 不 知道 这个 城市"
    spans = tokenizer.pieces_with_offsets([text])[1]
    inside = np.pad(marks_of([text], spans).values, 1)
    found, _ = counted(tokenizer, text, inside=inside, share=0.2)
    starts = np.flatnonzero(inside == 0)[1:-1]
    for row in range(1000):
        places = places_of(found, row)
        assert len(places) in (3, 4)
        for start in starts:
            span = {start, start + 1} if inside[start + 1] else {start}
            assert not places & span or span <= places


def test_ngrams_have_exact_shares():
    """Lengths of n-grams up to 3 over 120,000 words: 6/11, 3/11 and 2/11, in groups that follow each other."""
    from easytransfer.text import hiding

    class Rows:
        pad_id, continues, special_ids = 0, np.zeros(9, bool), {"pad": 0}
        mask_id = 1

        def __len__(self) -> int:
            return 9

    hider = hiding.WordHider(Rows(), share=0.15, most=20, max_length=60, max_ngram=3)
    ids = tf.fill([2000, 60], 5)
    batch = {"input_ids": ids, "input_mask": tf.ones_like(ids)}
    group = hider._groups(batch, tf.ones_like(ids, tf.bool), RowDraws(tf.constant([1, 2]), tf.constant(2000))).numpy()
    sizes = np.concatenate([np.bincount(row)[:-1] for row in group])
    assert np.bincount(sizes)[0] == 0 and sizes.sum() > 110_000
    shares = np.bincount(sizes)[1:] / len(sizes)
    np.testing.assert_allclose(shares, np.array([6, 3, 2]) / 11, atol=0.006)


def test_an_evaluation_hides_the_same_words_in_memory_and_on_request(tokenizer, tmp_path):
    """The arrays of raw texts in a graph are those of the table, and so is what is hidden of them."""
    from appzoo.encoder import Encoder
    from appzoo.text_pretrain.config import TextPretrainConfig
    from appzoo.text_pretrain.inputs import Passages

    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = {"model_type": "bert", "vocab_size": len(VOCABULARY), "max_position_embeddings": 64, **sizes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    job = TextPretrainConfig(
        model_name="text_pretrain", data={"sequence_length": 24},
        model={"pretrain_model_name_or_path": str(folder), "words_by_blanks": True},
    )  # fmt: skip
    passages = Passages(Encoder(job, None), "text", True)
    first, second = TEXTS[:2] + ["人 们"] * 4, TEXTS[1:] + ["我们 喜欢 这个 城市 的 人"]
    marks, rows = passages.marks(first, second)["inside_word"], tokenizer.encode(first, second, 24).input_ids
    passages.serving_module(folder)
    found = passages.from_request({"text_a": tf.constant(first), "text_b": tf.constant(second)})
    width = found["input_ids"].shape[1]
    every = np.arange(len(first))
    np.testing.assert_array_equal(found["input_ids"], rows.padded(every, width, tokenizer.pad_id))
    np.testing.assert_array_equal(found["inside_word"], marks.padded(every, width))
    assert set(passages.specs()) == set(found) and marks.values.sum() > 10
    draws = TextDraws(found["input_ids"], found["input_mask"], 1)
    assert set(passages.hider.hide(found, draws)) > set(found)


def test_words_need_whole_words_and_a_training_goes_on_with_the_same(tiny_model, tmp_path):
    from appzoo.text_pretrain.app import TextPretrain
    from appzoo.text_pretrain.config import TextPretrainConfig

    for name, value in (("word_list", "words.txt"), ("words_by_blanks", True), ("max_ngram", 2)):
        with pytest.raises(ValidationError, match=f"model.{name} is about words"):
            TextPretrainConfig(model={"whole_word": False, name: value})

    def app_of(words: str) -> TextPretrain:
        path = tmp_path / "list.txt"
        path.write_text(words, encoding="utf-8")
        settings = {"pretrain_model_name_or_path": str(tiny_model), "word_list": str(path)}
        app = TextPretrain(TextPretrainConfig(model_name="text_pretrain", data={"sequence_length": 32}, model=settings))
        app.load_assets(None)
        return app

    first, other = app_of("我们\n大地\n"), app_of("我们\n时间\n")
    first.restore_state(app_of("我们\n大地\n").state())
    with pytest.raises(ConfigError, match="other words than when the training began"):
        other.restore_state(first.state())
    first.save_assets(tmp_path)
    assert WordList.FILE in first.exported_files
    (tmp_path / "list.txt").unlink()
    again = TextPretrain(first.config)
    again.load_assets(Path(tmp_path))
    assert again.passages.words.words == first.passages.words.words
