"""Round trips through all forms, the names in foreign files, and every way strict loading fails."""

import json

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tiny_bert import SIZES, VOCABULARY, hf_folder, write_vocabulary

from easytransfer.errors import ModelError
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.bert.formats import read_folder, write_folder
from modelzoo.checkpoint import write_checkpoint
from modelzoo.encoder_weights import google_name, initial_value
from modelzoo.importing import export_model, import_model
from modelzoo.loading import load_backbone

CONFIG = BertConfig(**SIZES, hidden_act="gelu")


def _values(parts=BERT.parts):
    return {row.name: initial_value(row, 5, 0.1) for row in BERT.weights(CONFIG, parts)}


def _folder(path, form="hf", parts=BERT.parts, values=None):
    source = path.parent / "vocabulary"
    source.mkdir(exist_ok=True)
    write_vocabulary(source)
    write_folder(path, form, CONFIG, values or _values(parts), source=source)
    return path


@pytest.mark.parametrize("architecture", ["BertModel", "BertForPreTraining"])
def test_round_trip_through_every_form_is_bit_identical(tmp_path, architecture):
    model = hf_folder(tmp_path / "hf", architecture, hidden_act="gelu")
    original = load_file(tmp_path / "hf" / "model.safetensors")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "google", "google")
    import_model(tmp_path / "google", tmp_path / "ours2", "google")
    export_model(tmp_path / "ours2", tmp_path / "ez", "ez")
    import_model(tmp_path / "ez", tmp_path / "ours3")
    export_model(tmp_path / "ours3", tmp_path / "hf2", "hf")
    final = load_file(tmp_path / "hf2" / "model.safetensors")
    assert set(final) == set(original)
    for name, value in original.items():
        np.testing.assert_array_equal(final[name], value)
    configs = [BertConfig.from_folder(tmp_path / name) for name in ("hf", "ours3", "hf2", "google", "ez")]
    assert {config.hidden_act for config in configs} == {"gelu"}
    reread, info = type(model).from_pretrained(tmp_path / "hf2", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(reread.state_dict()[name], value)


def test_round_trip_through_the_network_is_bit_identical(tmp_path):
    _folder(tmp_path / "a", parts=("encoder", "pooler"))
    load_backbone(tmp_path / "a").save_to_preset(tmp_path / "b")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_checkpoints_have_exactly_the_original_names(tmp_path):
    _folder(tmp_path / "google", "google")
    _folder(tmp_path / "ez", "ez")
    google = dict(tf.train.list_variables(str(tmp_path / "google" / "bert_model.ckpt")))
    ez = dict(tf.train.list_variables(str(tmp_path / "ez" / "model.ckpt")))
    assert {f"bert_pre_trained_model/{name}": shape for name, shape in google.items()} == ez
    assert google["bert/encoder/layer_1/attention/self/query/kernel"] == [32, 32]
    assert google["bert/encoder/layer_0/intermediate/dense/kernel"] == [32, 48]
    assert google["bert/embeddings/LayerNorm/gamma"] == [32]
    assert google["cls/predictions/output_bias"] == [63]
    assert google["cls/seq_relationship/output_weights"] == [2, 32]
    # 5 embedding, 16 per layer, 2 pooler, 5 masked-LM and 2 next-sentence variables.
    assert len(google) == 5 + 2 * 16 + 2 + 5 + 2
    assert sorted(p.name for p in (tmp_path / "google").iterdir()) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
        "vocab.txt",
    ]
    assert (tmp_path / "ez" / "vocab.txt").read_text().split() == VOCABULARY
    assert json.loads((tmp_path / "ez" / "config.json").read_text())["model_type"] == "bert"


def test_checkpoint_of_the_original_loads_with_its_extra_variables(tmp_path):
    values = _values(("encoder", "pooler"))
    tensors = {f"bert_pre_trained_model/{name}": value for name, value in values.items()}
    kernel = "bert_pre_trained_model/bert/pooler/dense/kernel"
    tensors |= {
        f"{kernel}/{slot}": np.ones([32, 32], np.float32) for slot in ("adam_m", "adam_v", "Momentum", "Adam_1")
    }
    tensors |= {
        "global_step": np.array(7),
        "beta1_power": np.array(0.9),
        "app/ez_dense/kernel": np.ones([32, 2], np.float32),
    }
    tmp_path.joinpath("config.json").write_text(json.dumps({**SIZES, "model_type": "bert"}))
    write_checkpoint(tmp_path / "model.ckpt-40", tensors)
    backbone = load_backbone(tmp_path)
    report = backbone.load_report
    assert report.unexpected == ["app/ez_dense/kernel"]
    assert len(report.ignored) == 6 and not report.missing
    assert backbone.config.hidden_act == "gelu_tanh"
    for name, value in backbone.export_weights().items():
        np.testing.assert_array_equal(value, values[name])
    assert load_backbone(tmp_path / "model.ckpt-40").load_report.source.endswith("model.ckpt-40")


