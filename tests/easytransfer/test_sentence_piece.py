"""`SentencePiece` against the Python package, `transformers`, hand-worked places, and itself inside a graph."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from multilingual_corpus import SENTENCES, corpus, pairs
from piece_models import WORD_BEGIN, as_xlm_roberta, character_model, for_xlnet, trained_model
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import normalizers

from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.text.masking import TokenMasker
from easytransfer.text.packing import SEP_TWICE
from easytransfer.text.piece_model import PieceRules, fairseq_order, published_order
from easytransfer.text.sentence_piece import SentencePiece, XlmRobertaSentencePiece, XlnetSentencePiece

WHITE_SPACE = re.compile("[\t-\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
RULES = [PieceRules(), pytest.param(PieceRules(lower_case=False, keep_accents=True), marks=pytest.mark.slow)]
SPECIAL = re.compile(r"\[(CLS|SEP|MASK)\]|<(unk|pad|cls|sep|mask|/?s|eop|eod)>", re.IGNORECASE)


def prepared(lines, rules, quotes=True):
    """What ALBERT's code does to a text before the model, with the normalizers that `transformers` takes for it."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')] if quotes else []
    steps += [] if rules.keep_accents else [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if rules.lower_case else []
    change = normalizers.Sequence(steps)
    return [change.normalize_str(WHITE_SPACE.sub(" ", line)) for line in lines]


def scores(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return np.array([piece.score for piece in proto.pieces])


def assert_equal_but_for_ties(found, expected, score, most):
    """Other ids are allowed where they are another segmentation of the same score, which few rows have."""
    others = [(a, b) for a, b in zip(found, expected, strict=True) if list(a) != list(b)]
    assert len(others) <= most * len(found)
    for a, b in others:
        assert sorted(a) == sorted(b) or score[list(a)].sum() == pytest.approx(score[list(b)].sum(), abs=1e-3)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_ids_equal_the_python_package(rules):
    model, lines = character_model(), corpus()
    tokenizer = SentencePiece(model, rules)
    ids = tokenizer.pieces(lines)
    expected = SentencePieceProcessor(model_proto=model).encode(prepared(lines, rules), out_type=int)
    assert np.mean(ids.values == tokenizer.unk_id) < 0.01
    assert_equal_but_for_ties([ids[row] for row in range(len(lines))], expected, scores(model), most=0.02)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_trained_models_equal_the_python_package(kind):
    model = trained_model(model_type=kind)
    ids = SentencePiece(model).pieces(SENTENCES)
    expected = SentencePieceProcessor(model_proto=model).encode(prepared(SENTENCES, PieceRules()), out_type=int)
    assert [ids[row].tolist() for row in range(len(SENTENCES))] == expected


def for_kind(kind, model):
    """The model with the special tokens of a kind."""
    if kind is XlmRobertaSentencePiece:
        return fairseq_order(as_xlm_roberta(model), "test")
    return for_xlnet(model) if kind is XlnetSentencePiece else model


def test_ids_of_xlm_roberta_are_those_of_the_python_package_plus_one():
    """fairseq's dictionary: <s>, <pad>, </s>, <unk>, then the pieces behind the model's first three, <mask> last."""
    published, lines = as_xlm_roberta(character_model()), [*SENTENCES, *corpus()[len(SENTENCES) :: 3]]
    tokenizer = XlmRobertaSentencePiece(fairseq_order(published, "test"))
    package = SentencePieceProcessor(model_proto=published)
    assert tokenizer.special_ids == {"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": len(package) + 1}
    assert tokenizer.vocab[4:-1] == [package.id_to_piece(number) for number in range(3, len(package))]
    expected = package.encode(prepared(lines, tokenizer.rules, quotes=False), out_type=int)
    expected = [[number + 1 if number else 3 for number in row] for row in expected]
    ids = tokenizer.pieces(lines)
    assert np.mean(ids.values == tokenizer.unk_id) < 0.01
    found = [ids[row].tolist() for row in range(len(lines))]
    assert_equal_but_for_ties(found, expected, scores(tokenizer.model), most=0.02)
    # Nothing is done to quotation marks, which ALBERT's code joins.
    assert tokenizer.offsets("``") == [*tokenizer.offsets("`"), ("`", 1, 2)]


KINDS = [
    (SentencePiece, PieceRules()),
    pytest.param(SentencePiece, PieceRules(lower_case=False, keep_accents=True), marks=pytest.mark.slow),
    # transformers drops the accents for XLNet, whatever the rules say.
    (XlnetSentencePiece, PieceRules(lower_case=False)),
    pytest.param(XlnetSentencePiece, PieceRules(), marks=pytest.mark.slow),
    (XlmRobertaSentencePiece, PieceRules(lower_case=False, keep_accents=True)),
]


@pytest.mark.parametrize(("kind", "rules"), KINDS, ids=str)
def test_rows_equal_transformers(tmp_path, kind, rules):
    transformers = pytest.importorskip("transformers")
    model, quotes = for_kind(kind, character_model()), kind is not XlmRobertaSentencePiece
    tokenizer = kind(model, rules)
    tokenizer.save(tmp_path)
    peer = getattr(transformers, tokenizer.kind.tokenizer_class).from_pretrained(str(tmp_path))
    package, lines = SentencePieceProcessor(model_proto=model), [*SENTENCES, *corpus()[len(SENTENCES) :: 8]]
    # The peer's copy of the normalization of SentencePiece looks at user-perceived characters one by one and does not
    # put syllables together; and it takes names of special tokens in a text for pieces.
    theirs = [peer.backend_tokenizer.normalizer.normalize_str(WHITE_SPACE.sub(" ", line)) for line in lines]
    ours = [package.normalize(line).replace(WORD_BEGIN, " ") for line in prepared(lines, rules, quotes)]
    same = [
        line
        for line, a, b in zip(lines, theirs, ours, strict=True)
        if a.split() == b.split() and not SPECIAL.search(line) and "\x0b" not in line
    ]
    assert len(same) > 0.75 * len(lines)
    ids, theirs = tokenizer.pieces(same), peer(same, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = [ids[row].tolist() for row in range(len(same))]
    assert_equal_but_for_ties(found, theirs, scores(model), most=0.02)
    first, second = pairs([line for line, a, b in zip(same, found, theirs, strict=True) if a == b])
    for texts, seconds, length in ((first, second, 64), (first[-300:], second[-300:], 9), (first[-300:], None, 4)):
        options = {"split_special_tokens": True, "return_token_type_ids": True}
        expected = peer(texts, seconds, truncation=True, max_length=length, **options)
        tokens = tokenizer.encode(texts, seconds, max_length=length)
        assert [tokens.input_ids[row].tolist() for row in range(len(texts))] == expected["input_ids"]
        assert [tokens.segment_ids[row].tolist() for row in range(len(texts))] == expected["token_type_ids"]
        truncated = [bool(encoding.overflowing) for encoding in expected.encodings]
        assert tokens.truncated.tolist() == truncated


OTHER_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in (XlnetSentencePiece, XlmRobertaSentencePiece)]


@pytest.mark.parametrize("kind", [SentencePiece, *OTHER_KINDS])
def test_an_exported_graph_gives_the_ids_of_training(tmp_path, kind):
    tokenizer = kind(for_kind(kind, character_model()))
    graph = tokenizer.in_graph(16)
    text, pair = tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.string, "pair")
    tf.saved_model.save(
        graph, str(tmp_path / "1"), {"pair": tf.function(lambda text, pair: graph(text, pair), [text, pair])}
    )
    lines = [*SENTENCES, *corpus()[::20]]
    first, second = pairs(lines)
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["pair"](
        text=tf.constant(first), pair=tf.constant(second)
    )
    tokens = tokenizer.encode(first, second, max_length=16)
    rows, width = np.arange(len(first)), int(tokens.input_ids.lengths.max())
    np.testing.assert_array_equal(loaded["input_ids"], tokens.input_ids.padded(rows, width, tokenizer.pad_id))
    np.testing.assert_array_equal(loaded["segment_ids"], tokens.segment_ids.padded(rows, width))
    np.testing.assert_array_equal(loaded["input_mask"], np.arange(width) < tokens.input_ids.lengths[:, None])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "1")).signature_def["pair"]
        feed = {signature.inputs["text"].name: first, signature.inputs["pair"].name: second}
        ids = session.run(signature.outputs["input_ids"].name, feed)
    np.testing.assert_array_equal(ids, loaded["input_ids"])


