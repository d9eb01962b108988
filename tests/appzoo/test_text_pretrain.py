"""Pre-training on plain text: passages, hidden words and pairs against hand-worked cases and counts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from appzoo.text_pretrain.metrics import PretrainEvaluator
from appzoo.text_pretrain.passages import Cutter, sentence_spans
from appzoo.text_pretrain.readers import read_documents
from appzoo.text_pretrain.target import _of_other_documents
from easytransfer.errors import DataError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import TextDraws, WordHider
from easytransfer.text.wordpiece import WordPiece

WORDS = [*(f"w{i}" for i in range(20)), "##x", "##y", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPiece:
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    return WordPiece.from_folder(folder)


def draws_of(rows: int, seed: int = 0) -> RowDraws:
    return RowDraws(tf.constant([seed, 1]), tf.constant(rows))


# Passages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('Yes. "No!" Maybe?  It is 3.5 m.', ["Yes.", '"No!"', "Maybe?", "It is 3.5 m."]),
        ("很好。是吗？对", ["很好。", "是吗？", "对"]),
        ("one. two\n\n  three. four \n", ["one. two", "three. four"]),
        ("  ", []),
        ("", []),
    ],
)
def test_sentences_are_lines_or_end_with_marks(text, parts):
    assert [text[start:end] for start, end in sentence_spans(text)] == parts


def test_passages_hold_whole_sentences_and_all_pieces(tokenizer):
    cutter = Cutter(tokenizer, 6, seed=1)
    long = " ".join(["w1"] * 14)
    texts = ["w1 w2 . w3 w4 . w5 .", long, "", "w1 w2 w3 .\nw4 .\nw5"]
    found = [[passage.first for passage in each] for each in cutter.cut(texts, range(4))]
    assert found[0] == ["w1 w2 . w3 w4 .", "w5 ."]
    assert found[2] == [] and found[3] == ["w1 w2 w3 .\nw4 .", "w5"]
    for text, passages in zip(texts, found, strict=True):
        pieces = tokenizer.pieces(passages)
        assert (pieces.lengths <= 6).all()
        assert pieces.values.tolist() == tokenizer.pieces([text]).values.tolist()


def test_pairs_are_neighbours_and_a_sentence_alone_is_cut_in_two(tokenizer):
    cutter = Cutter(tokenizer, 9, seed=1, paired=True)
    texts = ["w1 . w2 w3 . w4 w5 w6 . w7 .", "w1 w2 w3 w4 w5 w6", "w1"]
    found = cutter.cut(texts, range(3))
    assert found[2] == []
    for text, passages in zip(texts[:2], found[:2], strict=True):
        both = [part for passage in passages for part in (passage.first, passage.second)]
        assert all(both)
        assert tokenizer.pieces([" ".join(both)]).values.tolist() == tokenizer.pieces([text]).values.tolist()
    # Three sentences fit, so that the last one is alone.
    assert [passage.first.endswith(".") for passage in found[0]] == [True, False]


def test_a_share_of_passages_is_short_and_a_document_is_cut_alike_wherever_it_stands(tokenizer):
    cutter = Cutter(tokenizer, 20, seed=3, short_passages=0.5)
    text = "w1 w2 . " * 3000
    alone = cutter.cut([text], [7])[0]
    lengths = tokenizer.pieces([passage.first for passage in alone]).lengths
    # Half of them have a room drawn from 2 to 20; six sentences of three pieces need 18.
    assert (lengths < 18).mean() == pytest.approx(0.5 * 16 / 19, abs=0.04) and lengths.max() <= 20
    assert cutter.cut(["w1 .", text], [0, 7])[1] == alone
    assert cutter.cut([text], [8])[0] != alone


def test_documents_of_a_file_end_at_empty_lines(tmp_path):
    path = tmp_path / "a.text"
    path.write_text("\ufeffone\n two \n\n\n\nthree\n", encoding="utf-8")
    assert list(read_documents(str(path))) == [{"text": "one\ntwo"}, {"text": "three"}]
    path.write_bytes(b"one\n\xff\xfe is broken\ntwo\n")
    bad, row = read_documents(str(path))
    assert row == {"text": "one\ntwo"} and bad.reason.startswith("invalid UTF-8")
    path.write_bytes(b"x" * (1 << 22) + b"yz")
    with pytest.raises(ValueError, match="a sentence a line"):
        list(read_documents(str(path)))


# Hidden words ------------------------------------------------------------------------------------------------


def hidden(tokenizer, ids: np.ndarray, draws=None, **settings) -> dict[str, np.ndarray]:
    settings = {"share": 0.15, "most": 20, "max_length": ids.shape[1], **settings}
    mask = (ids != tokenizer.pad_id).astype(np.int32)
    batch = {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask)}
    found = WordHider(tokenizer, **settings).hide(batch, draws or draws_of(len(ids)))
    return {name: value.numpy() for name, value in found.items()}


def rows_of(tokenizer, rows: int, length: int, pieces: str = "w1 w2") -> np.ndarray:
    """Rows of [CLS], words, [SEP] and padding."""
    ids = np.full((rows, length), tokenizer.pad_id, np.int32)
    words = tokenizer.pieces([" ".join([pieces] * length)]).values[: length - 3]
    ids[:, : len(words) + 2] = [tokenizer.cls_id, *words, tokenizer.sep_id]
    return ids


def test_shares_of_hidden_masked_random_and_kept_pieces_on_many_rows(tokenizer):
    """100,000 rows: 15 % of 40 pieces with special ones are 6; of them 80 % masked, 10 % random, 10 % as they were."""
    ids = rows_of(tokenizer, 20_000, 41)
    masked = random = kept = total = 0
    places = np.zeros(41, int)
    for part in range(5):
        found = hidden(tokenizer, ids, draws_of(len(ids), part), whole_word=False)
        assert (found["hidden_weights"].sum(axis=1) == 6).all()
        row, column = np.nonzero(found["hidden_weights"])
        at = found["hidden_positions"][row, column]
        assert (found["hidden_ids"][row, column] == ids[row, at]).all()
        assert (np.diff(found["hidden_positions"][:, :6], axis=1) > 0).all()
        shown = found["input_ids"][row, at]
        is_masked = shown == tokenizer.mask_id
        masked, total = masked + is_masked.sum(), total + len(at)
        # A random piece is by chance the one that was there, once in 23 times.
        random += (~is_masked & (shown != ids[row, at])).sum()
        kept += (shown == ids[row, at]).sum()
        special = list(tokenizer.special_ids.values())
        assert not np.isin(shown[~is_masked], special).any()
        others = np.ones_like(ids, bool)
        others[row, at] = False
        assert (found["input_ids"][others] == ids[others]).all()
        places += np.bincount(at, minlength=41)
    assert total == 600_000
    assert masked / total == pytest.approx(0.8, abs=0.003)
    assert random / total == pytest.approx(0.1 * 22 / 23, abs=0.002)
    assert kept / total == pytest.approx(0.1 + 0.1 / 23, abs=0.002)
    # All places but special ones and padding, equally often.
    assert places[0] == places[39] == places[40] == 0
    assert places[1:39] / total == pytest.approx(np.full(38, 1 / 38), rel=0.03)


def test_most_bounds_and_one_is_hidden_at_least(tokenizer):
    assert (hidden(tokenizer, rows_of(tokenizer, 50, 40), most=2)["hidden_weights"].sum(axis=1) == 2).all()
    assert (hidden(tokenizer, rows_of(tokenizer, 50, 5))["hidden_weights"].sum(axis=1) == 1).all()
    nothing = np.array([[tokenizer.cls_id, tokenizer.sep_id, 0]], np.int32)
    assert hidden(tokenizer, nothing)["hidden_weights"].sum() == 0


def test_words_are_hidden_as_a_whole(tokenizer):
    ids = rows_of(tokenizer, 3000, 63, "w1 w2x w3xy")
    words = np.cumsum(~tokenizer.continues[ids[0]])
    found = hidden(tokenizer, ids)
    counts = found["hidden_weights"].sum(axis=1)
    # Words in random order as long as they fit: with words of one to three pieces at most two are left.
    assert counts.max() <= 9 and counts.min() >= 7 and counts.mean() > 8
    for row in range(200):
        places = found["hidden_positions"][row][found["hidden_weights"][row] > 0]
        for word in np.unique(words[places]):
            assert np.isin(np.flatnonzero(words == word), places).all()
    plain = hidden(tokenizer, ids, whole_word=False)
    assert (plain["hidden_weights"].sum(axis=1) == 9).all()


def test_neighbouring_words_are_hidden_together(tokenizer):
    """n words with a chance of 1 / n: of n-grams up to 3, 6/11, 3/11 and 2/11."""
    ids = rows_of(tokenizer, 4000, 103)
    found = hidden(tokenizer, ids, max_ngram=3, share=0.03)
    runs = np.zeros(4, int)
    for row in range(len(ids)):
        places = found["hidden_positions"][row][found["hidden_weights"][row] > 0]
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            runs[min(len(run), 3)] += len(run) > 0
    # Three pieces a row: one 3-gram, or others that fit, which rarely touch.
    assert (runs[1:] > 0.1 * runs.sum()).all() and runs[1] > runs[2]
    alone = hidden(tokenizer, ids, max_ngram=1, share=0.03)["hidden_positions"][:, :3]
    assert (np.diff(alone, axis=1) == 1).mean() < 0.05


def test_widths_that_are_rounded_up_beyond_the_longest_row(tokenizer):
    ids = rows_of(tokenizer, 200, 12)
    narrow = hidden(tokenizer, ids, max_length=12)
    wide = hidden(tokenizer, np.pad(ids, [(0, 0), (0, 20)]), max_length=12)
    for name in ("hidden_positions", "hidden_ids", "hidden_weights"):
        np.testing.assert_array_equal(wide[name], narrow[name])
    np.testing.assert_array_equal(wide["input_ids"][:, :12], narrow["input_ids"])


def test_words_that_have_chances_of_their_own(tokenizer):
    """110,000 words of one to three pieces, each hidden as a whole with 15 %; one of a row where none would be."""
    ids = rows_of(tokenizer, 10_000, 23, "w1 w2x w3xy")
    found = hidden(tokenizer, ids, independent=True, most=20)
    weights, first = found["hidden_weights"], ~tokenizer.continues
    words = ((weights > 0) & first[found["hidden_ids"]]).sum(axis=1)
    assert words.min() == 1
    # Eleven words in a row, of which none is hidden with .85^11.
    assert words.mean() == pytest.approx(11 * 0.15 + 0.85**11, abs=0.03)
    assert (words == 2).mean() == pytest.approx(55 * 0.15**2 * 0.85**9, abs=0.015)
    few = hidden(tokenizer, ids, independent=True, most=2)
    assert few["hidden_weights"].shape[1] == 2 and few["hidden_weights"].sum(axis=1).max() == 2


def test_draws_of_an_evaluation_depend_on_the_row_alone(tokenizer):
    ids = np.random.default_rng(1).integers(5, 25, (64, 30)).astype(np.int32)
    ids[:, 0], ids[:, -1] = tokenizer.cls_id, tokenizer.sep_id

    def of(rows: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
        mask = tf.constant((rows != 0).astype(np.int32))
        return hidden(tokenizer, rows, TextDraws(tf.constant(rows), mask, seed), max_length=40)

    every = of(ids)
    padded = np.pad(ids[10:20], [(0, 0), (0, 5)])
    some = of(padded)
    for name in ("hidden_positions", "hidden_ids"):
        np.testing.assert_array_equal(some[name], every[name][10:20])
    np.testing.assert_array_equal(some["input_ids"][:, :30], every["input_ids"][10:20])
    assert (of(ids, 1)["hidden_positions"] != every["hidden_positions"]).any(axis=1).mean() > 0.9
    # As random as others: places and fates.
    numbers = TextDraws(tf.constant(ids), tf.ones_like(ids), 0).uniform(2000).numpy()
    assert numbers.mean() == pytest.approx(0.5, abs=0.01) and numbers.var() == pytest.approx(1 / 12, abs=0.002)
    assert np.abs(np.corrcoef(numbers)[np.triu_indices(64, 1)]).max() < 0.12


# Pairs and metrics -------------------------------------------------------------------------------------------


def test_other_documents_are_others(tokenizer):
    numbers = np.array([3, 3, 5, 8, 8, 8])
    draw = np.random.default_rng(1)
    found = np.array([_of_other_documents(numbers, draw) for _ in range(2000)])
    assert (numbers[found] != numbers).all()
    assert set(found[:, 2]) == {0, 1, 3, 4, 5} and set(found[:, 0]) == {2, 3, 4, 5} and set(found[:, 5]) == {0, 1, 2}
    assert (_of_other_documents(np.array([4, 4]), draw) == -1).all()


def test_metrics_are_of_hidden_pieces_and_rows():
    evaluator, other = PretrainEvaluator(paired=True), PretrainEvaluator(paired=True)
    outputs = {
        "nll": np.float32([2.0, 4.0]),
        "hidden": np.float32([1, 3]),
        "right": np.float32([0, 2]),
        "pair_logits": np.float32([[0, 1], [0, 1]]),
    }
    evaluator.update({"next_sentence_labels": np.array([1, 0])}, outputs)
    other.update({"next_sentence_labels": np.array([1])}, {name: value[:1] for name, value in outputs.items()})
    evaluator.merge(other.state())
    found = evaluator.result()
    assert found["mlm_loss"] == pytest.approx(8 / 5) and found["perplexity"] == pytest.approx(np.exp(8 / 5))
    assert found["mlm_accuracy"] == 2 / 5 and found["pair_accuracy"] == 2 / 3


# The application ---------------------------------------------------------------------------------------------


def app_of(model: Path, folder: Path, **settings):
    from appzoo.text_pretrain.app import TextPretrain
    from appzoo.text_pretrain.config import TextPretrainConfig

    train = {"model": {"pretrain_model_name_or_path": str(model), **settings}, "data": {"sequence_length": 32}}
    app = TextPretrain(TextPretrainConfig(model_name="text_pretrain", checkpoint_dir=str(folder), **train))
    app.load_assets(None)
    return app


def chunk_of(app, texts: list[str]):
    from easytransfer.data.table import BadRows, RowChunk, RowCount

    numbers = np.arange(len(texts))
    chunk = RowChunk(
        {"text": list(texts)}, file="t", lines=numbers + 1, index=numbers, texts=list(texts),
        count=RowCount(len(texts), len(texts), 0), bad_rows=BadRows("skip"),
    )  # fmt: skip
    return app.explode(chunk)


TEXTS = ["the cat is here. the dog is there. who is it?", "that was good. this is bad. we go.", "x " * 80]


def test_losses_are_those_of_the_reference(tiny_model, tmp_path):
    """Logits of `transformers` at the hidden places, and NumPy's cross entropy."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    app = app_of(tiny_model, tmp_path, pair_task="nsp")
    app.build_model()
    encoded = app.encode(chunk_of(app, TEXTS), True)
    rows = np.arange(len(encoded))
    batch = {name: tf.constant(encoded.columns[name].padded(rows, 32, 0)) for name in ("input_ids", "segment_ids")}
    batch["input_mask"] = tf.cast(batch["input_ids"] != app.encoder.tokenizer.pad_id, tf.int32)
    batch |= {
        "next_sentence_labels": tf.constant(encoded.columns["next_sentence_labels"]),
        "example_weight": tf.ones(len(rows)),
    }
    hidden = app.training_batch(batch, draws_of(len(rows)))
    outputs = app.forward(hidden)
    model = transformers.BertForPreTraining.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        found = model(
            torch.tensor(hidden["input_ids"].numpy()).long(),
            torch.tensor(hidden["input_mask"].numpy()),
            torch.tensor(hidden["segment_ids"].numpy()),
        )
    logits = found.prediction_logits.numpy().astype(np.float64)
    at = hidden["hidden_positions"].numpy()
    logits = np.take_along_axis(logits, at[..., None], axis=1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weights, ids = hidden["hidden_weights"].numpy(), hidden["hidden_ids"].numpy()
    nll = -(np.take_along_axis(log_p, ids[..., None], -1)[..., 0] * weights).sum(1)
    np.testing.assert_allclose(outputs["nll"], nll, rtol=1e-4)
    np.testing.assert_allclose(outputs["pair_logits"], found.seq_relationship_logits.numpy(), atol=1e-5)
    losses = app.losses(hidden, outputs, None)
    assert float(losses["mlm_loss"].weight) == weights.sum()
    pairs = found.seq_relationship_logits.numpy().astype(np.float64)
    log_p = pairs - np.log(np.exp(pairs).sum(-1, keepdims=True))
    expected = -log_p[rows, encoded.columns["next_sentence_labels"]].sum()
    assert float(losses["pair_loss"].sum) == pytest.approx(expected, rel=1e-5)
    assert float(losses["pair_loss"].weight) == len(rows)


def test_exchanged_and_replaced_segments(tiny_model, tmp_path):
    for task in ("sop", "nsp"):
        app = app_of(tiny_model, tmp_path, pair_task=task, short_passages=0)
        texts = [f"the {a} is here. the {a} is there. who is the {a}?" for a in ("cat", "dog", "man", "boy") * 30]
        chunk = chunk_of(app, texts)
        plain, changed = app.encode(chunk, False), app.encode(chunk, True)
        label = changed.columns["next_sentence_labels"]
        assert 0.35 < label.mean() < 0.65 and len(label) == len(texts)
        tokenizer = app.encoder.tokenizer
        for row, (first, second) in enumerate(
            zip(*(chunk.columns[n] for n in ("text", "second segment")), strict=True)
        ):
            before, after = (each.columns["input_ids"][row].tolist() for each in (plain, changed))
            assert before == tokenizer.encode([first], [second], 32).input_ids[0].tolist()
            if task == "sop" and label[row]:
                assert after == tokenizer.encode([second], [first], 32).input_ids[0].tolist()
            elif not label[row]:
                assert after == before
            else:
                assert after[: after.index(tokenizer.sep_id)] == before[: before.index(tokenizer.sep_id)]


def test_a_table_without_changed_pairs_is_refused(tiny_model, tmp_path):
    app = app_of(tiny_model, tmp_path, pair_task="nsp")
    encoded = app.encode(chunk_of(app, TEXTS[:1]), True)
    with pytest.raises(DataError, match="several documents"):
        app.on_train_table(encoded)


def test_heads_that_a_model_lacks_are_told_and_families_without_one_refused(tiny_model, tmp_path, capfd):
    from appzoo.pretraining_head import pretraining_head
    from easytransfer.presets import resolve
    from modelzoo.backbone import Backbone

    backbone = Backbone.from_preset(tiny_model)
    without = tmp_path / "without"
    backbone.save_to_preset(without)
    fresh = pretraining_head(backbone, True, 1, resolve(without))
    assert "the head mlm starts from random values" in capfd.readouterr().err
    loaded = pretraining_head(backbone, True, 0, resolve(tiny_model))
    assert "random values" not in capfd.readouterr().err
    table = {
        name: np.abs(loaded.export_weights()[name] - value).max() for name, value in fresh.export_weights().items()
    }
    assert max(table.values()) > 0
    for family in ("cnn", "xlnet"):
        with pytest.raises(ModelError, match="no head for hidden words"):
            pretraining_head(SimpleNamespace(family=SimpleNamespace(name=family)), False, 0, None)


def test_the_encoder_is_written_with_its_head_and_read_again(tiny_model, tmp_path, monkeypatch):
    """One step from random heads, then the folder: its heads are those of the run, and transformers reads them."""
    from training import without_export

    from appzoo import jobs
    from appzoo.cli.reader import JobReader
    from modelzoo.bert.heads import BertMlmHead

    (tmp_path / "texts.text").write_text("\n\n".join(text.replace(". ", ".\n") for text in TEXTS * 4), encoding="utf-8")
    table = tmp_path / "texts.text"
    words = [
        "--modelName=text_pretrain",
        f"--inputTable={table},{table}",
        f"--set=model.pretrain_model_name_or_path={tiny_model}",
    ]
    words += [f"--checkpointDir={tmp_path / 'run'}", "--numEpochs=1", "--batchSize=8", "--sequenceLength=32"]
    with without_export():
        result = jobs.train(JobReader("train", [*words, "--set=model.pair_task=nsp"], []).read().config)
    assert set(result["metrics"]) == {"perplexity", "mlm_loss", "mlm_accuracy", "pair_accuracy"}
    words = [f"--checkpointPath={tmp_path / 'run'}", "--exportType=convert_bert_to_hf"]
    jobs.export(JobReader("export", [*words, f"--exportDirBase={tmp_path / 'encoder'}"], []).read().config)
    head = BertMlmHead.from_preset(tmp_path / "encoder", next_sentence=True)
    from appzoo.jobs.trained import open_trained

    trained = open_trained(JobReader("export", [words[0], f"--exportDirBase={tmp_path}"], []).read().config)
    for name, value in trained.app.model.head.export_weights().items():
        np.testing.assert_array_equal(head.export_weights()[name], value)
    transformers = pytest.importorskip("transformers")
    _, told = transformers.BertForPreTraining.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
