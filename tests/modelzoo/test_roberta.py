"""RoBERTa: outputs equal those of transformers to 1e-4 in float32; its folders; what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tiny_bert import torch_batch
from tiny_roberta import BPE, SIZES, hf_folder

from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import catalogue
from easytransfer.text.byte_level_bpe import ByteLevelBpe
from easytransfer.text.piece_model import PUBLISHED_FIRST, fairseq_order
from easytransfer.text.sentence_piece import XlmRobertaSentencePiece
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.bert.backbone import BertBackbone
from modelzoo.encoder_heads import PretrainingHead
from modelzoo.importing import export_model, import_model
from modelzoo.loading import load_backbone, load_config, load_tokenizer
from modelzoo.roberta.backbone import RobertaBackbone
from modelzoo.roberta.config import RobertaConfig
from modelzoo.roberta.convert import ROBERTA
from modelzoo.roberta.heads import RobertaMlmHead
from modelzoo.roberta.tiny import tiny_bpe
from modelzoo.tiny_pieces import piece_model, tiny_pieces

TOLERANCE = 1e-4


@pytest.fixture
def batch():
    """Three rows of 11 tokens, two of them padded with the model's own padding; no other id is that of the padding."""
    random = np.random.default_rng(3)
    ids = random.integers(2, SIZES["vocab_size"], [3, 11], dtype=np.int32)
    mask = np.ones_like(ids)
    mask[1, 7:] = mask[2, 2:] = 0
    return {"input_ids": np.where(mask, ids, 1), "input_mask": mask, "segment_ids": np.zeros_like(ids)}


def reference(model, batch, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(**torch_batch(batch), **options)


@pytest.mark.parametrize("settings", [{}, {"hidden_act": "relu", "layer_norm_eps": 1e-2}], ids=["usual", "relu"])
def test_hidden_states_and_pooled_output(tmp_path, batch, settings):
    model = hf_folder(tmp_path, **settings)
    backbone = Backbone.from_preset(tmp_path)
    assert isinstance(backbone, RobertaBackbone)
    expected, actual = reference(model, batch, output_hidden_states=True), backbone(batch)
    real = batch["input_mask"] == 1
    assert len(actual["hidden_states"]) == SIZES["num_hidden_layers"] + 1
    for ours, theirs in zip(actual["hidden_states"], expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours.numpy()[real], theirs.numpy()[real], atol=TOLERANCE)
    for outputs in (actual, backbone(batch, pooled_only=True)):
        np.testing.assert_allclose(outputs["pooled_output"], expected.pooler_output.numpy(), atol=TOLERANCE)
    # Padding may have any id, and positions are those of tokens: tables of ids are filled with zeros.
    zeros = {**batch, "input_ids": batch["input_ids"] * batch["input_mask"]}
    np.testing.assert_allclose(backbone(zeros)["pooled_output"], actual["pooled_output"], atol=1e-6)
    # The same by embeddings, and by a mask that says for each token what it looks at.
    embeddings = {"embeddings": backbone.embedded(batch), "input_mask": batch["input_mask"]}
    np.testing.assert_allclose(backbone(embeddings)["pooled_output"], actual["pooled_output"], atol=1e-6)
    mask = np.repeat(batch["input_mask"][:, None], 11, axis=1)
    np.testing.assert_allclose(
        backbone({**batch, "input_mask": mask})["pooled_output"], actual["pooled_output"], atol=1e-6
    )


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_masked_lm_logits_and_a_folder_without_pooler(tmp_path, batch, act):
    model = hf_folder(tmp_path, "RobertaForMaskedLM", hidden_act=act)
    backbone, head = Backbone.from_preset(tmp_path), RobertaMlmHead.from_preset(tmp_path)
    assert backbone.load_report.allowed == ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]
    assert not head.load_report.missing
    logits = head(backbone(batch)["sequence_output"], backbone.input_embeddings)["mlm_logits"].numpy()
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(logits[real], reference(model, batch).logits.numpy()[real], atol=TOLERANCE)
    # Only a pooler that is not there is let through.
    tensors = load_file(tmp_path / "model.safetensors")
    for name, change in (
        ("roberta.encoder.layer.1.output.dense.bias", None),
        ("roberta.pooler.dense.weight", np.ones([3, 3], np.float32)),
    ):
        kept = {key: value for key, value in tensors.items() if key != name}
        save_file(kept if change is None else {**kept, name: change}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match="does not fit the model"):
            load_backbone(tmp_path)