def test_pieces_are_found_in_the_text_that_was_given():
    tokenizer = SentencePiece(trained_model())
    text = "  ÉTÉ  (x)  ``a'' Ÿ ﬁ 2 nai\u0308ve"
    found = tokenizer.offsets(text)
    assert "".join(text[a:b] for _, a, b in found) == re.sub("[ \u0308]", "", text)
    assert [span for piece, *span in found if piece == "("] == [[7, 8]]
    # The word begins behind the spaces; a piece that is nothing but its beginning has no characters.
    assert [span for piece, *span in tokenizer.offsets(" \t (") if piece == WORD_BEGIN] == [[3, 3]]
    assert tokenizer.offsets("''") == [(WORD_BEGIN, 0, 0), ("<unk>", 0, 2)]
    # A character that becomes several is the place of each of them.
    assert {(a, b) for _, a, b in tokenizer.offsets("½")} == {(0, 1)}
    assert tokenizer.offsets("") == tokenizer.offsets(" \u3000") == []


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_places_cover_what_the_pieces_were_made_of(rules):
    """Prepared alone, the characters of a span give the piece, where the model's normalization sees no neighbours."""
    tokenizer, lines = SentencePiece(character_model(), rules), corpus()[::10]
    ids, spans = tokenizer.pieces_with_offsets(lines)
    np.testing.assert_array_equal(ids.values, tokenizer.pieces(lines).values)
    assert (spans.values[:, 0] <= spans.values[:, 1]).all() and (spans.values >= 0).all()
    package = SentencePieceProcessor(model_proto=tokenizer.model)
    right = total = 0
    for row, line in enumerate(lines):
        parts = prepared([line[a:b] for a, b in spans[row]], rules)
        wanted = [tokenizer.vocab[piece].replace(WORD_BEGIN, "") for piece in ids[row]]
        known = ids[row] != tokenizer.unk_id
        got = ["".join(package.normalize(part).split(WORD_BEGIN)) for part in parts]
        right += sum(a == b for a, b, c in zip(got, wanted, known, strict=True) if c)
        total += int(known.sum())
    assert right > 0.97 * total


