"""The three JSON forms of the configuration."""

import json

import pytest
from tiny_bert import SIZES

from easytransfer.errors import ConfigError, ModelError
from modelzoo.bert.config import BertConfig


def test_hugging_face_spelling(tmp_path):
    data = {
        **SIZES,
        "model_type": "bert",
        "hidden_act": "gelu_pytorch_tanh",
        "id2label": {"0": "no"},
        "layer_norm_eps": 1e-5,
    }
    (tmp_path / "config.json").write_text(json.dumps(data))
    config = BertConfig.from_folder(tmp_path)
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu_tanh", 1e-5)
    assert config.to_dict("hf") == {**config.to_dict("ez"), "hidden_act": "gelu_new"}
    assert config.to_dict("hf")["id2label"] == {"0": "no"}


def test_google_calls_its_tanh_form_gelu(tmp_path):
    data = {**SIZES, "hidden_act": "gelu", "directionality": "bidi"}
    (tmp_path / "bert_config.json").write_text(json.dumps(data))
    config = BertConfig.from_folder(tmp_path)
    assert (config.hidden_act, config.model_type) == ("gelu_tanh", "bert")
    written = config.to_dict("google")
    assert (written["hidden_act"], written["directionality"]) == ("gelu", "bidi")
    assert "model_type" not in written


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("form", ["hf", "google", "ez"])
def test_every_activation_survives_every_form(hidden_act, form):
    config = BertConfig(**SIZES, hidden_act=hidden_act)
    assert BertConfig.from_dict(config.to_dict(form), form=form) == config


def test_easytransfer_file_has_no_activation(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "model_type": "bert", "type_vocab_size": 2}))
    config = BertConfig.from_folder(tmp_path)
    assert (config.hidden_act, config.hidden_dropout_prob, config.layer_norm_eps) == ("gelu_tanh", 0.1, 1e-12)


def test_transformers_file_without_activation_means_its_own_default():
    assert BertConfig.from_dict({**SIZES, "transformers_version": "4.8.2"}).hidden_act == "gelu"


def test_chinese_roberta_of_easytransfer_is_a_bert_and_hugging_face_roberta_is_not():
    assert BertConfig.from_dict({**SIZES, "model_type": "roberta"}).model_type == "bert"
    with pytest.raises(ModelError, match="got 'roberta'"):
        BertConfig.from_dict({**SIZES, "model_type": "roberta", "architectures": ["RobertaModel"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "got 't5'; accepted: bert"),
        ({"hidden_act": "swish"}, "got 'swish'; accepted: gelu, gelu_fast, gelu_new"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"embedding_size": 16}, "embedding_size .*got 16; accepted: 32; see"),
        ({"hidden_size": 30}, "hidden_size 30 is not a multiple of num_attention_heads 4"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"vocab_size": None}, "vocab_size: Field required"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        BertConfig.from_dict({**SIZES, **change})


@pytest.mark.parametrize("content", ["", "[]", "{'a': 1}", "\xff"])
def test_broken_file(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match="JSON"):
        BertConfig.from_folder(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(ModelError, match="no config.json or bert_config.json"):
        BertConfig.from_folder(tmp_path)


def test_replace_checks_values():
    config = BertConfig(**SIZES)
    assert config.replace(hidden_dropout_prob=0.3).hidden_dropout_prob == 0.3
    with pytest.raises(ConfigError, match="hidden_dropout_prob"):
        config.replace(hidden_dropout_prob=2)
