"""A folder is a BERT by what its configuration, vocabulary and weights show; relatives are refused by name."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_bert import SIZES, write_vocabulary

from easytransfer.errors import ModelError
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.bert.formats import write_folder
from modelzoo.checkpoint import write_checkpoint
from modelzoo.encoder_weights import BACKBONE, initial_value
from modelzoo.loading import load_backbone, load_config

CONFIG = BertConfig(**SIZES, hidden_act="gelu")
VALUES = {row.name: initial_value(row, 5, 0.1) for row in BERT.weights(CONFIG, BACKBONE)}
# What transformers needs to read the folder, without the two keys it writes on its own.
PLAIN = {"hidden_act": "gelu", **SIZES}


def make(folder, config, *files, words=False, scope=""):
    """A folder of Hugging Face's form with the weights of a BERT."""
    write_folder(folder, "hf", CONFIG, VALUES)
    (folder / "config.json").write_text(json.dumps({**PLAIN, **config}))
    for name in files:
        (folder / name).write_text("{}")
    if words:
        write_vocabulary(folder)
    if scope:
        tensors = load_file(folder / "model.safetensors")
        save_file({scope + name: value for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def test_roberta_of_transformers_without_the_two_keys(tmp_path):
    """The weights are those of a BERT by name and shape; as one, hidden states would be off by 0.1 and more."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {**SIZES, "max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1}
    model = transformers.RobertaModel(transformers.RobertaConfig(**sizes)).eval()
    model.save_pretrained(tmp_path / "r")
    path = tmp_path / "r" / "config.json"
    config = json.loads(path.read_text())
    for key in ("architectures", "transformers_version"):
        config.pop(key)
    for kind in ("roberta", None):
        path.write_text(json.dumps({**config, "model_type": kind}))
        with pytest.raises(ModelError, match="holds RoBERTa .*pad_token_id 1; max_position_embeddings 34") as error:
            load_backbone(tmp_path / "r")
        assert error.value.exit_code == 4
        with pytest.raises(ModelError, match="pad_token_id 1"):
            load_backbone(tmp_path / "r", from_scratch=True)
    # Saying so is believed, and shows what the refusal saves from.
    path.write_text(json.dumps({**config, "model_type": "bert", "pad_token_id": 0}))
    ids = np.array([[5, 6, 7, 8]], np.int32)
    ours = load_backbone(tmp_path / "r")({"input_ids": ids, "input_mask": np.ones_like(ids)})["sequence_output"]
    theirs = model(torch.tensor(ids, dtype=torch.long)).last_hidden_state.detach().numpy()
    assert np.abs(ours - theirs).max() > 0.02


@pytest.mark.parametrize("model_type", [None, "roberta"])
@pytest.mark.parametrize(
    ("config", "files", "found"),
    [
        ({}, ["vocab.json", "merges.txt"], "a vocabulary of byte pairs, merges.txt"),
        ({}, ["sentencepiece.bpe.model"], "a vocabulary of SentencePiece, sentencepiece.bpe.model"),
        ({}, ["spiece.model"], "SentencePiece"),
        ({"pad_token_id": 1}, [], "pad_token_id 1"),
        ({"max_position_embeddings": 514}, [], "max_position_embeddings 514"),
        ({"max_position_embeddings": 514, "pad_token_id": 1}, [], "pad_token_id 1; max_position_embeddings 514"),
    ],
)
def test_what_is_beside_the_weights_of_a_roberta(tmp_path, model_type, config, files, found):
    folder = make(tmp_path / "a", {"model_type": model_type, **config}, *files)
    with pytest.raises(ModelError, match=f"holds RoBERTa.*{found}.*zoo list.*model_type"):
        load_config(folder)


def test_tokenizer_settings_show_the_family(tmp_path):
    folder = make(tmp_path / "a", {})
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(ModelError, match="tokenizer_class CamembertTokenizer"):
        load_config(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(ModelError, match="kind BPE, tokenizer.json"):
        load_config(folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    assert load_config(folder) == load_config(make(tmp_path / "b", {}))


def test_a_roberta_needs_a_sign_of_bert(tmp_path):
    config = {"model_type": "roberta"}
    with pytest.raises(ModelError, match="no vocab.txt and no weights under the name bert"):
        load_backbone(make(tmp_path / "bare", config))
    load_backbone(make(tmp_path / "words", config, words=True))
    load_backbone(make(tmp_path / "scope", config, scope="bert."))
    # The original's Chinese models: TensorFlow checkpoints, with and without their vocabulary.
    (tmp_path / "ez").mkdir()
    (tmp_path / "ez" / "config.json").write_text(json.dumps({**SIZES, **config}))
    write_checkpoint(tmp_path / "ez" / "model.ckpt", VALUES, "roberta_pre_trained_model/")
    assert not load_backbone(tmp_path / "ez").load_report.missing


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("roberta.embeddings.word_embeddings.weight", "RoBERTa"),
        ("lm_head.dense.weight", "RoBERTa"),
        ("albert.encoder.albert_layer_groups.0.full_layer_layer_norm.bias", "ALBERT"),
        ("encoder.embedding_hidden_mapping_in.weight", "ALBERT"),
        ("distilbert.transformer.layer.0.ffn.lin1.bias", "DistilBERT"),
        ("transformer.layer.0.attention.q_lin.weight", "DistilBERT"),
        ("electra.encoder.layer.0.output.dense.bias", "ELECTRA"),
        ("embeddings_project.weight", "ELECTRA"),
        ("mpnet.encoder.layer.0.attention.attn.q.weight", "MPNet"),
        ("encoder.relative_attention_bias.weight", "MPNet"),
        ("deberta.embeddings.LayerNorm.bias", "DeBERTa"),
        ("layer.0.rel_attn.q", "XLNet"),
    ],
)
def test_names_of_weights_decide_whatever_the_configuration_says(tmp_path, name, family):
    folder = make(tmp_path / "a", {"model_type": "bert", "architectures": ["BertModel"]}, words=True)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: np.ones(3, np.float32)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"holds {family} and no BERT.*the weight {name}"):
        load_backbone(folder)


@pytest.mark.parametrize(
    "name", ["bert/encoder/transformer/group_0/inner_group_0/LayerNorm/beta", "electra/embeddings/x"]
)
def test_names_in_checkpoints_of_google_and_the_original(tmp_path, name):
    for scope in ("", "albert_pre_trained_model/"):
        folder = tmp_path / (scope or "google")
        folder.mkdir()
        (folder / "bert_config.json").write_text(json.dumps(SIZES))
        write_checkpoint(folder / "model.ckpt", {scope + name: np.ones(3, np.float32)})
        with pytest.raises(ModelError, match=f"no BERT.*the weight {scope}{name}"):
            load_backbone(folder)


@pytest.mark.parametrize(
    ("change", "family", "found"),
    [
        ({"num_hidden_groups": 1}, "ALBERT", "the key num_hidden_groups"),
        ({"n_layers": 6, "dim": 768}, "DistilBERT", "the key n_layers"),
        ({"summary_use_proj": True}, "ELECTRA", "the key summary_use_proj"),
        ({"relative_attention_num_buckets": 32}, "MPNet", "relative_attention_num_buckets"),
        ({"architectures": ["RobertaForMaskedLM"]}, "RobertaForMaskedLM", "architectures RobertaForMaskedLM"),
        ({"architectures": ["XLMRobertaModel"], "model_type": "bert"}, "XLMRobertaModel", "architectures XLMR"),
        ({"architectures": ["TFCamembertModel"]}, "TFCamembertModel", "architectures"),
        ({"architectures": ["MPNetForMaskedLM"]}, "MPNetForMaskedLM", "architectures"),
    ],
)
def test_keys_of_another_family(change, family, found):
    with pytest.raises(ModelError, match=f"configuration holds {family} and no BERT.*{found}"):
        BertConfig.from_dict({**SIZES, **change})


@pytest.mark.parametrize("model_type", ["deberta", "distilbert", "electra", "xlm", "camembert", "mpnet"])
def test_a_type_that_is_named_is_refused_with_its_name(tmp_path, model_type):
    for read in (load_config, load_backbone):
        with pytest.raises(
            ModelError, match=f"unknown model_type; got '{model_type}'; accepted: albert, bert, cnn.*zoo list"
        ):
            read(make(tmp_path / read.__name__, {"model_type": model_type}))


def test_what_is_a_bert_stays_one(tmp_path):
    """Multilingual MiniLM has XLM-R's vocabulary, KoBERT pads with id 1, some folders hold classes of their own."""
    declared = {"model_type": "bert", "pad_token_id": 1, "architectures": ["SentimentModel"]}
    load_backbone(make(tmp_path / "declared", declared, "sentencepiece.bpe.model"))
    load_backbone(make(tmp_path / "class", {"architectures": ["BertForMaskedLM"]}, "merges.txt"))
    folder = make(tmp_path / "pads", {"pad_token_id": 1})
    (folder / "vocab.txt").write_text("[CLS]\n[PAD]\n[UNK]\n[SEP]\n[MASK]\n")
    load_backbone(folder)
    assert load_config(make(tmp_path / "silent", {})).model_type == "bert"
