"""`ByteLevelBpe` against `transformers`, hand-worked splits and places, and itself inside a graph."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf
from byte_pairs import ROLES_IN_ORDER, shuffled_bpe, trained_bpe
from multilingual_corpus import SENTENCES, corpus, pairs
from tokenizers import Tokenizer

from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.text import word_runs
from easytransfer.text.bpe_model import BYTE_SYMBOLS, SPECIAL_TOKENS, BpeFiles
from easytransfer.text.byte_level_bpe import ByteLevelBpe
from easytransfer.text.byte_level_bpe_graph import _Merges
from easytransfer.text.masking import TokenMasker

FILES = {
    "plain": trained_bpe,
    "prefix": lambda: trained_bpe(add_prefix_space=True),
    "any order": shuffled_bpe,
}
KINDS = ["plain", pytest.param("prefix", marks=pytest.mark.slow), pytest.param("any order", marks=pytest.mark.slow)]


def apostrophes(count=2000):
    """Lines of what the pattern of GPT-2 treats in its own way: endings behind apostrophes and white space."""
    source = random.Random(4)
    letters = ["'", "'", "s", "re", "ve", "ll", "d", "x", " ", "  ", "\n", "\t ", "\u3000", "1", "!", "é", "'S", "中"]
    return ["".join(source.choices(letters, k=source.randrange(1, 14))) for _ in range(count)]


def lines_of(step):
    return [*SENTENCES, *apostrophes(), *corpus()[len(SENTENCES) :: step]]


def peer_of(tokenizer, folder):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(folder)
    return transformers.RobertaTokenizer.from_pretrained(str(folder))


def rows_of(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_places_and_rows_equal_transformers_and_the_graph(kind, tmp_path):
    tokenizer = ByteLevelBpe(FILES[kind]())
    peer, lines = peer_of(tokenizer, tmp_path), lines_of(8 if kind == "plain" else 1)
    theirs = peer(lines, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    ids, spans = tokenizer.pieces_with_offsets(lines)
    assert rows_of(ids) == theirs["input_ids"] and not np.isin(ids.values, list(tokenizer.special_ids.values())).any()
    # Pieces of white space alone are places of nothing here.
    rows = [np.array(row, np.int32).reshape(-1, 2) for row in theirs["offset_mapping"]]
    for text, row in zip(lines, rows, strict=True):
        if kind == "prefix" and text[:1] == " " and len(row):
            # Where a space may have been added, transformers takes one that was there before for it.
            row[0, 0] = min(1, row[0, 1])
    places = np.concatenate(rows)
    filled = spans.values[:, 0] < spans.values[:, 1]
    np.testing.assert_array_equal(spans.values[filled], places[filled])
    assert filled.mean() > 0.9 and spans.values.min() >= 0
    graph = tf.function(tokenizer.in_graph().pieces_with_offsets, [tf.TensorSpec([None], tf.string)])
    found, places = graph(tf.constant(lines))
    np.testing.assert_array_equal(found.row_splits, ids.offsets)
    np.testing.assert_array_equal(found.values, ids.values)
    np.testing.assert_array_equal(places.values, spans.values)
    first, second = pairs(lines[::3])
    for texts, seconds, length in ((first, second, 64), (first[-300:], second[-300:], 9), (first[-300:], None, 4)):
        options = {"split_special_tokens": True, "return_token_type_ids": True}
        expected = peer(texts, seconds, truncation=True, max_length=length, **options)
        tokens = tokenizer.encode(texts, seconds, max_length=length)
        assert rows_of(tokens.input_ids) == expected["input_ids"]
        assert rows_of(tokens.segment_ids) == expected["token_type_ids"]
        assert tokens.truncated.tolist() == [bool(encoding.overflowing) for encoding in expected.encodings]


def test_words_given_apart_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = ByteLevelBpe(trained_bpe())
    tokenizer.save(tmp_path)
    peer = transformers.RobertaTokenizer.from_pretrained(str(tmp_path), add_prefix_space=True)
    words = [word for line in SENTENCES for word in line.split(" ") if word]
    expected = peer([[word] for word in words], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    special = {token for token in SPECIAL_TOKENS if token in words}
    ids = rows_of(tokenizer.word_pieces(words))
    assert [a for a, word in zip(ids, words, strict=True) if word not in special] == [
        b for b, word in zip(expected, words, strict=True) if word not in special
    ]
    graph = tokenizer.in_graph().word_pieces(tf.constant(words))
    np.testing.assert_array_equal(graph.values, np.concatenate(ids))
    # A line of words is the words.
    assert (
        tokenizer.word_pieces("a good film".split(" ")).values.tolist()
        == tokenizer.pieces([" a good film"])[0].tolist()
    )


def test_an_exported_graph_gives_the_ids_of_training(tmp_path):
    tokenizer = ByteLevelBpe(trained_bpe())
    graph = tokenizer.in_graph(16)
    text, pair = tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.string, "pair")
    tf.saved_model.save(
        graph, str(tmp_path / "1"), {"pair": tf.function(lambda text, pair: graph(text, pair), [text, pair])}
    )
    first, second = pairs([*SENTENCES, *apostrophes(100), *corpus()[::40]])
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["pair"]
    loaded = signature(text=tf.constant(first), pair=tf.constant(second))
    tokens = tokenizer.encode(first, second, max_length=16)
    rows, width = np.arange(len(first)), int(tokens.input_ids.lengths.max())
    np.testing.assert_array_equal(loaded["input_ids"], tokens.input_ids.padded(rows, width, tokenizer.pad_id))
    np.testing.assert_array_equal(loaded["input_mask"], np.arange(width) < tokens.input_ids.lengths[:, None])
    assert not loaded["segment_ids"].numpy().any() and tokenizer.pad_id == 1
    empty = tf.constant([], tf.string)
    assert signature(text=empty, pair=empty)["input_ids"].shape == (0, 1)
    nothing = signature(text=tf.constant([""]), pair=tf.constant([""]))["input_ids"]
    assert nothing.numpy().tolist() == [[0, 2, 2, 2]]
    # What is no UTF-8 is what it decodes to.
    broken = signature(text=tf.constant([b"a\xff b"]), pair=tf.constant([""]))["input_ids"]
    assert broken.numpy().tolist() == rows_of(tokenizer.encode(["a\ufffd b"], [""]).input_ids)


def test_texts_are_split_as_the_pattern_says():
    """By bytes alone, so that words show in what a merge of everything inside them makes of a text."""
    symbols = dict(enumerate(BYTE_SYMBOLS))
    vocab = [*ROLES_IN_ORDER, *symbols.values(), "<mask>"]
    bare = ByteLevelBpe(BpeFiles(vocab, []))
    assert bare.tokenize("é a") == ["Ã", "©", "Ġ", "a"] and bare.offsets("é a")[1] == ("©", 0, 1)
    # 'll is an ending, so that l and l never meet what is behind; of "  " the second space belongs to the word.
    files = BpeFiles([*vocab, "Ġb", "ĠĠ", "lla", "ll"], [("l", "l"), ("ll", "a"), ("Ġ", "Ġ"), ("Ġ", "b")])
    tokenizer = ByteLevelBpe(files)
    text = "x'lla lla  b'    b\n'"
    wanted = ["x", "'", "ll", "a", "Ġ", "lla", "Ġ", "Ġb", "'", "ĠĠ", "Ġ", "Ġb", "Ċ", "'"]
    assert tokenizer.tokenize(text) == wanted
    found = tokenizer.in_graph().pieces(tf.constant([text]))
    assert [tokenizer.vocab[number] for number in found.values.numpy()] == wanted
    assert tokenizer.decode(tokenizer.encode([text]).input_ids[0]) == text


def test_places_in_the_text_that_was_given():
    for prefix in (False, True):
        tokenizer = ByteLevelBpe(trained_bpe(add_prefix_space=prefix))
        text = "Straße \u3000👍x\n (y)"
        found = tokenizer.offsets(text)
        assert {(a, b) for _, a, b in found if "👍" in text[a:b]} == {(8, 9)}
        assert "".join(dict.fromkeys(text[a:b] for _, a, b in found if a < b)).replace(" ", "") == "Straße👍x(y)"
        assert [text[a:b] for _, a, b in found if not text[a:b].strip()] == [""] * sum(a == b for _, a, b in found)
        assert tokenizer.offsets("") == [] and tokenizer.offsets(" ") == [("Ġ", 1, 1)]


def test_rows_of_none_and_what_is_no_text():
    tokenizer = ByteLevelBpe(trained_bpe())
    ids, spans = tokenizer.pieces_with_offsets([])
    assert len(ids) == len(spans) == 0 and spans.values.shape == (0, 2) and len(tokenizer.encode([]).input_ids) == 0
    assert tokenizer.encode([""]).input_ids[0].tolist() == [0, 2]
    for wrong in ("\ud800", 3):
        with pytest.raises(DataError, match="not a text"):
            tokenizer.pieces(["a", wrong])
    with pytest.raises(ConfigError, match="no room"):
        tokenizer.in_graph(2)
    with pytest.raises(ConfigError, match="accepted: 5 or more"):
        tokenizer.encode(["a"], ["b"], max_length=4)
    assert tokenizer.decode(tokenizer.encode(["Hello (you) Ü"]).input_ids[0]) == "Hello (you) Ü"


def test_words_are_masked_as_a_whole():
    tokenizer = ByteLevelBpe(trained_bpe())
    tokens = tokenizer.encode(["hello wonderful unknown words here"] * 40)
    masked = TokenMasker(tokenizer, seed=1).mask(tokens.input_ids, np.arange(40))
    row = tokens.input_ids[0]
    begins = [1, *(place for place, piece in enumerate(row) if tokenizer.vocab[piece].startswith("Ġ"))]
    words = [set(range(a, b)) for a, b in zip(begins, [*begins[1:], len(row) - 1], strict=True)]
    assert len(words) == 5
    for number in range(40):
        hidden = set(masked.positions[number][masked.weights[number] > 0].tolist())
        assert hidden and all(word <= hidden or not word & hidden for word in words)


def test_equal_pairs_are_merged_at_once_only_where_the_order_allows():
    files = trained_bpe()
    assert _Merges(files)._at_once and not _Merges(shuffled_bpe())._at_once


def test_kinds_of_characters():
    kinds = word_runs.character_kinds()
    samples = {
        word_runs.LETTER: "aßЖ中ｶǅ", word_runs.NUMBER: "7½²Ⅷ١", word_runs.WHITE: " \t\n\x0b\x85\u3000\u2028",
        word_runs.OTHER: "!_'\x00\u0301\u200b👍€\ue000",
    }  # fmt: skip
    for kind, characters in samples.items():
        assert kinds.of(np.array(list(map(ord, characters)))).tolist() == [kind] * len(characters), kind
    # Python takes all of this white space for some, which the chunks of `ByteLevelBpe` rest on.
    white = np.flatnonzero(kinds.of(np.arange(0x110000)) == word_runs.WHITE)
    assert len(white) == 25 and all(chr(code).isspace() for code in white)


@pytest.mark.slow
def test_planes_that_are_not_measured_hold_what_is_of_no_kind():
    whole = word_runs.character_kinds(tuple(range(17)))
    np.testing.assert_array_equal(whole.starts, word_runs.character_kinds(word_runs.PLANES).starts)
    np.testing.assert_array_equal(whole.kinds, word_runs.character_kinds(word_runs.PLANES).kinds)


# Folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """What transformers writes beside a RoBERTa: `tokenizer.json` and its settings, no vocabulary."""
    peer_of(ByteLevelBpe(trained_bpe()), tmp_path / "own").save_pretrained(str(tmp_path / "json"))
    return tmp_path


def test_folders_are_read_again(folder):
    tokenizer = ByteLevelBpe(trained_bpe())
    assert sorted(path.name for path in (folder / "own").iterdir()) == sorted(tokenizer.files)
    assert ByteLevelBpe.from_folder(folder / "own").digest == tokenizer.digest
    assert {path.name for path in (folder / "json").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    assert ByteLevelBpe.is_in(folder / "json") and not ByteLevelBpe.is_in(folder)
    assert ByteLevelBpe.from_folder(folder / "json").digest == tokenizer.digest
    # Early releases did not name the kind of the model, which all of them read.
    changed(folder / "json" / "tokenizer.json", lambda data: data["model"].pop("type"))
    Tokenizer.from_file(str(folder / "json" / "tokenizer.json"))
    assert ByteLevelBpe.is_in(folder / "json") and ByteLevelBpe.from_folder(folder / "json").digest == tokenizer.digest
    # All files together, as the published models have them.
    for name in ("vocab.json", "merges.txt"):
        (folder / "json" / name).write_bytes((folder / "own" / name).read_bytes())
    assert ByteLevelBpe.from_folder(folder / "json").digest == tokenizer.digest
    ByteLevelBpe(trained_bpe(add_prefix_space=True)).save(folder / "prefix")
    assert ByteLevelBpe.from_folder(folder / "prefix").bpe.add_prefix_space
    assert ByteLevelBpe.from_folder(folder / "prefix").digest != tokenizer.digest


def changed(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
}
WRONG_JSON = {
    "normalizer": ({"normalizer": {"type": "Lowercase"}}, "normalizer of"),
    "splitter": ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type of"),
    "pattern": (
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        "pre_tokenizer.use_regex of",
    ),
    "template": ({"post_processor": TEMPLATE}, "post_processor.single of"),
    "no template": ({"post_processor": None}, "post_processor.type of"),
    "no model": ({"model": {"type": "BPE"}}, "describes no byte-level BPE tokenizer.*vocab"),
}


@pytest.mark.parametrize("name", WRONG_JSON)
def test_parts_of_a_tokenizer_json_that_cannot_be_reproduced(folder, name):
    change, message = WRONG_JSON[name]
    changed(folder / "json" / "tokenizer.json", lambda data: data.update(change))
    with pytest.raises(ModelError, match=message) as error:
        ByteLevelBpe.from_folder(folder / "json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("dropout", 0.1), ("ignore_merges", True), ("byte_fallback", True), ("end_of_word_suffix", "</w>")],
)
def test_settings_of_the_model_that_cannot_be_reproduced(folder, setting, value):
    changed(folder / "json" / "tokenizer.json", lambda data: data["model"].update({setting: value}))
    with pytest.raises(ModelError, match=f"model.{setting} of .* asks for what is not done here; got"):
        ByteLevelBpe.from_folder(folder / "json")


def test_a_template_that_says_the_same(folder):
    def step(token):
        key = "Sequence" if token in "AB" else "SpecialToken"
        return {key: {"id": token, "type_id": 0}}

    rows = {"single": ["<s>", "A", "</s>"], "pair": ["<s>", "A", "</s>", "</s>", "B", "</s>"]}
    template = {"type": "TemplateProcessing", **{name: list(map(step, row)) for name, row in rows.items()}}
    changed(folder / "json" / "tokenizer.json", lambda data: data.update({"post_processor": template}))
    assert ByteLevelBpe.from_folder(folder / "json").digest == ByteLevelBpe(trained_bpe()).digest


def test_added_tokens(folder):
    path = folder / "json" / "tokenizer.json"
    size = len(trained_bpe().vocab)
    peer = Tokenizer.from_file(str(path))
    peer.add_special_tokens(["<extra>"])
    peer.save(str(path))
    assert ByteLevelBpe.from_folder(folder / "json").vocab[size] == "<extra>"
    peer.add_tokens(["covid"])
    peer.save(str(path))
    with pytest.raises(ModelError, match="added_tokens of .*got 'covid'; accepted: special tokens"):
        ByteLevelBpe.from_folder(folder / "json")


def test_files_of_strangers_are_read_or_refused(tmp_path):
    """Parts of the files replaced at random: what is not refused by name gives a tokenizer that works."""
    files = BpeFiles([*ROLES_IN_ORDER, *BYTE_SYMBOLS, "th", "the", "<mask>"], [("t", "h"), ("th", "e")])
    peer_of(ByteLevelBpe(files), tmp_path / "own").save_pretrained(str(tmp_path / "json"))
    path, source, refused = tmp_path / "json" / "tokenizer.json", random.Random(8), 0
    whole = json.loads(path.read_text(encoding="utf-8"))
    values = [None, True, -1, 10**30, 0.5, "", "the", [], [[]], {}, {"type": "BPE"}, [["t", "h"]], ["t h e"]]
    for _ in range(150):
        data = json.loads(json.dumps(whole))
        place = data
        while True:
            key = source.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or source.random() < 0.3:
                break
            place = place[key]
        place[key] = source.choice(values)
        path.write_text(json.dumps(data), encoding="utf-8")
        try:
            tokenizer = ByteLevelBpe.from_folder(tmp_path / "json")
        except ModelError as error:
            refused += "\n" not in str(error)
        else:
            assert tokenizer.decode(tokenizer.encode(["the é"]).input_ids[0]) == "the é"
    assert refused > 50


def test_what_would_be_read_wrongly_is_refused(folder):
    with pytest.raises(ModelError, match=r"no byte-level BPE vocabulary in .*; accepted: vocab.json with merges.txt"):
        ByteLevelBpe.from_folder(folder)
    own = folder / "own"
    with pytest.raises(ModelError, match="no rule to lower them"):
        ByteLevelBpe.from_folder(own, lower_case=True)
    kept = {name: (own / name).read_text(encoding="utf-8") for name in ("vocab.json", "merges.txt")}
    ids = json.loads(kept["vocab.json"])
    for name, content, message in (
        ("vocab.json", "[]", "must hold a JSON object"),
        ("vocab.json", '{"a": "b"}', "holds no ids by pieces"),
        ("vocab.json", json.dumps({**ids, "new": 9999}), "are not 0 to"),
        ("vocab.json", json.dumps({f"x{key}" if key == "a" else key: ids[key] for key in ids}), "no piece for 1 bytes"),
        ("vocab.json", json.dumps({f"x{key}" if key == "<mask>" else key: ids[key] for key in ids}), "role mask in"),
        ("merges.txt", kept["merges.txt"] + "a\n", "no merge of two pieces"),
        ("merges.txt", kept["merges.txt"] + "q zz\n", "needs pieces that the vocabulary does not have; got 'q zz'"),
        ("merges.txt", kept["merges.txt"] + kept["merges.txt"].split("\n")[3] + "\n", "hold a pair twice"),
    ):
        (own / name).write_text(content, encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            ByteLevelBpe.from_folder(own)
        (own / name).write_text(kept[name], encoding="utf-8")
    (own / "merges.txt").write_bytes(b"\xff \xfe\n")
    with pytest.raises(ModelError, match="is not UTF-8"):
        ByteLevelBpe.from_folder(own)
    (own / "merges.txt").write_text(kept["merges.txt"], encoding="utf-8")
    (own / "config.json").write_text('{"vocab_size": 50}')
    with pytest.raises(ModelError, match="does not fit the model"):
        ByteLevelBpe.from_folder(own)
    (own / "config.json").unlink()
    changed(own / "tokenizer_config.json", lambda data: data.update(cls_token="the"))
    with pytest.raises(ModelError, match="role cls in .* is no piece of its own|role cls"):
        ByteLevelBpe.from_folder(own)
    changed(folder / "json" / "tokenizer_config.json", lambda data: data.update(add_prefix_space=True))
    with pytest.raises(ModelError, match="disagree about add_prefix_space"):
        ByteLevelBpe.from_folder(folder / "json")
    (folder / "json" / "tokenizer_config.json").unlink()
    for name, content in kept.items():
        (folder / "json" / name).write_text(content, encoding="utf-8")
    changed(folder / "json" / "tokenizer.json", lambda data: data["model"]["merges"].pop())
    with pytest.raises(ModelError, match="hold different vocabularies"):
        ByteLevelBpe.from_folder(folder / "json")
