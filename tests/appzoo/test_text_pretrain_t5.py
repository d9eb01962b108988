"""Span corruption: masks, counts and sequences against the published arithmetic, losses against `transformers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from appzoo.text_pretrain.spans.corruption import SpanRemover, span_counts, text_length
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import TextDraws
from modelzoo.importing import export_backbone
from modelzoo.t5.tokenizer import T5Tokenizer

TINY = Path("examples/text_pretrain/tiny-t5")


def remover(most: int, density: float = 0.15, mean: float = 3.0) -> SpanRemover:
    return SpanRemover(most, density, mean, first_sentinel=199, eos_id=1)


def test_lengths_are_those_of_the_published_code():
    """`random_spans_helper` of the T5 library, inputs of 512 and 114: texts of 568 pieces, targets of 114."""
    assert text_length(512, 0.15, 3.0) == 568
    found = remover(568)
    assert (found.input_length, found.target_length) == (512, 114)
    for wanted in (8, 32, 100, 128, 256, 1024):
        # One by one, as its loop does.
        length = wanted - 1
        while length + 1 - round((length + 1) * 0.15) + round(round((length + 1) * 0.15) / 3) + 1 <= wanted:
            length += 1
        assert abs(text_length(wanted, 0.15, 3.0) - length) <= (wanted < 16)
        assert remover(text_length(wanted, 0.15, 3.0)).input_length <= wanted


def test_as_many_pieces_and_spans_are_left_out_as_published_for_every_length():
    """100,000 rows of 2 to 60 pieces: counts by the formulas of the paper's code; a row begins with what stays."""
    lengths = np.random.default_rng(1).integers(2, 61, 100_000).astype(np.int32)
    masks = []
    for part, own in enumerate(np.split(lengths, 4)):
        draws = RowDraws(tf.constant([part, 1]), tf.constant(len(own)))
        masks.append(remover(60).noise(tf.constant(own), tf.constant(60), draws).numpy())
    mask = np.concatenate(masks)
    noise = np.clip(np.round(np.float32(lengths) * np.float32(0.15)), 1, lengths - 1)
    spans = np.maximum(np.round(noise / 3), 1)
    np.testing.assert_array_equal(mask.sum(axis=1), noise)
    starts = mask & ~np.pad(mask[:, :-1], [(0, 0), (1, 0)])
    np.testing.assert_array_equal(starts.sum(axis=1), spans)
    assert not mask[:, 0].any() and mask[np.arange(len(lengths)), lengths - 1].all()
    assert not (mask & (np.arange(60) >= lengths[:, None])).any()
    assert mask.sum() / lengths.sum() == pytest.approx(0.15, abs=0.01)
    for length in (2, 7, 33, 60):
        assert span_counts(length, 0.15, 3.0) == (noise[lengths == length][0], spans[lengths == length][0])


def test_all_masks_are_equally_likely():
    """12 pieces, a half left out in 2 spans: 5 ways to part 6 things in 2, on both sides, 25 masks of 40,000 rows."""
    pieces = tf.fill([40_000], 12)
    mask = remover(12, 0.5, 3.0).noise(pieces, tf.constant(12), RowDraws(tf.constant([5, 6]), tf.constant(40_000)))
    kinds, counts = np.unique(mask.numpy(), axis=0, return_counts=True)
    assert len(kinds) == 25
    # Chi-square with 24 degrees of freedom is above 52 in one of a thousand draws.
    assert ((counts - 1600) ** 2 / 1600).sum() < 52


def expected(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int]]:
    """Remains and target of a row, piece by piece."""
    left, target, number = [], [], -1
    for place, (piece, out) in enumerate(zip(ids, mask, strict=True)):
        if out and not (place and mask[place - 1]):
            number += 1
            left.append(199 - number)
            target.append(199 - number)
        (target if out else left).append(piece)
    return [*left, 1], [*target, 1]


def test_remains_and_targets_are_those_of_a_plain_loop():
    random = np.random.default_rng(2)
    lengths = [*random.integers(2, 41, 60), 40, 2]
    rows = [random.integers(3, 99, n).tolist() for n in lengths]
    width = 45
    ids = np.zeros((len(rows), width), np.int32)
    for row, pieces in enumerate(rows):
        ids[row, : len(pieces)] = pieces
    batch = {"input_ids": tf.constant(ids), "input_mask": tf.constant((ids > 0).astype(np.int32))}
    found = remover(40)
    draws = TextDraws(batch["input_ids"], batch["input_mask"], 7)
    arrays = {name: value.numpy() for name, value in found.remove(batch, draws).items()}
    draws = TextDraws(batch["input_ids"], batch["input_mask"], 7)
    mask = found.noise(tf.reduce_sum(batch["input_mask"], axis=1), tf.constant(width), draws).numpy()
    for row, pieces in enumerate(rows):
        left, target = expected(pieces, mask[row, : len(pieces)].tolist())
        for kind, wanted in (("encoder", left), ("target", target)):
            real = arrays[f"{kind}_mask"][row] > 0
            assert arrays[f"{kind}_ids"][row][real].tolist() == wanted
            assert not arrays[f"{kind}_ids"][row][~real].any() and (np.diff(real.astype(int)) <= 0).all()
    # What is drawn for a row depends on it alone, not on the batch's width.
    some = {name: value[3:9, :41] for name, value in batch.items()}
    again = found.remove(some, TextDraws(some["input_ids"], some["input_mask"], 7))
    np.testing.assert_array_equal(again["target_ids"], arrays["target_ids"][3:9])


