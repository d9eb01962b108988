"""Reading vocabularies and text rules: what is accepted, and one message for everything that is not."""

import json

import pytest

from easytransfer.errors import ModelError
from easytransfer.text.vocabulary import Rules, read_vocab_file, read_vocabulary, tokenizer_config
from easytransfer.text.wordpiece import WordPiece

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "##ness", "Ä"]


def write(folder, vocab=VOCAB, **files):
    if vocab is not None:
        (folder / "vocab.txt").write_bytes("".join(token + "\n" for token in vocab).encode())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def tokenizer_json(vocab=VOCAB, lowercase=True, added=(), **model):
    return {
        "normalizer": {"type": "BertNormalizer", "lowercase": lowercase, "strip_accents": None, "clean_text": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "vocab": {token: i for i, token in enumerate(vocab)}, **model},
        "added_tokens": [{"id": i, "content": token, "special": special} for i, token, special in added],
    }


def test_lower_case_is_the_default_as_in_the_original(tmp_path):
    tokens, rules = read_vocabulary(write(tmp_path))
    assert tokens == VOCAB
    assert rules == Rules(lower_case=True, max_word_chars=100) and rules.strips_accents


@pytest.mark.parametrize("name", ["tokenizer_config", "config"])
def test_casing_comes_from_the_files(tmp_path, name):
    rules = read_vocabulary(write(tmp_path, **{name: {"do_lower_case": False}}))[1]
    assert not rules.lower_case and not rules.strips_accents


def test_all_rules_are_read(tmp_path):
    said = {
        "do_lower_case": True,
        "strip_accents": False,
        "tokenize_chinese_chars": False,
        "max_input_chars_per_word": 200,
    }
    rules = read_vocabulary(write(tmp_path, tokenizer_config=said))[1]
    assert rules == Rules(lower_case=True, strip_accents=False, split_cjk=False, max_word_chars=200)
    assert not rules.strips_accents


def test_tokenizer_json_alone_is_enough(tmp_path):
    content = tokenizer_json(lowercase=False, max_input_chars_per_word=7, added=[(8, "[NEW]", True)])
    tokens, rules = read_vocabulary(write(tmp_path, vocab=None, tokenizer=content, config={"vocab_size": 9}))
    assert tokens == [*VOCAB, "[NEW]"]
    assert rules == Rules(lower_case=False, max_word_chars=7)
    # Early releases of `tokenizers` did not name the kind of the model.
    content["model"].pop("type")
    assert read_vocabulary(write(tmp_path, vocab=None, tokenizer=content))[0] == tokens


def test_files_are_not_read_beyond_a_size(tmp_path, monkeypatch):
    write(tmp_path, vocab=None, tokenizer=tokenizer_json())
    monkeypatch.setattr("easytransfer.text.tokenizer_json.MOST_BYTES", 100)
    with pytest.raises(ModelError, match=r"tokenizer.json is too large for a tokenizer; got '\d+ bytes'"):
        read_vocabulary(tmp_path)


def test_files_that_disagree_about_casing_are_refused_unless_the_caller_decides(tmp_path):
    write(tmp_path, tokenizer_config={"do_lower_case": True}, tokenizer=tokenizer_json(lowercase=False))
    with pytest.raises(ModelError, match="disagree about do_lower_case.*pass lower_case") as error:
        read_vocabulary(tmp_path)
    assert error.value.exit_code == 4
    assert read_vocabulary(tmp_path, lower_case=False)[1].lower_case is False


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ([*VOCAB, "good"], "twice, as ids 5 and 8; got 'good'"),
        ([token for token in VOCAB if token not in ("[SEP]", "[MASK]")], r"lacks special tokens: \[SEP\] \[MASK\]"),
        ([*VOCAB[:6], "", "x"], "empty token as id 6"),
        ([], "lacks special tokens"),
    ],
)
def test_broken_vocabularies_are_refused(tmp_path, vocab, message):
    with pytest.raises(ModelError, match=message):
        read_vocabulary(write(tmp_path, vocab=vocab))


def test_a_vocabulary_of_another_size_than_the_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="got '8 tokens'; accepted: vocab_size 9"):
        read_vocabulary(write(tmp_path, config={"vocab_size": 9}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tokenizer_json(vocab=[*VOCAB, "x"]), "different vocabularies; got '8 and 9 tokens'"),
        (tokenizer_json(type="BPE"), "is not a BERT tokenizer"),
        (tokenizer_json(continuing_subword_prefix="@@"), "is not a BERT tokenizer"),
        (tokenizer_json(added=[(8, "<user>", False)]), "adds a token .* got '<user>'"),
        (tokenizer_json(added=[(9, "[A]", True)]), "are not 0 to 8"),
        ([], "not a JSON object"),
    ],
)
def test_unusable_tokenizer_json_is_refused(tmp_path, content, message):
    with pytest.raises(ModelError, match=message):
        read_vocabulary(write(tmp_path, tokenizer=content))


def test_a_rule_of_the_wrong_type_is_refused(tmp_path):
    with pytest.raises(ModelError, match="bad do_lower_case.*got 'false'; accepted: bool"):
        read_vocabulary(write(tmp_path, tokenizer_config={"do_lower_case": "false"}))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ModelError, match="no vocabulary in"):
        read_vocabulary(tmp_path)
    write(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="config.json is not valid JSON"):
        read_vocabulary(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="not UTF-8"):
        read_vocabulary(tmp_path)


def test_only_line_feeds_end_a_token(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\ufeffa\r\n\u2028\n\x85\n b \nlast".encode())
    assert read_vocab_file(path) == ["a", "\u2028", "\x85", " b ", "last"]


@pytest.mark.parametrize("rules", [Rules(), Rules(False), Rules(True, False, False, True, 200), Rules(False, True)])
def test_save_and_load_give_an_equal_tokenizer(tmp_path, rules):
    tokenizer = WordPiece(VOCAB, rules)
    tokenizer.save(tmp_path / "new")
    again = WordPiece.from_folder(tmp_path / "new")
    assert (again.vocab, again.rules, again.digest) == (tokenizer.vocab, rules, tokenizer.digest)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["tokenizer_config.json", "vocab.txt"]
    assert tokenizer_config(rules)["cls_token"] == "[CLS]"


def test_digest_depends_on_vocabulary_and_rules():
    digests = {
        WordPiece(VOCAB).digest,
        WordPiece([*VOCAB, "x"]).digest,
        WordPiece(VOCAB, Rules(max_word_chars=200)).digest,
    }
    assert len(digests) == 3


@pytest.mark.parametrize("token", ["a\nb", "a\r"])
def test_tokens_that_do_not_fit_on_a_line_are_not_saved(tmp_path, token):
    with pytest.raises(ModelError, match="cannot be written to vocab.txt"):
        WordPiece([*VOCAB, token]).save(tmp_path)