def test_rows_of_none_and_what_is_no_text():
    tokenizer = SentencePiece(trained_model())
    ids, spans = tokenizer.pieces_with_offsets([])
    assert len(ids) == len(spans) == 0 and spans.values.shape == (0, 2) and len(tokenizer.encode([]).input_ids) == 0
    assert tokenizer.encode([""]).input_ids[0].tolist() == [2, 3]
    with pytest.raises(DataError, match="not a text.*half of a surrogate pair"):
        tokenizer.pieces(["a", "\ud800"])
    with pytest.raises(DataError, match="not a text"):
        tokenizer.pieces([3])
    with pytest.raises(ConfigError, match="no room"):
        tokenizer.in_graph(2)
    assert tokenizer.decode(tokenizer.encode(["Hello (you)"]).input_ids[0]) == "hello (you)"


def test_words_are_masked_as_a_whole():
    tokenizer = SentencePiece(trained_model())
    tokens = tokenizer.encode(["hello wonderful unknown words here"] * 40)
    masked = TokenMasker(tokenizer, seed=1).mask(tokens.input_ids, np.arange(40))
    begins = [place for place, piece in enumerate(tokens.input_ids[0]) if tokenizer.vocab[piece].startswith(WORD_BEGIN)]
    words = [set(range(a, b)) for a, b in zip(begins, [*begins[1:], len(tokens.input_ids[0]) - 1], strict=True)]
    for row in range(40):
        hidden = set(masked.positions[row][masked.weights[row] > 0].tolist())
        assert hidden and all(word <= hidden or not word & hidden for word in words)


