"""XLNet: outputs equal those of transformers to 1e-4 in float32; files of both forms; what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tiny_bert import torch_batch
from tiny_xlnet import SIZES, hf_folder

from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.dropout import dropout_seed
from easytransfer.train.precision import compute_precision
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.checkpoint import write_checkpoint
from modelzoo.encoder_weights import initial_value
from modelzoo.importing import export_model, import_model
from modelzoo.loading import load_backbone, load_config, load_tokenizer
from modelzoo.xlnet.backbone import XlnetBackbone
from modelzoo.xlnet.config import XlnetConfig
from modelzoo.xlnet.convert import XLNET, stacked
from modelzoo.xlnet.formats import write_folder
from modelzoo.xlnet.heads import XlnetLmHead
from modelzoo.xlnet.network import relative_shift

TOLERANCE = 1e-4
SUMMARY = ["model/sequnece_summary/summary/bias", "model/sequnece_summary/summary/kernel"]
CONFIG = XlnetConfig.from_dict(SIZES)


def values_of(config, seed=5):
    return {row.name: initial_value(row, seed, 0.1) for row in XLNET.table(config)}


def padded_before(batch):
    """The rows of a batch with their padding before them, as the published tokenizer pads."""
    ends = batch["input_mask"].sum(axis=1)
    return {
        name: np.stack([np.roll(row, -end) for row, end in zip(value, ends, strict=True)])
        for name, value in batch.items()
    }


@pytest.mark.parametrize(
    "settings", [{}, {"ff_activation": "gelu_new", "layer_norm_eps": 1e-2, "clamp_len": 3}], ids=["usual", "others"]
)
def test_hidden_states_and_summary(tmp_path, batch, settings):
    torch = pytest.importorskip("torch")
    model = hf_folder(tmp_path, "XLNetForSequenceClassification", **settings)
    backbone = Backbone.from_preset(tmp_path)
    assert isinstance(backbone, XlnetBackbone) and not backbone.load_report.missing
    before, real = padded_before(batch), batch["input_mask"] == 1
    with torch.no_grad():
        expected = model.transformer(**torch_batch(batch), output_hidden_states=True).hidden_states
        last = model.transformer(**torch_batch(before)).last_hidden_state
        summary = model.sequence_summary(last).numpy()
    actual = backbone(batch)
    assert len(actual["hidden_states"]) == SIZES["n_layer"] + 1
    for ours, theirs in zip(actual["hidden_states"], expected, strict=True):
        np.testing.assert_allclose(ours.numpy()[real], theirs.numpy()[real], atol=TOLERANCE)
    np.testing.assert_allclose(actual["sequence_output"].numpy()[real], expected[-1].numpy()[real], atol=TOLERANCE)
    for outputs in (actual, backbone(before), backbone(batch, pooled_only=True)):
        np.testing.assert_allclose(outputs["pooled_output"], summary, atol=TOLERANCE)
    np.testing.assert_allclose(actual["summary_state"], last[:, -1].numpy(), atol=TOLERANCE)
    # A mask of pairs says the same as one of tokens.
    wide = {**batch, "input_mask": np.repeat(batch["input_mask"][:, None], 11, axis=1)}
    np.testing.assert_allclose(backbone(wide)["pooled_output"], summary, atol=TOLERANCE)


def permutation(batch, targets=4):
    """Every token sees those before it in a random order; some of them are to be predicted."""
    random = np.random.default_rng(8)
    rows, tokens = batch["input_ids"].shape
    order = np.stack([random.permutation(tokens) for _ in range(rows)])
    perm_mask = (order[:, :, None] <= order[:, None, :]).astype(np.float32)
    places = np.stack([random.choice(tokens, targets, replace=False) for _ in range(rows)])
    return {"perm_mask": perm_mask, "target_mapping": np.eye(tokens, dtype=np.float32)[places]}


def test_both_streams_and_logits(tmp_path, batch):
    torch = pytest.importorskip("torch")
    model = hf_folder(tmp_path, "XLNetLMHeadModel")
    # Pre-training does not train a summary, so files lack it.
    backbone, head = Backbone.from_preset(tmp_path), XlnetLmHead.from_preset(tmp_path)
    assert sorted(backbone.load_report.allowed) == SUMMARY and not head.load_report.missing
    permuted, real = permutation(batch), batch["input_mask"] == 1
    with torch.no_grad():
        tokens = model(**torch_batch(batch)).logits.numpy()
        options = {name: torch.tensor(value) for name, value in permuted.items()}
        queries = model(**torch_batch(batch), **options)
        states = model.transformer(**torch_batch(batch), **options, output_hidden_states=True).hidden_states
    found = backbone(batch)
    logits = head(found["sequence_output"], backbone.input_embeddings).numpy()
    np.testing.assert_allclose(logits[real], tokens[real], atol=TOLERANCE)
    found = backbone({**batch, **permuted})
    logits = head(found["query_output"], backbone.input_embeddings)
    np.testing.assert_allclose(logits, queries.logits.numpy(), atol=TOLERANCE)
    # Content and query stream take turns there.
    for ours, theirs in zip(found["hidden_states"], states[::2], strict=True):
        np.testing.assert_allclose(ours.numpy()[real], theirs.numpy()[real], atol=TOLERANCE)
    # The query stream does not know the token that it predicts.
    place = int(np.argmax(permuted["target_mapping"][0, 0]))
    changed = {**batch, "input_ids": batch["input_ids"].copy()}
    changed["input_ids"][0, place] = (changed["input_ids"][0, place] + 1) % SIZES["vocab_size"]
    again = backbone({**changed, **permuted})
    np.testing.assert_array_equal(again["query_output"][0, 0], found["query_output"][0, 0])
    assert np.abs(again["sequence_output"][0, place] - found["sequence_output"][0, place]).max() > 1e-3


@pytest.mark.parametrize(("mem_len", "reuse_len"), [(None, None), (8, 6)], ids=["all", "bounded"])
def test_memory_over_segments(tmp_path, batch, mem_len, reuse_len):
    torch = pytest.importorskip("torch")
    model = hf_folder(tmp_path, "XLNetLMHeadModel", mem_len=mem_len, reuse_len=reuse_len)
    backbone, head = Backbone.from_preset(tmp_path), XlnetLmHead.from_preset(tmp_path)
    whole = {**batch, "input_mask": np.ones_like(batch["input_mask"])}
    other = {**whole, "input_ids": whole["input_ids"][:, ::-1].copy()}
    permuted, expected, memory = permutation(batch), None, None
    for segment in (whole, other):
        with torch.no_grad():
            expected = model(**torch_batch(segment), mems=expected and expected.mems, use_mems=True)
        found = backbone(segment if memory is None else {**segment, "memory": memory}, with_memory=True)
        memory = found["memory"]
        logits = head(found["sequence_output"], backbone.input_embeddings)
        np.testing.assert_allclose(logits, expected.logits.numpy(), atol=TOLERANCE)
        for ours, theirs in zip(memory, expected.mems, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy().transpose(1, 0, 2), atol=TOLERANCE)
    # The last segment is padded, and has both streams.
    with torch.no_grad():
        options = {name: torch.tensor(value) for name, value in permuted.items()}
        expected = model(**torch_batch(batch), mems=expected.mems, **options)
    found = backbone({**batch, **permuted, "memory": memory})
    logits = head(found["query_output"], backbone.input_embeddings)
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=TOLERANCE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have no padding"):
        backbone(batch, with_memory=True)
    with pytest.raises(ModelError, match="memory is not that of every layer; got 1"):
        backbone({**batch, "memory": memory[:1]})


def test_scores_by_distance_become_scores_by_place():
    """Against the definition: token i has the distance i + places - j from place j, and the largest comes first."""
    tokens, places = 4, 3
    seen = tokens + places
    scores = np.random.default_rng(1).normal(size=(2, 3, tokens, seen + tokens)).astype(np.float32)
    expected = np.zeros((2, 3, tokens, seen), np.float32)
    for i in range(tokens):
        for j in range(seen):
            expected[:, :, i, j] = scores[:, :, i, seen - (i + places - j)]
    np.testing.assert_array_equal(relative_shift(tf.constant(scores), seen), expected)


def test_round_trip_through_every_form_is_bit_identical(tmp_path, batch):
    model = hf_folder(tmp_path / "hf", "XLNetLMHeadModel")
    original = load_file(tmp_path / "hf" / "model.safetensors")
    random = np.random.default_rng(2)
    for name, shape in (("weight", (32, 32)), ("bias", (32,))):
        original[f"sequence_summary.summary.{name}"] = random.normal(size=shape).astype(np.float32)
    save_file(original, tmp_path / "hf" / "model.safetensors")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "google", "google")
    import_model(tmp_path / "google", tmp_path / "ours2", "google")
    export_model(tmp_path / "ours2", tmp_path / "hf2", "hf")
    final = load_file(tmp_path / "hf2" / "model.safetensors")
    assert set(final) == set(original) - {"lm_loss.weight"}
    for name, value in final.items():
        np.testing.assert_array_equal(value, original[name])
    reread, info = type(model).from_pretrained(tmp_path / "hf2", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert set(info["unexpected_keys"]) == {"sequence_summary.summary.weight", "sequence_summary.summary.bias"}
    assert reread.config.d_model == 32 and reread.config.ff_activation == "gelu"
    folders = [tmp_path / name for name in ("hf", "ours", "google", "ours2", "hf2")]
    assert {load_config(folder).hidden_act for folder in folders} == {"gelu"}
    assert len({load_tokenizer(folder).digest for folder in folders}) == 1
    # Sharded, and without a head and so without the prefix.
    model.save_pretrained(tmp_path / "shards", safe_serialization=True, max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model.transformer.save_pretrained(tmp_path / "bare", safe_serialization=True)
    assert "word_embedding.weight" in load_file(tmp_path / "bare" / "model.safetensors")
    wanted = load_backbone(tmp_path / "hf")(batch)["sequence_output"]
    for name in ("shards", "bare"):
        np.testing.assert_array_equal(load_backbone(tmp_path / name)(batch)["sequence_output"], wanted)
    del original["sequence_summary.summary.bias"]
    save_file(original, tmp_path / "ours2" / "model.safetensors")
    with pytest.raises(ModelError, match="missing +model/sequnece_summary/summary/bias"):
        load_backbone(tmp_path / "ours2")
    with pytest.raises(
        ModelError, match="unknown model format, or one .* xlnet do not have; got 'ez'; accepted: hf, google"
    ):
        export_model(tmp_path / "ours", tmp_path / "ez", "ez")


def test_checkpoints_have_exactly_the_original_names(tmp_path):
    write_folder(tmp_path / "google", "google", CONFIG, values_of(CONFIG))
    names = dict(tf.train.list_variables(str(tmp_path / "google" / "xlnet_model.ckpt")))
    scope = "model/transformer"
    assert names[f"{scope}/r_w_bias"] == names[f"{scope}/r_r_bias"] == names[f"{scope}/r_s_bias"] == [3, 4, 8]
    assert names[f"{scope}/seg_embed"] == [3, 2, 4, 8]
    assert names[f"{scope}/word_embedding/lookup_table"] == [63, 32] and names[f"{scope}/mask_emb/mask_emb"] == [
        1,
        1,
        32,
    ]
    assert {names[f"{scope}/layer_2/rel_attn/{part}/kernel"] == [32, 4, 8] for part in "qkvor"} == {True}
    assert names[f"{scope}/layer_0/rel_attn/LayerNorm/gamma"] == names[f"{scope}/layer_0/ff/LayerNorm/beta"] == [32]
    assert names[f"{scope}/layer_0/ff/layer_1/kernel"] == [32, 48] == names[f"{scope}/layer_0/ff/layer_2/kernel"][::-1]
    assert names["model/sequnece_summary/summary/kernel"] == [32, 32] and names["model/lm_loss/bias"] == [63]
    # 4 stacked arrays, 2 embeddings, 13 of each layer, summary and head.
    assert len(names) == 4 + 2 + 3 * 13 + 2 + 1
    stated = json.loads((tmp_path / "google" / "xlnet_config.json").read_text())
    assert (stated["n_token"], stated["n_layer"], stated["untie_r"], stated["ff_activation"]) == (63, 3, True, "gelu")


def test_google_checkpoints_whose_layers_share_biases(tmp_path):
    values = values_of(CONFIG)
    checkpoint = stacked(values, CONFIG)
    shared = {
        name: value[0] if name.endswith(("r_w_bias", "r_r_bias", "r_s_bias")) else value
        for name, value in checkpoint.items()
    }
    slots = {f"model/transformer/r_w_bias/{slot}": np.ones([4, 8], np.float32) for slot in ("Adam", "Adam_1")}
    write_checkpoint(tmp_path / "xlnet_model.ckpt", {**shared, **slots, "global_step": np.array(7)})
    data = {"d_head": 8, "d_inner": 48, "d_model": 32, "ff_activation": "gelu", "n_head": 4, "n_layer": 3}
    (tmp_path / "xlnet_config.json").write_text(json.dumps({**data, "n_token": 63, "untie_r": False}))
    backbone = load_backbone(tmp_path)
    # Google's code calls the tanh form gelu.
    assert isinstance(backbone, XlnetBackbone) and backbone.config.hidden_act == "gelu_tanh"
    assert len(backbone.load_report.ignored) == 3 and not backbone.load_report.missing
    for name, value in backbone.export_weights().items():
        same = name.replace("layer_1", "layer_0").replace("layer_2", "layer_0") if "_bias" in name else name
        np.testing.assert_array_equal(value, values[same])
    for wrong, message in (
        ({"model/transformer/seg_embed": checkpoint["model/transformer/seg_embed"][:2]}, "does not fit 3 layers"),
        ({"model/lm_loss/weight": np.zeros([63, 32], np.float32)}, "model/lm_loss/weight differs"),
    ):
        write_checkpoint(tmp_path / "xlnet_model.ckpt", {**shared, **wrong})
        with pytest.raises(ModelError, match=message):
            load_backbone(tmp_path)


def test_training_reaches_every_weight_of_the_content_stream(batch):
    backbone = XlnetBackbone(CONFIG.replace(hidden_dropout_prob=0.3))
    assert [len(group) for group in backbone.layer_groups()] == [2, 17, 17, 17, 2]
    variables = {id(variable) for group in backbone.layer_groups() for variable in group}
    assert variables == {id(variable) for variable in backbone.trainable_variables}
    assert backbone.count_params() == XLNET.parameter_count(CONFIG)
    for options in ({}, permutation(batch)):
        with tf.GradientTape() as tape:
            found = backbone({**batch, **options})
            loss = tf.reduce_sum(found["pooled_output"] ** 2) + tf.reduce_sum(found.get("query_output", 0.0) ** 2)
        gradients = zip(backbone.trainable_variables, tape.gradient(loss, backbone.trainable_variables), strict=True)
        without = [variable is backbone.encoder.mask_embedding for variable, gradient in gradients if gradient is None]
        assert without == ([] if options else [True])
    # Every call of a layer has masks of its own, the same for one seed.
    with dropout_seed(tf.constant([1, 2])):
        first = backbone(batch, training=True)["sequence_output"]
    with dropout_seed(tf.constant([1, 2])):
        np.testing.assert_array_equal(backbone(batch, training=True)["sequence_output"], first)
    assert np.abs(first - backbone(batch)["sequence_output"]).max() > 0.01
    # Other vectors may stand in place of those of words.
    wanted = backbone(batch)["pooled_output"]
    parts = {name: batch[name] for name in ("input_mask", "segment_ids")}
    np.testing.assert_allclose(
        backbone({**parts, "embeddings": backbone.embedded(batch)})["pooled_output"], wanted, atol=1e-6
    )
    with compute_precision("float16"):
        halved = XlnetBackbone(CONFIG)(batch)["pooled_output"]
    assert halved.dtype == tf.float32
    np.testing.assert_allclose(halved, XlnetBackbone(CONFIG)(batch)["pooled_output"], atol=0.01)


def test_what_is_no_xlnet_is_refused(tmp_path):
    for key, value in (("attn_type", "uni"), ("bi_data", True), ("same_length", True), ("summary_type", "mean")):
        with pytest.raises(ModelError, match=f"{key} in .* is not supported"):
            XlnetConfig.from_dict({**SIZES, key: value})
    with pytest.raises(ModelError, match="d_head in configuration is not d_model / n_head; got 16"):
        XlnetConfig.from_dict({**SIZES, "d_head": 16})
    with pytest.raises(ModelError, match="d_model and hidden_size in configuration differ"):
        XlnetConfig.from_dict({**SIZES, "hidden_size": 64})
    with pytest.raises(ModelError, match="is not an XLNet; got 'bert'"):
        XlnetConfig.from_dict({**SIZES, "model_type": "bert"})
    made = commands.make_tiny(tmp_path / "tiny", "xlnet", seed=3)
    for name in ("tensor", "stage"):
        with pytest.raises(ConfigError, match="networks of the family xlnet cannot be split over workers"):
            Backbone.from_preset(tmp_path / "tiny", **{name: object()})
    backbone = load_backbone(tmp_path / "tiny")
    ids = np.ones([1, 3], np.int32)
    for name, value, message in (
        ("perm_mask", np.full([1, 3, 3], 2), "perm_mask must be 0 or 1"),
        ("segment_ids", ids * 5, "segment ids must lie in"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            backbone({"input_ids": ids, "input_mask": ids, name: value})
    with pytest.raises(ModelError, match="target_mapping has another shape"):
        backbone({"input_ids": ids, "input_mask": ids, "target_mapping": ids})
    # What it is, and that equal seeds give equal files.
    assert commands.verify(str(tmp_path / "tiny"))["forward"] == "finite"
    assert commands.show(str(tmp_path / "tiny"))["family"] == "xlnet" and made["vocab"] == backbone.config.vocab_size
    commands.make_tiny(tmp_path / "again", "xlnet", seed=3)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("tiny", "again")]
    assert files[0] == files[1]
    assert load_tokenizer(tmp_path / "tiny").tokenize("the movie was Good") == [
        "▁the",
        "▁movie",
        "▁was",
        "▁",
        "G",
        "o",
        "o",
        "d",
    ]