def test_a_row_of_one_piece_or_none_has_no_target():
    ids = tf.constant([[5, 0, 0], [0, 0, 0], [5, 6, 0]])
    batch = {"input_ids": ids, "input_mask": tf.cast(ids > 0, tf.int32)}
    found = remover(8).remove(batch, TextDraws(ids, batch["input_mask"], 1))
    assert found["encoder_ids"].numpy()[:, :3].tolist() == [[5, 1, 0], [1, 0, 0], [5, 199, 1]]
    assert found["target_mask"].numpy().sum(axis=1).tolist() == [0, 0, 3]
    assert found["target_ids"].numpy()[2, :3].tolist() == [199, 6, 1]


def test_pieces_stand_where_their_text_does(repository):
    """Of a model that changes no characters: a piece is the text it stands for, and none is left out."""
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizer = T5Tokenizer.from_folder(repository / TINY)
    texts = ["anna has a red cat .", "", "the cät in the 日本 town", "x"]
    ids, spans = tokenizer.pieces_with_offsets(texts)
    assert ids.values.tolist() == tokenizer.encode(texts).values.tolist()
    names = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model).id_to_piece
    for row, text in enumerate(texts):
        end = 0
        for number, (first, last) in zip(ids[row].tolist(), spans[row].tolist(), strict=True):
            assert first == end
            if number != tokenizer.unknown_id:
                assert names(number).replace("▁", " ").strip() == text[first:last].strip()
            end = last
        assert end == len(text)
    assert tokenizer.sentinels == (len(tokenizer) + 99, 100)


def app_of(repository: Path, folder: Path, **settings):
    from appzoo.text_pretrain.config import SpanPretrainConfig
    from appzoo.text_pretrain.spans.app import SpanPretrain

    model = {"pretrain_model_name_or_path": str(repository / TINY), "from_scratch": True, **settings}
    config = SpanPretrainConfig(model_name="text_pretrain_t5", model=model, data={"sequence_length": 24})
    app = SpanPretrain(config)
    app.load_assets(None)
    return app


def test_losses_are_those_of_the_reference(repository, tmp_path):
    """The written folder in `transformers`: its labels are our targets, its loss is our mean."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    app = app_of(repository, tmp_path)
    app.build_model()
    rows = app.tokenizer.encode([f"anna has a {c} cat . the cat of anna is {c} ." for c in ("red", "green", "blue")])
    width = int(rows.lengths.max())
    ids = rows.padded(np.arange(3), width)
    batch = {"input_ids": tf.constant(ids), "input_mask": tf.constant((ids > 0).astype(np.int32))}
    hidden = app.training_batch(batch, RowDraws(tf.constant([1, 2]), tf.constant(3)))
    outputs = app.forward({**hidden, "example_weight": tf.ones(3)})
    # As `export` with convert_bert_to_hf writes it, from which text_generation goes on.
    tokenizer = getattr(app, "encoder", app).tokenizer
    export_backbone(app.model.backbone, tokenizer, tmp_path / "t5", "hf", "the test")
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "t5").eval()
    assert T5Tokenizer.from_folder(tmp_path / "t5").digest == app.tokenizer.digest
    real = hidden["target_mask"].numpy() > 0
    labels = np.where(real, hidden["target_ids"].numpy(), -100)
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(hidden["encoder_ids"].numpy()).long(),
            attention_mask=torch.tensor(hidden["encoder_mask"].numpy()),
            labels=torch.tensor(labels).long(),
        )
    loss = app.losses({"example_weight": tf.ones(3)}, outputs, None)["span_loss"]
    assert float(loss.weight) == real.sum()
    assert float(loss.sum) / float(loss.weight) == pytest.approx(found.loss.item(), rel=1e-5)
    right = (found.logits.numpy().argmax(-1) == labels) & real
    assert outputs["right"].numpy().sum() == right.sum()


def test_what_does_not_fit_is_refused(repository, tmp_path):
    from easytransfer.errors import ConfigError

    with pytest.raises(ConfigError, match="has no embedding for the sentinel 189"):
        app_of(repository, tmp_path, pretrain_model_name_or_path=str(repository / "examples/text_generation/tiny-t5"))
    with pytest.raises(ValueError, match="data.label_name does not apply to text_pretrain_t5"):
        from appzoo.text_pretrain.config import SpanPretrainConfig

        SpanPretrainConfig(data={"label_name": "x"})


def test_a_model_of_ones_own_begins_with_zoo_new(tmp_path):
    from modelzoo import commands
    from modelzoo.loading import load_backbone
    from modelzoo.t5.config import T5Config

    path = tmp_path / "t.txt"
    path.write_text("low lower lowest new newer newest\n" * 5, encoding="utf-8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = commands.new(tmp_path / "made", str(path), "t5", 40, **sizes)
    config, tokenizer = T5Config.from_folder(tmp_path / "made"), T5Tokenizer.from_folder(tmp_path / "made")
    assert (config.d_model, config.d_kv, config.d_ff, config.num_decoder_layers) == (16, 8, 64, 1)
    assert config.vocab_size == tokenizer.sentinels[0] + 1 == found["vocab"] + 100
    assert load_backbone(tmp_path / "made", from_scratch=True).count_params() > 0