def test_xlnet_says_what_its_files_do_not(tmp_path):
    """Its case, special tokens and layout are its own; a row is `a <sep> b <sep> <cls>`."""
    model = for_xlnet(trained_model())
    tokenizer = XlnetSentencePiece(model)
    cls_, sep, (a, b) = tokenizer.cls_id, tokenizer.sep_id, [tokenizer.pieces([text])[0].tolist() for text in "xy"]
    tokens = tokenizer.encode(["x"], ["y"], max_length=32)
    assert tokens.input_ids[0].tolist() == [*a, sep, *b, sep, cls_]
    assert tokens.segment_ids[0].tolist() == [*[0] * len(a), 0, *[1] * len(b), 1, 2]
    assert (tokenizer.vocab[cls_], tokenizer.vocab[sep]) == ("<cls>", "<sep>")
    (tmp_path / "spiece.model").write_bytes(model)
    silent = XlnetSentencePiece.from_folder(tmp_path)
    assert silent.digest == tokenizer.digest and silent.rules == PieceRules(lower_case=False, keep_accents=False)
    tokenizer.save(tmp_path)
    assert XlnetSentencePiece.from_folder(tmp_path).digest == tokenizer.digest
    names = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (names["bos_token"], names["eos_token"], names["tokenizer_class"]) == ("<s>", "</s>", "XLNetTokenizer")
    # The same pieces under the same rules in other rows are another tokenizer.
    other = SentencePiece(model, tokenizer.rules, tokenizer.special)
    np.testing.assert_array_equal(other.pieces(SENTENCES).values, tokenizer.pieces(SENTENCES).values)
    assert other.digest != tokenizer.digest
    with pytest.raises(ModelError, match="special token of the role cls is no control piece"):
        XlnetSentencePiece(trained_model())


def test_xlm_roberta_keeps_the_published_file(tmp_path):
    """A folder has the model as published, or what transformers makes of it; ids and rows are the same."""
    transformers = pytest.importorskip("transformers")
    published = as_xlm_roberta(trained_model())
    tokenizer = XlmRobertaSentencePiece(fairseq_order(published, "test"))
    tokenizer.save(tmp_path / "a")
    assert (tmp_path / "a" / "sentencepiece.bpe.model").read_bytes() == published
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(tokenizer.files)
    again = XlmRobertaSentencePiece.from_folder(tmp_path / "a")
    assert again.digest == tokenizer.digest and again.layout == SEP_TWICE and again.vocab == tokenizer.vocab
    assert tokenizer.digest != SentencePiece(tokenizer.model, tokenizer.rules, tokenizer.special).digest
    transformers.XLMRobertaTokenizer.from_pretrained(str(tmp_path / "a")).save_pretrained(str(tmp_path / "b"))
    assert not list((tmp_path / "b").glob("*.model")) and XlmRobertaSentencePiece.is_in(tmp_path / "b")
    of_json = XlmRobertaSentencePiece.from_folder(tmp_path / "b")
    assert of_json.vocab == tokenizer.vocab and of_json.special_ids == tokenizer.special_ids
    np.testing.assert_array_equal(of_json.pieces(SENTENCES).values, tokenizer.pieces(SENTENCES).values)
    path = tmp_path / "b" / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "normalizer": {"type": "NFKC"}}), encoding="utf-8")
    with pytest.raises(ModelError, match="normalizer.type of .* asks for what is not done .*copy sentencepiece.bpe"):
        XlmRobertaSentencePiece.from_folder(tmp_path / "b")
    # A model of another family, and special tokens at other ids.
    (tmp_path / "a" / "sentencepiece.bpe.model").write_bytes(trained_model())
    with pytest.raises(ModelError, match="no model of an XLM-RoBERTa: its first pieces are others"):
        XlmRobertaSentencePiece.from_folder(tmp_path / "a")
    with pytest.raises(ModelError, match="numbers the special tokens of an XLM-RoBERTa otherwise"):
        published_order(published, "test")