def test_several_checkpoints_need_a_choice(tmp_path):
    _folder(tmp_path / "a", "ez")
    for step in (1, 2):
        for part in (".index", ".data-00000-of-00001"):
            (tmp_path / "a" / f"model.ckpt-{step}{part}").write_bytes(
                (tmp_path / "a" / f"model.ckpt{part}").read_bytes()
            )
    for path in (tmp_path / "a").glob("model.ckpt.*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds 2 TensorFlow checkpoints; got 'model.ckpt-1, model.ckpt-2'"):
        load_backbone(tmp_path / "a")
    (tmp_path / "a" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    assert load_backbone(tmp_path / "a").load_report.source.endswith("model.ckpt-2")


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old_names", [False, True])
def test_hugging_face_spellings(tmp_path, prefix, old_names):
    _folder(tmp_path / "a", parts=("encoder", "pooler"))
    path = tmp_path / "a" / "model.safetensors"
    tensors = {}
    for name, value in load_file(path).items():
        if old_names:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[prefix + name] = value
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(24)[None]
    tensors["classifier.weight"] = np.ones([2, 32], np.float32)
    save_file(tensors, path)
    report = load_backbone(tmp_path / "a").load_report
    assert (report.unexpected, report.ignored) == (["classifier.weight"], [f"{prefix}embeddings.position_ids"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path, dtype):
    import ml_dtypes  # noqa: F401

    _folder(tmp_path / "a", parts=("encoder", "pooler"))
    path = tmp_path / "a" / "model.safetensors"
    tensors = {name: value.astype(dtype) for name, value in load_file(path).items()}
    save_file(tensors, path)
    weights = load_backbone(tmp_path / "a").export_weights()
    expected = tensors["pooler.dense.weight"].astype(np.float32).T
    np.testing.assert_array_equal(weights["bert/pooler/dense/kernel"], expected)


def test_sharded_file(tmp_path):
    _folder(tmp_path / "a")
    folder = tmp_path / "a"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert not load_backbone(folder).load_report.missing
    index.write_text(json.dumps({"weight_map": {"a": "../one.safetensors"}}))
    with pytest.raises(ModelError, match="weight_map of file names"):
        load_backbone(folder)


def test_untied_output_matrix_is_refused(tmp_path):
    _folder(tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    tensors = load_file(path)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    save_file(tensors, path)
    assert read_folder(tmp_path / "a").report.ignored == ["cls.predictions.decoder.weight"]
    tensors["cls.predictions.decoder.weight"] += 1
    save_file(tensors, path)
    with pytest.raises(ModelError, match="differs from the word embeddings"):
        read_folder(tmp_path / "a")


# Strict loading --------------------------------------------------------------------------------------------

FORMS = pytest.mark.parametrize("form", ["hf", "google", "ez"])


@FORMS
def test_missing_weight(tmp_path, form):
    values = _values()
    del values["bert/encoder/layer_1/output/dense/bias"]
    _folder(tmp_path / "a", form, values=values)
    with pytest.raises(
        ModelError, match=r"1 weights missing[^$]*missing +bert/encoder/layer_1/output/dense/bias"
    ) as error:
        load_backbone(tmp_path / "a")
    assert error.value.exit_code == 4
    backbone = load_backbone(tmp_path / "a", allow_missing=r"layer_1/output/dense/bias$")
    assert backbone.load_report.allowed == ["bert/encoder/layer_1/output/dense/bias"]
    with pytest.raises(ModelError, match="layer_1/output/dense/bias"):
        load_backbone(tmp_path / "a", allow_missing="pooler")


@FORMS
def test_checkpoint_of_another_size(tmp_path, form):
    _folder(tmp_path / "a", form)
    name = "bert_config.json" if form == "google" else "config.json"
    path = tmp_path / "a" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 64}))
    with pytest.raises(ModelError) as error:
        load_backbone(tmp_path / "a")
    found = r"[48, 32]" if form == "hf" else r"[32, 48]"
    needed = r"[64, 32]" if form == "hf" else r"[32, 64]"
    assert f"need {needed}, found {found}" in str(error.value)
    # Kernel and bias of the inner layer and the kernel of the outer one, in two layers.
    assert "0 weights missing, 6 with another shape" in str(error.value)


@FORMS
def test_more_layers_than_the_file(tmp_path, form):
    _folder(tmp_path / "a", form)
    with pytest.raises(ModelError, match="16 weights missing"):
        load_backbone(tmp_path / "a", num_hidden_layers=3)
    # Fewer layers are a legitimate cut of the model; the rest is reported.
    assert len(load_backbone(tmp_path / "a", num_hidden_layers=1).load_report.unexpected) >= 16


