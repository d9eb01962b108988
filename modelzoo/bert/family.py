"""Whether a folder holds a BERT or a model of a related family, which would compute something else as one.

RoBERTa and its kin have the weights of a BERT by the same names, but number positions from 2: a `config.json` that does
not say what it describes is judged by the files beside it. Imports no TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.text.tokenizer_json import model_kind

# Names of weights that only one family has; with a dot in files of Hugging Face, with a slash in Google's.
_WEIGHTS = {
    r"(transformer\.)?(mask_emb$|layer\.\d+\.rel_attn\.)": "XLNet",
    r"(xlm_)?(roberta|lm_head)[./]": "RoBERTa",
    r"albert[./]|encoder\.(albert_layer_groups|embedding_hidden_mapping_in)\.|bert/encoder/(transformer|embedding_h)": (
        "ALBERT"
    ),
    r"distilbert\.|transformer\.layer\.\d|vocab_(transform|layer_norm|projector)\.": "DistilBERT",
    r"(electra|discriminator_predictions|generator_(predictions|lm_head)|embeddings_project)[./]": "ELECTRA",
    r"mpnet\.|encoder\.relative_attention_bias\.": "MPNet",
    r"deberta\.|encoder\.rel_embeddings\.": "DeBERTa",
}
# EasyTransfer's scope around the names of Google.
_SCOPE = r"([^/]*pre_trained_model[^/]*/)?"
# Keys of a config.json that a BERT's has not.
_KEYS = {
    "num_hidden_groups": "ALBERT",
    "inner_group_num": "ALBERT",
    "n_layers": "DistilBERT",
    "sinusoidal_pos_embds": "DistilBERT",
    "summary_use_proj": "ELECTRA",
    "relative_attention_num_buckets": "MPNet",
    "pos_att_type": "DeBERTa",
}
# Classes of transformers for models of other families; a class of a user's own says nothing.
_OTHER_TOKENIZERS = r"(XLM)?Roberta\w*?|Camembert|Albert|Deberta\w*?|XLNet|XLM|GPT2|T5|M?Bart|BigBird|Longformer"
_OTHER_MODELS = (
    rf"{_OTHER_TOKENIZERS}|DistilBert|Electra|MPNet|MobileBert|SqueezeBert|ConvBert|MegatronBert|ModernBert|RemBert"
    r"|IBert|RoFormer|Nezha|Ernie\w*?|Funnel|Luke|Flaubert|Data2VecText"
)
_OTHER_FILES = {
    "merges.txt": "byte pairs",
    **dict.fromkeys(("sentencepiece.bpe.model", "spiece.model", "spm.model"), "SentencePiece"),
}
_CONFIG, _GOOGLE_CONFIG = "config.json", "bert_config.json"
_KIN = "RoBERTa or one of its kin"
# RoBERTa's table of positions begins with two rows that stand for no position.
_UNUSED_POSITIONS = 2


def check_configuration(data: Mapping[str, Any], source: str) -> None:
    """Checks what the keys of a config.json say about the family.

    Raises:
        ModelError: They name another one.
    """
    signs = [(name, f"architectures {name}") for name in _classes(data) if _is_class(name, _OTHER_MODELS)]
    if not _is_declared(data):
        signs += [(family, f"the key {key}") for key, family in _KEYS.items() if key in data]
    _refuse(signs, source)


def check_files(folder: Path, names: Iterable[str] = ()) -> None:
    """Checks what vocabulary and weights say about the family.

    Args:
        folder: Model folder.
        names: Names of the weights, where they are known.

    Raises:
        ModelError: They are those of another one, or nothing says that a `roberta` is a BERT.
    """
    config = next((name for name in (_CONFIG, _GOOGLE_CONFIG) if _has(folder, name)), _CONFIG)
    data, names = read_json(folder / config) if _has(folder, config) else {}, list(names)
    signs = []
    for pattern, family in _WEIGHTS.items():
        signs += [(family, f"the weight {name}") for name in names if re.match(f"{_SCOPE}({pattern})", name)][:1]
    if not _is_declared(data) and config == _CONFIG:
        signs += _vocabulary_signs(folder) + _position_signs(folder, data)
    _refuse(signs, str(folder))
    shown = _has_words(folder) or any(re.match(rf"{_SCOPE}bert[./]", name) for name in names)
    if names and data.get("model_type") == "roberta" and not shown:
        _refuse([("RoBERTa", "model_type roberta, no vocab.txt and no weights under the name bert")], str(folder))


def _refuse(signs: list[tuple[str, str]], source: str) -> None:
    if signs:
        found = "; ".join(dict.fromkeys(what for _, what in signs))
        raise ModelError(
            f"{source} holds {signs[0][0]} and no BERT, as which it would give other values: it has {found}",
            accepted="models of BERT; see `easy_transfer_app zoo list`",
            fix="say in config.json what it is: a BERT by "
            '"model_type": "bert" and no other architecture, a RoBERTa by "model_type": "roberta" and '
            '"architectures": ["RobertaModel"]',
        )


def _is_declared(data: Mapping[str, Any]) -> bool:
    """Whether the configuration says itself that it describes a BERT."""
    is_bert = any(_is_class(name, "Bert") for name in _classes(data))
    return data.get("model_type") == "bert" or (is_bert and data.get("model_type") is None)


def _classes(data: Mapping[str, Any]) -> list[str]:
    names = data.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_class(name: str, families: str) -> bool:
    return re.match(rf"(TF|Flax)?({families})(Model|For[A-Z]|LMHead|Tokenizer)", name) is not None


def _vocabulary_signs(folder: Path) -> list[tuple[str, str]]:
    signs = [(_KIN, f"a vocabulary of {kind}, {file}") for file, kind in _OTHER_FILES.items() if _has(folder, file)]
    if _has(folder, "tokenizer_config.json"):
        name = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class"))
        if _is_class(name, _OTHER_TOKENIZERS):
            signs.append((_KIN, f"tokenizer_class {name}"))
    if _has(folder, "tokenizer.json") and not _has(folder, "vocab.txt"):
        kind = _kind(folder)
        if kind not in (None, "WordPiece"):
            signs.append((_KIN, f"a vocabulary of the kind {kind}, tokenizer.json"))
    return signs


def _position_signs(folder: Path, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns signs of positions that are numbered behind the id of the padding token, 1."""
    signs = []
    if data.get("pad_token_id") == 1 and not _pads_with(folder, 1):
        signs.append((_KIN, "pad_token_id 1"))
    positions = data.get("max_position_embeddings")
    if isinstance(positions, int) and (signs or data.get("model_type") == "roberta" or not _has_words(folder)):
        used = positions - _UNUSED_POSITIONS
        # A power of two and two more: 514 in all published ones.
        if used >= 16 and not used & (used - 1):
            signs.append((_KIN, f"max_position_embeddings {positions}"))
    return signs


def _has_words(folder: Path) -> bool:
    """Whether a vocabulary of WordPiece is there."""
    return _has(folder, "vocab.txt") or (_has(folder, "tokenizer.json") and _kind(folder) == "WordPiece")


def _kind(folder: Path) -> str | None:
    return model_kind(read_json(folder / "tokenizer.json").get("model"))


def _pads_with(folder: Path, number: int) -> bool:
    if not _has(folder, "vocab.txt"):
        return False
    with open(folder / "vocab.txt", encoding="utf-8", errors="replace") as lines:
        return next((line.strip() for i, line in enumerate(lines) if i == number), None) == "[PAD]"


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()
