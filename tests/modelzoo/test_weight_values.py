"""Numbers of weight files that would be taken for something else: refused by name, or told."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tiny_bert import SIZES, write_vocabulary

from easytransfer.errors import ModelError
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.train.weights import assign_arrays
from modelzoo import commands
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.bert.formats import write_folder
from modelzoo.checkpoint import write_checkpoint
from modelzoo.encoder_weights import initial_value
from modelzoo.importing import import_model
from modelzoo.loading import load_backbone

CONFIG = BertConfig(**SIZES, hidden_act="gelu")
QUERY = "bert/encoder/layer_0/attention/self/query/kernel"
NAMES = {"hf": "bert.encoder.layer.0.attention.self.query.weight", "google": QUERY}
EZ = "bert_pre_trained_model/"
NAMES["ez"] = EZ + QUERY
WORDS = {"hf": "bert.embeddings.word_embeddings.weight", "google": "bert/embeddings/word_embeddings"}
WORDS["ez"] = EZ + WORDS["google"]
FORMS = pytest.mark.parametrize("form", ["hf", "google", "ez"])


def make(folder, form="hf", change=None):
    """A model folder of one form whose stored arrays, by the names in the file, went through `change`."""
    vocabulary = folder.parent / "vocabulary"
    vocabulary.mkdir(exist_ok=True)
    write_vocabulary(vocabulary)
    values = {row.name: initial_value(row, 5, 0.1) for row in BERT.weights(CONFIG, BERT.parts)}
    write_folder(folder, form, CONFIG, values, source=vocabulary)
    if change is None:
        return folder
    if form == "hf":
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors) or tensors, folder / "model.safetensors")
    else:
        scope = EZ if form == "ez" else ""
        tensors = {scope + name: value for name, value in values.items()}
        name = "model.ckpt" if form == "ez" else "bert_model.ckpt"
        write_checkpoint(folder / name, change(tensors) or tensors)
    return folder


def every_reader(folder):
    """Training and prediction load as the first does."""
    yield lambda: load_backbone(folder)
    yield lambda: commands.verify(str(folder))
    yield lambda: import_model(folder, folder.parent / "imported")


@pytest.mark.parametrize(
    ("form", "dtype"), [("hf", "int8"), ("hf", "uint8"), ("hf", "bool"), ("google", "int32"), ("ez", "int64")]
)
def test_integers_are_no_weights(tmp_path, form, dtype):
    scales = {"scales.SCB": np.ones(3, np.float32)}

    def quantise(tensors):
        return {name: value.astype(dtype) if value.ndim == 2 else value for name, value in tensors.items()} | scales

    make(tmp_path / "a", form, quantise)
    for read in every_reader(tmp_path / "a"):
        with pytest.raises(
            ModelError, match=f"type {dtype}, the first is {WORDS[form]}: a quantised.*bfloat16"
        ) as error:
            read()
        assert error.value.exit_code == 4
    assert not (tmp_path / "imported").exists()


def test_integers_of_another_shape_are_named_before_the_shape(tmp_path):
    def pack(tensors):
        tensors[NAMES["hf"]] = tensors[NAMES["hf"]].astype(np.uint8)[:, ::2].copy()

    with pytest.raises(ModelError, match=f"type uint8, the first is {NAMES['hf']}"):
        load_backbone(make(tmp_path / "a", "hf", pack))


@pytest.mark.parametrize(("dtype", "said"), [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")])
def test_eight_bit_floats_are_refused_by_name(tmp_path, dtype, said):
    head = {"plain": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    head["small"] = {"dtype": dtype, "shape": [2], "data_offsets": [4, 6]}
    raw = json.dumps(head).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(6))
    with pytest.raises(ModelError, match=f"type {said}, the first is small"):
        read_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("form", "value", "dtype"),
    [
        ("hf", np.nan, "float32"),
        ("hf", np.nan, "float16"),
        ("hf", np.inf, "bfloat16"),
        ("google", 1e300, "float64"),
        ("ez", -np.inf, "float32"),
    ],
)
def test_weights_that_are_not_finite_are_named(tmp_path, form, value, dtype):
    def spoil(tensors):
        changed = tensors[NAMES[form]].astype(dtype)
        changed[1, 2] = value
        tensors[NAMES[form]] = changed

    make(tmp_path / "a", form, spoil)
    for read in every_reader(tmp_path / "a"):
        with pytest.raises(ModelError, match=f"weight {NAMES[form]} has 1 of 1,024 numbers that are not finite"):
            read()


def test_numbers_of_tensors_that_are_not_used_do_not_matter(tmp_path):
    def add(tensors):
        tensors["classifier.weight"] = np.full([2, 32], np.nan, np.float32)
        tensors["bert.embeddings.position_ids"] = np.arange(24)[None]

    assert load_backbone(make(tmp_path / "a", "hf", add)).load_report.unexpected[-1] == "cls.seq_relationship.weight"


@pytest.mark.parametrize("difference", [0.0, 1e-3])
@pytest.mark.parametrize(
    ("form", "second"),
    [
        ("hf", "bert.encoder.layer.1.output.LayerNorm.gamma"),
        ("hf", "encoder.layer.1.output.LayerNorm.weight"),
        ("hf", "encoder.layer.1.output.LayerNorm.gamma"),
        ("google", "bert_pre_trained_model/bert/encoder/layer_1/output/LayerNorm/gamma"),
        ("ez", "bert/encoder/layer_1/output/LayerNorm/gamma"),
    ],
)
def test_both_spellings_of_one_weight(tmp_path, capsys, form, second, difference):
    first = "bert/encoder/layer_1/output/LayerNorm/gamma"
    first = {"hf": "bert.encoder.layer.1.output.LayerNorm.weight", "google": first}.get(form, EZ + first)

    def repeat(tensors):
        tensors[second] = tensors[first] + np.float32(difference)

    make(tmp_path / "a", form, repeat)
    if difference:
        for read in every_reader(tmp_path / "a"):
            with pytest.raises(ModelError, match="one weight under two names") as error:
                read()
            assert first in str(error.value) and second in str(error.value)
    else:
        assert len(load_backbone(tmp_path / "a").load_report.repeated) == 1
        assert "holds 1 weights twice, with equal values" in capsys.readouterr().err


def test_the_bias_of_the_masked_words_under_two_names(tmp_path):
    def repeat(tensors):
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"] + 1

    with pytest.raises(ModelError, match=r"cls.predictions.bias, cls.predictions.decoder.bias"):
        load_backbone(make(tmp_path / "a", "hf", repeat))


def test_output_matrix_is_compared_under_either_name_of_the_words(tmp_path):
    def strip(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors[WORDS["hf"]] + 1
        return {name.removeprefix("bert."): value for name, value in tensors.items()}

    with pytest.raises(ModelError, match="differs from the word embeddings"):
        load_backbone(make(tmp_path / "a", "hf", strip))


def test_shards_that_disagree(tmp_path):
    folder = make(tmp_path / "a")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "one.safetensors")
    save_file({NAMES["hf"]: tensors[NAMES["hf"]] * 2}, folder / "two.safetensors")
    index = {"weight_map": {**dict.fromkeys(tensors, "one.safetensors"), NAMES["hf"]: "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"{NAMES['hf']} in two.safetensors"):
        load_backbone(folder)


@FORMS
def test_layers_that_are_not_used_are_told(tmp_path, capsys, form):
    folder = make(tmp_path / "a", form)
    load_backbone(folder)
    assert "not used" not in capsys.readouterr().err  # heads are no part of an encoder
    load_backbone(folder, num_hidden_layers=1)
    said = capsys.readouterr().err
    assert "16 tensors of the encoder are not used, the first is " in said and "num_hidden_layers=1 " in said
    path = folder / ("bert_config.json" if form == "google" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
    (folder / "zoo.json").unlink(missing_ok=True)
    assert commands.verify(str(folder))["unexpected"] == 16 + 7


def test_missing_weights_name_what_can_be_done(tmp_path):
    folder = make(tmp_path / "a", "hf", lambda tensors: tensors.pop("bert.pooler.dense.bias") is None)
    with pytest.raises(ModelError, match=r"`easy_transfer_app zoo import \S*a NEW_FOLDER --allowMissing=REGEX`"):
        load_backbone(folder)
    import_model(folder, tmp_path / "b", allow_missing="pooler")
    assert load_backbone(tmp_path / "b").load_report.allowed == ["bert/pooler/dense/bias"]


# Image networks, checkpoints, SavedModels ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "nan", "unused"])
def test_weights_of_an_image_network(tmp_path, capsys, kind):
    folder = tmp_path / "a"
    commands.make_tiny(folder, family="cnn")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("/kernel"))
    if kind == "unused":
        tensors["stage9/kernel"] = np.ones(3, np.float32)
    else:
        tensors[name] = tensors[name].astype(np.int8) if kind == "int8" else tensors[name] * np.float32(np.nan)
    save_file(tensors, folder / "model.safetensors")
    (folder / "zoo.json").unlink()
    if kind == "unused":
        assert commands.verify(str(folder))["unexpected"] == 1
        assert "1 weights are not used, the first is stage9/kernel" in capsys.readouterr().err
        return
    message = {"int8": f"type int8, the first is {name}", "nan": f"weight {name} has .* not finite"}[kind]
    with pytest.raises(ModelError, match=message):
        load_backbone(folder)
    with pytest.raises(ModelError, match=message):
        commands.verify(str(folder))


def test_a_saved_model_with_nan_is_refused(tmp_path):
    from modelzoo.cnn.saved_model import SavedModelLayer

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale = tf.Variable([1.0, np.nan], name="scale")

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 2])])
        def __call__(self, images):
            return images * self.scale

    tf.saved_model.save(Module(), str(tmp_path / "m"))
    with pytest.raises(ModelError, match="weight scale.* has 1 of 2 numbers"):
        SavedModelLayer(str(tmp_path / "m"))


def test_a_checkpoint_with_nan_is_refused_and_infinity_of_a_mask_is_not():
    variables = [tf.Variable(tf.zeros([2]), name="mask"), tf.Variable(tf.zeros([2]), name="w")]
    mask = np.array([0, -np.inf], np.float32)
    assign_arrays(variables, {"mask": mask, "w": np.ones(2, np.float32)}, "there")
    with pytest.raises(ModelError, match="there holds NaN in 1 of 2 variables, the first is w"):
        assign_arrays(variables, {"mask": mask, "w": np.array([1, np.nan], np.float32)}, "there")


def test_half_precision_is_read():
    from easytransfer.presets.weight_values import as_floats

    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        found = as_floats(np.array([1.5], dtype), "w", "there")
        assert found.dtype == np.float32 and found[0] == 1.5
    plain = np.ones(3, np.float32)
    assert as_floats(plain, "w", "there") is plain