@pytest.mark.parametrize("architecture", ["RobertaModel", "RobertaForMaskedLM"])
def test_round_trip_is_bit_identical(tmp_path, architecture):
    model = hf_folder(tmp_path / "hf", architecture)
    original = load_file(tmp_path / "hf" / "model.safetensors")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "hf2", "hf")
    final = load_file(tmp_path / "hf2" / "model.safetensors")
    assert set(final) == set(original)
    for name, value in original.items():
        np.testing.assert_array_equal(final[name], value)
    reread, info = type(model).from_pretrained(tmp_path / "hf2", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    digests = {load_tokenizer(tmp_path / name).digest for name in ("hf", "ours", "hf2")}
    assert digests == {ByteLevelBpe(BPE).digest}
    assert json.loads((tmp_path / "hf2" / "config.json").read_text())["architectures"] == [architecture]
    for form in ("google", "ez"):
        with pytest.raises(ModelError, match=f"family roberta do not have; got '{form}'; accepted: hf"):
            export_model(tmp_path / "ours", tmp_path / form, form)
    with pytest.raises(ModelError, match="unknown model format; got 'google'; accepted: auto, hf"):
        import_model(tmp_path / "hf", tmp_path / "x", "google")


def test_saved_and_sharded_folders_load_again(tmp_path, batch):
    model = hf_folder(tmp_path / "a")
    backbone = load_backbone(tmp_path / "a")
    backbone.save_to_preset(tmp_path / "b", load_tokenizer(tmp_path / "a"))
    again = load_backbone(tmp_path / "b")
    np.testing.assert_array_equal(again(batch)["pooled_output"], backbone(batch)["pooled_output"])
    # Without a head the names have no prefix.
    assert "embeddings.word_embeddings.weight" in load_file(tmp_path / "b" / "model.safetensors")
    model.save_pretrained(tmp_path / "c", safe_serialization=True, max_shard_size="4KB")
    assert len(list((tmp_path / "c").glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(
        load_backbone(tmp_path / "c")(batch)["pooled_output"], backbone(batch)["pooled_output"]
    )


@pytest.mark.parametrize("architecture", ["XLMRobertaModel", "XLMRobertaForMaskedLM"])
def test_xlm_roberta_is_the_same_network_with_other_pieces(tmp_path, batch, architecture):
    """Equal to transformers, and back in files that it reads as what they are, the tokenizer included."""
    transformers = pytest.importorskip("transformers")
    pieces = XlmRobertaSentencePiece(fairseq_order(piece_model(tiny_pieces(cased=True), PUBLISHED_FIRST), "test"))
    model = hf_folder(tmp_path / "hf", architecture, pieces, vocab_size=len(pieces))
    backbone, tokenizer = load_backbone(tmp_path / "hf"), load_tokenizer(tmp_path / "hf")
    assert isinstance(backbone, RobertaBackbone) and isinstance(tokenizer, XlmRobertaSentencePiece)
    real, states = batch["input_mask"] == 1, backbone(batch)["sequence_output"]
    found, expected = states.numpy(), reference(model, batch)
    if architecture == "XLMRobertaForMaskedLM":
        found = RobertaMlmHead.from_preset(tmp_path / "hf")(states, backbone.input_embeddings)["mlm_logits"].numpy()
    expected = expected.logits if architecture == "XLMRobertaForMaskedLM" else expected.last_hidden_state
    np.testing.assert_allclose(found[real], expected.numpy()[real], atol=TOLERANCE)

    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "hf2", "hf")
    original, final = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "hf2"))
    assert set(final) == set(original)
    for name, value in original.items():
        np.testing.assert_array_equal(final[name], value)
    stored = json.loads((tmp_path / "hf2" / "config.json").read_text())
    assert (stored["model_type"], stored["architectures"]) == ("xlm-roberta", [architecture])
    reread, info = type(model).from_pretrained(tmp_path / "hf2", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    texts = ["the movie was good", "a book, 质量 不错"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf2")(texts, texts[::-1])["input_ids"]
    tokens = load_tokenizer(tmp_path / "ours").encode(texts, texts[::-1])
    assert [tokens.input_ids[row].tolist() for row in range(2)] == theirs
    assert load_config(tmp_path / "ours").replace(hidden_dropout_prob=0.0).model_type == "xlm-roberta"
    # What a run writes is one, too.
    backbone.save_to_preset(tmp_path / "run", tokenizer)
    again = load_backbone(tmp_path / "run")
    np.testing.assert_array_equal(again(batch)["sequence_output"], states)
    assert load_tokenizer(tmp_path / "run").digest == tokenizer.digest


def test_chinese_models_of_easytransfer_stay_berts(tmp_path):
    commands.make_tiny(tmp_path / "bert")
    path = tmp_path / "bert" / "config.json"
    data = json.loads(path.read_text())
    data.pop("architectures")
    path.write_text(json.dumps({**data, "model_type": "roberta"}))
    assert isinstance(load_backbone(tmp_path / "bert"), BertBackbone)
    assert catalogue.entries()["hit-roberta-base-zh"]["family"] == "bert"
    # A configuration of this family says which it is, in a run too, where only the configuration is.
    commands.make_tiny(tmp_path / "roberta", "roberta")
    config = load_config(tmp_path / "roberta")
    assert isinstance(config, RobertaConfig) and config.to_dict()["architectures"] == ["RobertaForMaskedLM"]
    assert RobertaConfig(vocab_size=9).to_dict()["architectures"] == ["RobertaModel"]
    changed = config.replace(hidden_dropout_prob=0.0)
    assert isinstance(changed, RobertaConfig) and changed.first_position == 2


def test_lengths_and_segments(batch):
    config = RobertaConfig(**SIZES)
    backbone = RobertaBackbone(config)
    assert (config.max_tokens, config.first_position) == (24, 2)
    longest = tf.fill([1, 24], 5)
    backbone({"input_ids": longest, "input_mask": tf.ones_like(longest)})
    with pytest.raises(ModelError, match="accepted: up to 24 tokens"):
        backbone({"input_ids": tf.fill([1, 25], 5), "input_mask": tf.ones([1, 25], tf.int32)})
    with pytest.raises(tf.errors.InvalidArgumentError, match="segment ids must lie in"):
        backbone({**batch, "segment_ids": np.ones_like(batch["input_ids"])})
    assert [len(group) for group in backbone.layer_groups()] == [5, 16, 16, 16, 2]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone(batch)["pooled_output"] ** 2)
    assert all(gradient is not None for gradient in tape.gradient(loss, backbone.trainable_variables))
    with pytest.raises(ModelError, match="has no row behind pad_token_id 1"):
        RobertaConfig.from_dict({**SIZES, "max_position_embeddings": 2})


def test_what_is_no_roberta_is_refused(tmp_path):
    for key, value in (("position_embedding_type", "relative_key"), ("is_decoder", True)):
        with pytest.raises(ModelError, match=f"{key} in .* is not supported"):
            RobertaConfig.from_dict({**SIZES, key: value})
    with pytest.raises(ModelError, match="is not a RoBERTa; got 'bert'"):
        RobertaConfig.from_dict({**SIZES, "model_type": "bert"})
    with pytest.raises(ModelError, match="hidden_act in .* is not supported"):
        RobertaConfig.from_dict({**SIZES, "hidden_act": "swish"})
    with pytest.raises(ConfigError, match="unknown model setting"):
        RobertaConfig(**SIZES).replace(nothing=1)
    folder = tmp_path / "tiny"
    commands.make_tiny(folder, "roberta")
    with pytest.raises(ModelError, match="predict nothing about pairs"):
        PretrainingHead.__init__(RobertaMlmHead.__new__(RobertaMlmHead), RobertaConfig(**SIZES), pairs=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in .*accepted: model.safetensors; "):
        load_backbone(folder)
    # What fairseq publishes.
    (folder / "model.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="holds only model.pt, a pickle"):
        load_backbone(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(ModelError, match="no byte-level BPE vocabulary"):
        load_tokenizer(folder)


def test_make_tiny_is_seeded_and_usable(tmp_path):
    found = [commands.make_tiny(tmp_path / name, "roberta", seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2] and found[0]["vocab"] == load_config(tmp_path / "a").vocab_size
    tokenizer = load_tokenizer(tmp_path / "a")
    assert tokenizer.tokenize("the movie was good,") == ["the", "Ġmovie", "Ġwas", "Ġgood", ","]
    assert [text for _, *text in tokenizer.offsets("a 好的")] == [[0, 1], [2, 3], [3, 4]]
    commands.make_tiny(tmp_path / "d", "roberta", vocab=str(tmp_path / "a"))
    assert load_tokenizer(tmp_path / "d").digest == tokenizer.digest
    commands.make_tiny(tmp_path / "e", "roberta", vocab=["good", "film"])
    assert load_tokenizer(tmp_path / "e").digest == ByteLevelBpe(tiny_bpe(["good", "film"])).digest
    with pytest.raises(ModelError, match="no folder"):
        commands.make_tiny(tmp_path / "f", "roberta", vocab=str(tmp_path / "none"))
    assert commands.verify(str(tmp_path / "a"))["forward"] == "finite"
    made = commands.make_tiny(tmp_path / "xlm", "xlm-roberta")
    pieces = load_tokenizer(tmp_path / "xlm")
    assert made["vocab"] == len(pieces) and load_config(tmp_path / "xlm").model_type == "xlm-roberta"
    assert pieces.tokenize("the movie") == ["▁the", "▁movie"] and pieces.vocab[-1] == "<mask>"
    assert commands.verify(str(tmp_path / "xlm"))["forward"] == "finite"
    vocab = str(tmp_path / "xlm" / "sentencepiece.bpe.model")
    commands.make_tiny(tmp_path / "same", "xlm-roberta", vocab=vocab)
    assert load_tokenizer(tmp_path / "same").digest == pieces.digest
    with pytest.raises(ModelError, match="unknown model family; got 'xlm'; accepted: .*xlm-roberta"):
        commands.make_tiny(tmp_path / "f", "xlm")
    shown = commands.show(str(tmp_path / "a"))
    assert shown["family"] == "roberta" and shown["parameters"] == ROBERTA.parameter_count(load_config(tmp_path / "a"))