@FORMS
def test_damaged_file(tmp_path, form):
    _folder(tmp_path / "a", form)
    pattern = "*.safetensors" if form == "hf" else "*.data-00000-of-00001"
    path = next((tmp_path / "a").glob(pattern))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be read"):
        load_backbone(tmp_path / "a")
    path.unlink()
    with pytest.raises(ModelError, match="no weights in|cannot be read"):
        load_backbone(tmp_path / "a")


def test_missing_weights_are_never_silently_random(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    with pytest.raises(ModelError, match="no weights in .* from_scratch"):
        load_backbone(tmp_path)
    first, second = (
        load_backbone(tmp_path, **{key: value}, seed=3) for key, value in (("weights", False), ("from_scratch", True))
    )
    np.testing.assert_array_equal(first.input_embeddings, second.input_embeddings)


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "weights.npz", "model.gguf"])
def test_weights_in_a_form_that_is_not_read_are_named(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        ModelError, match=f"no weights in .*; got '{name}'; accepted: model.safetensors, or a TensorFlow"
    ):
        load_backbone(tmp_path)


def test_pickle_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="pickle.*model.safetensors"):
        load_backbone(tmp_path)


def test_object_based_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict("ez")))
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "model.ckpt"))
    with pytest.raises(ModelError, match="object-based TensorFlow 2 checkpoint; got .*accepted: .*; save the model"):
        load_backbone(tmp_path)


def test_bad_regular_expression(tmp_path):
    _folder(tmp_path / "a")
    with pytest.raises(ModelError, match="not a regular expression"):
        load_backbone(tmp_path / "a", allow_missing="(")


def test_unknown_format_and_existing_target(tmp_path):
    _folder(tmp_path / "a")
    with pytest.raises(ModelError, match="got 'pt'; accepted: hf, google, ez"):
        export_model(tmp_path / "a", tmp_path / "b", "pt")
    with pytest.raises(ModelError, match="got 'pt'; accepted: auto, hf, google, ez"):
        import_model(tmp_path / "a", tmp_path / "b", "pt")
    assert not (tmp_path / "b").exists()
    with pytest.raises(ModelError, match="already exists"):
        export_model(tmp_path / "a", tmp_path / "a", "hf")
    export_model(tmp_path / "a", tmp_path / "a", "google", overwrite=True)
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_import_remembers_what_was_allowed_to_be_missing(tmp_path, capsys):
    _folder(tmp_path / "a", "google", parts=("encoder",))
    with pytest.raises(ModelError, match="bert/pooler/dense/kernel"):
        import_model(tmp_path / "a", tmp_path / "b")
    result = import_model(tmp_path / "a", tmp_path / "b", allow_missing="pooler")
    assert result["missing"] == ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]
    assert "matched" in capsys.readouterr().err
    assert load_backbone(tmp_path / "b").load_report.allowed == result["missing"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("bert_pre_trained_model/bert/pooler/dense/bias", "bert/pooler/dense/bias"),
        ("roberta_pre_trained_model/bert/pooler/dense/bias", "bert/pooler/dense/bias"),
        ("bert/pooler/dense/bias", "bert/pooler/dense/bias"),
        ("bert/pooler/dense/bias/adam_m", None),
        ("bert/pooler/dense/bias/Adam", None),
        ("train/beta2_power", None),
        ("global_step", None),
    ],
)
def test_checkpoint_names(source, expected):
    assert google_name(source) == expected


def test_hugging_face_names():
    assert BERT.hf_name("bert.encoder.layer.0.output.LayerNorm.gamma") == "encoder.layer.0.output.LayerNorm.weight"
    assert BERT.hf_name("cls.predictions.transform.LayerNorm.beta") == "cls.predictions.transform.LayerNorm.bias"
    assert BERT.hf_name("cls.predictions.decoder.bias") is None


def test_saved_folder_equals_its_source(tmp_path):
    from easytransfer.text.wordpiece import WordPiece
    from modelzoo.loading import load_tokenizer

    _folder(tmp_path / "a", parts=("encoder", "pooler"))
    load_backbone(tmp_path / "a").save_to_preset(
        tmp_path / "b", load_tokenizer(tmp_path / "a"), facts={"licence": "MIT"}
    )
    assert isinstance(load_tokenizer(tmp_path / "b"), WordPiece)
    assert load_tokenizer(tmp_path / "b").vocab == VOCABULARY
    manifest = json.loads((tmp_path / "b" / "zoo.json").read_text())
    assert (manifest["name"], manifest["licence"]) == ("b", "MIT")
    assert BertBackbone.from_preset(tmp_path / "b").config.hidden_act == "gelu"