def test_folders_are_read_again(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = SentencePiece(trained_model(), PieceRules(lower_case=False))
    tokenizer.save(tmp_path / "own")
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == sorted(tokenizer.files)
    again = SentencePiece.from_folder(tmp_path / "own")
    assert again.digest == tokenizer.digest and again.rules == tokenizer.rules
    assert SentencePiece.from_folder(tmp_path / "own", lower_case=True).digest != tokenizer.digest
    (tmp_path / "own" / "spiece.model").rename(tmp_path / "own" / "30k-clean.model")
    assert SentencePiece.from_folder(tmp_path / "own").digest == tokenizer.digest
    (tmp_path / "own" / "30k-clean.model").rename(tmp_path / "own" / "spiece.model")
    # What transformers writes has no model file.
    transformers.AlbertTokenizer.from_pretrained(str(tmp_path / "own")).save_pretrained(str(tmp_path / "json"))
    assert not list((tmp_path / "json").glob("*.model")) and SentencePiece.is_in(tmp_path / "json")
    read = SentencePiece.from_folder(tmp_path / "json")
    assert read.vocab == tokenizer.vocab and read.rules == tokenizer.rules
    np.testing.assert_array_equal(read.pieces(SENTENCES).values, tokenizer.pieces(SENTENCES).values)


def changed(**values):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained_model())
    for name, value in values.items():
        part, _, field = name.partition("__")
        setattr(getattr(proto, part), field, value)
    return proto


def test_what_would_be_read_wrongly_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no SentencePiece model in"):
        SentencePiece.from_folder(tmp_path)
    SentencePiece(trained_model()).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for key, value, message in (
        ("remove_space", False, "remove_space in .* is not supported"),
        ("keep_accents", "no", "bad keep_accents"),
        ("mask_token", "(", r"special token of the role mask is no control piece; got '\('"),
        ("cls_token", 3, "bad cls_token"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ModelError, match=message):
            SentencePiece.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"vocab_size": 50}')
    with pytest.raises(ModelError, match="does not fit the model"):
        SentencePiece.from_folder(tmp_path)
    for content in (b"", b"no model", trained_model()[:1000]):
        (tmp_path / "spiece.model").write_bytes(content)
        with pytest.raises(ModelError, match="is no SentencePiece model"):
            SentencePiece.from_folder(tmp_path)
    for wrong, message in (
        (changed(normalizer_spec__remove_extra_whitespaces=False), "remove_extra_whitespaces is not supported"),
        (changed(trainer_spec__treat_whitespace_as_suffix=True), "treat_whitespace_as_suffix is not supported"),
        (changed(trainer_spec__model_type=3), "a model of another kind"),
    ):
        with pytest.raises(ModelError, match=message):
            SentencePiece(wrong.SerializeToString())
    twice = changed()
    twice.pieces.add(piece=twice.pieces[9].piece)
    with pytest.raises(ModelError, match="holds a piece twice"):
        SentencePiece(twice.SerializeToString())
    for values, message in (
        ({"score": float("nan")}, "not finite"),
        ({"piece": ""}, "an empty piece"),
        ({"type": 2}, "must have one unknown piece"),
    ):
        damaged = changed()
        for name, value in values.items():
            setattr(damaged.pieces[9], name, value)
        with pytest.raises(ModelError, match=message):
            SentencePiece(damaged.SerializeToString())


def test_a_seed_changes_nothing():
    """TensorFlow clears its kernels then, and with them the models of these operators."""
    tokenizer = SentencePiece(trained_model())
    before = [tokenizer.tokenize("one text and another"), tokenizer.offsets("one text")]
    tf.random.set_seed(7)
    assert [tokenizer.tokenize("one text and another"), tokenizer.offsets("one text")] == before
