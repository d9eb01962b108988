"""T5 against transformers: states, logits, files in both directions, texts written greedily and by beams."""

import json

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets.safetensors_file import read_safetensors, write_safetensors
from easytransfer.text.decoding import Decoding, written
from modelzoo.checkpoint import write_checkpoint
from modelzoo.commands import make_tiny
from modelzoo.loading import load_backbone
from modelzoo.t5 import convert, formats
from modelzoo.t5.backbone import T5Backbone
from modelzoo.t5.config import T5Config
from modelzoo.t5.network import buckets

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS, PLACES, WORDS = 50, 150, 60
# Plain with one table, and version 1.1.
KINDS = {"plain": ("relu", True), "gated": ("gated-gelu", False)}


def save_reference(folder, kind):
    """Writes a random model of transformers in its own form and returns it."""
    projection, tied = KINDS[kind]
    torch.manual_seed(3)
    sizes = {"vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = transformers.T5Config(**sizes, **ids, num_decoder_layers=3, feed_forward_proj=projection)
    config.scale_decoder_outputs = tied
    model = transformers.T5ForConditionalGeneration(config).eval()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(WORDS, 32) * 0.3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "relative_attention_bias" in name:
                value.normal_(0, 0.5)
        # Else padding, which is the start, wins every place of the plain one.
        model.shared.weight[0] *= 0
    folder.mkdir()
    tensors = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    if tied:
        del tensors["lm_head.weight"]
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "tie_word_embeddings": tied}))
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Our network from the folder of the reference, the reference, and the folder."""
    folder = tmp_path_factory.mktemp("t5") / request.param
    reference = save_reference(folder, request.param)
    return load_backbone(folder), reference, folder


@pytest.fixture(scope="module")
def texts():
    """Texts of 3 to 150 ids, padded."""
    random = np.random.default_rng(0)
    mask = (np.arange(PLACES)[None] < random.integers(3, PLACES + 1, (ROWS, 1))).astype(np.int32)
    return random.integers(2, WORDS, (ROWS, PLACES)).astype(np.int32) * mask, mask


def test_states_and_logits(pair, texts):
    network, reference, _ = pair
    assert isinstance(network, T5Backbone) and not network.load_report.unexpected
    (ids, mask), target = texts, np.random.default_rng(1).integers(2, WORDS, (ROWS, 30)).astype(np.int32)
    outputs = network({"input_ids": ids, "input_mask": mask, "decoder_ids": network.shifted(target)})
    with torch.no_grad():
        expected = reference(torch.tensor(ids), torch.tensor(mask), labels=torch.tensor(target, dtype=torch.long))
    states = expected.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(outputs["sequence_output"] * mask[..., None], states * mask[..., None], atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], expected.logits.numpy(), atol=2e-5)
    assert "logits" not in network({"input_ids": ids, "input_mask": mask})


@pytest.mark.parametrize("beams", [1, 4])
def test_texts_are_written_as_by_transformers(pair, texts, beams):
    network, reference, _ = pair
    texts, most = [x[:, :24] for x in texts], 12

    @tf.function
    def write(ids, mask):
        inputs = {"input_ids": ids, "input_mask": mask}
        return written(*network.writer(inputs, beams), tf.shape(ids)[0], Decoding(most, 0, 1, beams))

    found = write(*map(tf.constant, texts)).numpy()
    settings = {"num_beams": beams, "max_new_tokens": most, "do_sample": False, "early_stopping": False}
    with torch.no_grad():
        # With another number of layers in the decoder its cache is too short.
        ids, mask = map(torch.tensor, texts)
        expected = reference.generate(ids, attention_mask=mask, use_cache=False, **settings).numpy()[:, 1:]
    for row, text in enumerate(expected):
        ends = np.flatnonzero(text == 1)
        text = text[: ends[0] + 1] if len(ends) else text
        assert found[row].tolist() == [*text, *[0] * (most - len(text))]
    lengths = set((found != 0).sum(1))
    assert network.config.scale_decoder_outputs or len(lengths) > 3


def test_the_cache_changes_nothing(pair, texts):
    network, _, _ = pair
    inputs = {"input_ids": tf.constant(texts[0][:8]), "input_mask": tf.constant(texts[1][:8])}
    target = tf.constant(np.random.default_rng(2).integers(1, WORDS, (8, 9)).astype(np.int32))
    taught = network({**inputs, "decoder_ids": network.shifted(target)})["logits"]
    next_logits, cache = network.writer(inputs)
    last = tf.fill([8], network.config.decoder_start_token_id)
    for place in range(9):
        logits, cache = next_logits(last, tf.constant(place), cache)
        np.testing.assert_allclose(logits, taught[:, place], atol=1e-5)
        last = target[:, place]
    assert cache[0][0].shape == [8, 4, 9, 8]


def test_files_go_back_to_transformers(pair, texts, tmp_path):
    network, reference, _ = pair
    network.save_to_preset(tmp_path / "saved")
    again = read_safetensors(tmp_path / "saved" / "model.safetensors")
    tensors = {name: value.numpy() for name, value in reference.state_dict().items()}
    assert set(again) <= set(tensors)
    assert all(np.array_equal(again[name], tensors[name]) for name in again)
    if network.config.tie_word_embeddings:
        theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
        ids, mask = (torch.tensor(x[:4]) for x in texts)
        with torch.no_grad():
            logits = [model(ids, mask, labels=ids.long()).logits.numpy() for model in (theirs, reference)]
        np.testing.assert_array_equal(*logits)
    np.testing.assert_array_equal(load_backbone(tmp_path / "saved").example_outputs(), network.example_outputs())


def test_a_checkpoint_of_google_is_read_and_written(pair, tmp_path):
    network, _, folder = pair
    values = network.export_weights()
    formats.write_folder(tmp_path / "google", "google", network.config, values)
    found = formats.read_folder(tmp_path / "google")
    assert found.form == "google" and not found.report.missing + found.report.unexpected
    assert all(np.array_equal(found.values[name], value) for name, value in values.items())
    names = tf.train.load_checkpoint(str(tmp_path / "google" / "model.ckpt")).get_variable_to_shape_map()
    # As in the published checkpoints.
    assert names["encoder/block_000/layer_000/SelfAttention/relative_attention_bias"] == [4, 32]
    assert names["decoder/block_002/layer_001/EncDecAttention/q"] == [32, 32]
    assert names["decoder/block_001/layer_002/layer_norm/scale"] == [32]
    assert names["shared/embedding"] == [WORDS, 32]
    tensors = {**convert.to_google(values, network.config), "global_step": np.int64(3)}
    tensors["shared/embedding_slot_vr"] = np.ones(WORDS, np.float32)
    write_checkpoint(tmp_path / "google" / "model.ckpt", tensors)
    assert sorted(formats.read_folder(tmp_path / "google").report.ignored) == [
        "global_step",
        "shared/embedding_slot_vr",
    ]


def test_buckets_of_relative_positions():
    """Worked by hand from arXiv 1910.10683: half of 32 are exact, distances from 128 on share the last one."""
    distance = tf.constant([0, -1, -7, -8, -15, -16, -127, -128, -500, 1, 7, 8, 128])
    there = [0, 1, 7, 8, 9, 10, 15, 15, 15, 17, 23, 24, 31]
    assert buckets(distance, 32, 128, both_ways=True).numpy().tolist() == there
    back = [0, 1, 7, 8, 15, 16, 31, 31, 31, 0, 0, 0, 0]
    assert buckets(distance, 32, 128, both_ways=False).numpy().tolist() == back


def test_every_variable_has_a_depth_and_a_name(pair):
    network, _, _ = pair
    groups = network.layer_groups()
    assert len(groups) == 1 + 2 + 3 + 1
    grouped = [variable.ref() for group in groups for variable in group]
    assert sorted(map(hash, grouped)) == sorted(hash(v.ref()) for v in network.trainable_variables)
    assert len(network.weight_specs()) == len(grouped)


def cut(tensors, name):
    """Takes a row of a weight away, and of its copies."""
    copies = [other for other in tensors if "embed_tokens" in other] if name == "shared.weight" else []
    for copy in (name, *copies):
        tensors[copy] = tensors[copy][:-1]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda tensors: tensors.pop("encoder.block.1.layer.0.SelfAttention.k.weight"), "SelfAttention.k"),
        (lambda tensors: tensors.update({"decoder.embed_tokens.weight": tensors["shared.weight"] + 1}), "embed_tokens"),
        (lambda tensors: cut(tensors, "shared.weight"), "shared.weight"),
        (lambda tensors: cut(tensors, "decoder.block.2.layer.2.layer_norm.weight"), "decoder.block.2.layer.2"),
        (lambda tensors: tensors["decoder.final_layer_norm.weight"].fill(np.nan), "decoder.final_layer_norm"),
    ],
)
def test_weights_that_do_not_fit_are_refused(pair, change, part, tmp_path):
    _, _, folder = pair
    tensors = {name: value.copy() for name, value in read_safetensors(folder / "model.safetensors").items()}
    change(tensors)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ModelError, match=part):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("feed_forward_proj", "tanh"), ("model_type", "umt5"), ("num_heads", 0), ("is_encoder_decoder", False)],
)
def test_configurations_that_are_something_else_are_refused(key, value):
    with pytest.raises(ModelError, match=key):
        T5Config.from_dict({key: value})


def test_settings_may_be_changed_and_are_checked(tmp_path):
    facts = make_tiny(tmp_path / "tiny", "t5", seed=4)
    assert facts["parameters"] == load_backbone(tmp_path / "tiny").count_params()
    assert load_backbone(tmp_path / "tiny", dropout_rate=0.3).config.dropout_rate == 0.3
    with pytest.raises(ConfigError, match="dropout_rat"):
        load_backbone(tmp_path / "tiny", dropout_rat=0.3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="own tokenizer"):
        load_backbone(tmp_path / "tiny")({"input_ids": np.array([[600]]), "input_mask": np.array([[1]])})


def test_dropout_acts_in_training_alone():
    network = T5Backbone(T5Config.from_dict({"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}))
    batch = {"input_ids": np.array([[3, 4, 5, 1]]), "input_mask": np.ones([1, 4], np.int32)}
    batch["decoder_ids"] = np.array([[0, 7, 8]])
    calm = [network(batch)["logits"].numpy() for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    assert np.abs(network(batch, training=True)["logits"].numpy() - calm[0]).max() > 1e-3
