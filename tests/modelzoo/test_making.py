"""`zoo new`: vocabularies trained on texts, and folders from which a pre-training starts."""

from __future__ import annotations

import json

import pytest

from appzoo.cli.main import main
from easytransfer.errors import DataError, ModelError
from modelzoo import commands
from modelzoo.loading import load_backbone, load_config, load_tokenizer

TEXTS = """
low lower lowest low low
new newer newest new

the lowest and the newest, again and again
质量 不错 low
""".strip("\n")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.text"
    path.write_text(TEXTS * 3 + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("family", "size"), [("bert", 90), ("albert", 60), ("roberta", 300)])
def test_a_vocabulary_knows_its_texts_and_repeats(family, size, texts, tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        found = commands.new(folder, str(texts), family, size, **SIZES)
    first, second = map(load_tokenizer, folders)
    assert first.digest == second.digest and len(first) == found["vocab"] <= size
    lines = [line for line in TEXTS.splitlines() if line]
    ids = first.pieces(lines)
    assert first.unk_id not in ids.values
    for row, line in enumerate(lines):
        assert first.decode(ids[row].tolist()).replace(" ", "") == line.replace(" ", "")
    # Frequent words are one piece, behind a space or at the beginning of a word.
    assert len(first.tokenize("x low")) - len(first.tokenize("x")) == 1
    config = load_config(folders[0])
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (found["vocab"], 16, 64)
    assert config.pad_token_id == first.pad_id
    network = load_backbone(folders[0], from_scratch=True)
    assert network.count_params() > 0
    with pytest.raises(ModelError, match="weights"):
        load_backbone(folders[0])
    assert json.loads((folders[0] / "zoo.json").read_text())["origin"]["kind"] == "made"


def test_pairs_that_are_most_frequent_become_pieces(tmp_path):
    """Characters a to d with and without ##, then the merges: `##b ##c` 5 times, `a ##bc` 4 times."""
    path = tmp_path / "t.txt"
    path.write_text("abc abc abc abc dbc\n", encoding="utf-8")
    commands.new(tmp_path / "made", str(path), "bert", 15)
    vocab = load_tokenizer(tmp_path / "made").vocab
    assert vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert vocab[5:] == ["a", "b", "c", "d", "##a", "##b", "##c", "##d", "##bc", "abc"]


def test_case_is_kept_unless_lowered(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("Good good GOOD Éclair\n" * 5, encoding="utf-8")
    commands.new(tmp_path / "kept", str(path), "bert", 100)
    commands.new(tmp_path / "lowered", str(path), "bert", 100, lower_case=True)
    kept, lowered = load_tokenizer(tmp_path / "kept"), load_tokenizer(tmp_path / "lowered")
    assert kept.tokenize("Good good Éclair") == ["Good", "good", "Éclair"]
    assert lowered.tokenize("Good gOOD Éclair") == ["good", "good", "eclair"]


def test_what_cannot_be_made_is_refused_and_nothing_is_left(texts, tmp_path):
    target = tmp_path / "model"
    with pytest.raises(ModelError, match="accepted: albert, bert, roberta, t5"):
        commands.new(target, str(texts), "xlnet")
    with pytest.raises(ModelError, match="hidden_size 10 is not a multiple of num_attention_heads 3"):
        commands.new(target, str(texts), "bert", 100, hidden_size=10, num_attention_heads=3)
    with pytest.raises(ModelError, match="both cases"):
        commands.new(target, str(texts), "roberta", 300, lower_case=True)
    for family, least in (("bert", "9"), ("roberta", "261")):
        with pytest.raises(ModelError, match=f"too few pieces.*accepted: {least}"):
            commands.new(target, str(texts), family, 4)
    with pytest.raises(DataError, match="does not exist"):
        commands.new(target, str(tmp_path / "no.txt"))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no text to train"):
        commands.new(target, str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes("schön\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.txt:1: invalid UTF-8"):
        commands.new(target, str(tmp_path / "latin.txt"))
    (tmp_path / "long.txt").write_bytes("ü".encode() * (1 << 21) + b"yz")
    with pytest.raises(DataError, match="a sentence a line"):
        commands.new(target, str(tmp_path / "long.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "latin.txt", "long.txt", "texts.text"]


def test_the_command_line_makes_a_model_that_a_training_takes(texts, tmp_path, capfd):
    words = ["--type=bert", f"--texts={texts}", "--vocabSize=80", "--layers=2", "--hidden=16", "--heads=2"]
    assert main(["zoo", "new", str(tmp_path / "mine"), *words, "--positions=40"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["family"] == "bert" and found["config"]["num_hidden_layers"] == 2
    words = [f"--inputTable={texts},{texts}", f"--checkpointDir={tmp_path / 'run'}", "--sequenceLength=32", "--dryRun"]
    words += [f"--set=model.pretrain_model_name_or_path={tmp_path / 'mine'}", "--set=model.from_scratch=true"]
    assert main(["train", "--modelName=text_pretrain", *words]) == 0
