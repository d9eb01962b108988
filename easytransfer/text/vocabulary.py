"""Reads a WordPiece vocabulary and the text rules that belong to it, and refuses what cannot be a BERT vocabulary.

Needs no TensorFlow, so that configuration checks can read a tokenizer quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ModelError
from easytransfer.text.tokenizer_json import bounded, model_kind

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)
# The time for a word grows with the square of its length, so a model's files cannot allow any.
MOST_WORD_CHARS = 1000
# Each rule with its name in tokenizer_config.json (also config.json) and in the normalizer of tokenizer.json.
_RULE_NAMES = {
    "lower_case": ("do_lower_case", "lowercase"),
    "strip_accents": ("strip_accents", "strip_accents"),
    "split_cjk": ("tokenize_chinese_chars", "handle_chinese_chars"),
    "clean": ("clean_text", "clean_text"),
    "max_word_chars": ("max_input_chars_per_word", "max_input_chars_per_word"),
}


@dataclass(frozen=True)
class Rules:
    """How text becomes words before WordPiece, the same for training and for serving.

    Attributes:
        lower_case: Lower-case every character. True as in the original when no file says otherwise.
        strip_accents: Decompose (NFD) and drop combining marks; None follows `lower_case`.
        split_cjk: Every CJK ideograph is a word of its own.
        clean: Drop control characters and turn every white space into a space.
        max_word_chars: Longer words become [UNK]. 100 is what `transformers` and `tokenizers` use, hence what
            checkpoints saved by them expect; the original EasyTransfer used 200 (put
            `"max_input_chars_per_word": 200` into tokenizer_config.json to get that).
    """

    lower_case: bool = True
    strip_accents: bool | None = None
    split_cjk: bool = True
    clean: bool = True
    max_word_chars: int = 100

    @property
    def strips_accents(self) -> bool:
        """Whether accents are dropped, with the default resolved."""
        return self.lower_case if self.strip_accents is None else self.strip_accents


def read_vocabulary(folder: str | Path, lower_case: bool | None = None) -> tuple[list[str], Rules]:
    """Reads the vocabulary and the rules of a model folder.

    Args:
        folder: Holds `vocab.txt` or `tokenizer.json`, and optionally `tokenizer_config.json` and `config.json`
            (or `bert_config.json`), from which the casing and the expected size are taken.
        lower_case: Overrides what the files say.

    Returns:
        The tokens in the order of their ids, and the rules.

    Raises:
        ModelError: Files are missing or contradict each other, or the vocabulary has duplicates, lacks a special
            token, or differs in size from `vocab_size`.
    """
    folder = Path(folder)
    text_file, tokenizer_file = folder / "vocab.txt", folder / "tokenizer.json"
    if not text_file.is_file() and not tokenizer_file.is_file():
        raise ModelError(
            f"no vocabulary in {folder}",
            accepted="vocab.txt or tokenizer.json",
            fix="give the folder of a BERT model with its vocabulary",
        )
    tokenizer = _read_tokenizer_json(tokenizer_file) if tokenizer_file.is_file() else None
    tokens = read_vocab_file(text_file) if text_file.is_file() else tokenizer["tokens"]
    where = text_file if text_file.is_file() else tokenizer_file
    if tokenizer and tokens != tokenizer["tokens"]:
        raise ModelError(
            f"vocab.txt and tokenizer.json in {folder} hold different vocabularies",
            received=f"{len(tokens)} and {len(tokenizer['tokens'])} tokens",
            fix="remove the wrong one",
        )
    configs = {
        name: _read_json(folder / name)
        for name in ("tokenizer_config.json", "config.json", "bert_config.json")
        if (folder / name).is_file()
    }
    sizes = [config["vocab_size"] for config in configs.values() if "vocab_size" in config]
    check_vocabulary(tokens, where, sizes[0] if sizes else None)
    return tokens, _rules(folder, configs, tokenizer, lower_case)


def read_vocab_file(path: str | Path) -> list[str]:
    """Reads one token per line; only a line feed ends a line, because some tokens are other separators."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not UTF-8 text ({error})", fix="fetch the model again") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def check_vocabulary(tokens: Sequence[str], where: object, size: int | None = None) -> None:
    """Raises ModelError unless `tokens` can be a BERT vocabulary of `size` tokens; `where` names the file."""
    if len(set(tokens)) != len(tokens):
        first: dict[str, int] = {}
        for line, token in enumerate(tokens):
            if first.setdefault(token, line) != line:
                raise ModelError(
                    f"{where} holds a token twice, as ids {first[token]} and {line}",
                    received=token,
                    fix="fetch the model again or remove the duplicate",
                )
    missing = [token for token in SPECIAL_TOKENS if token not in set(tokens)]
    if missing:
        raise ModelError(
            f"{where} lacks special tokens: {' '.join(missing)}",
            accepted=SPECIAL_TOKENS,
            fix="check that this is the vocabulary of a BERT model",
        )
    if "" in tokens:
        raise ModelError(f"{where} holds an empty token as id {list(tokens).index('')}", fix="fetch the model again")
    if size is not None and size != len(tokens):
        raise ModelError(
            f"{where} does not fit the model", received=f"{len(tokens)} tokens", accepted=f"vocab_size {size}"
        )


def tokenizer_config(rules: Rules) -> dict[str, Any]:
    """Returns `tokenizer_config.json` for these rules, readable by this module and by `transformers`."""
    config: dict[str, Any] = {"tokenizer_class": "BertTokenizer"}
    config |= {names[0]: getattr(rules, field) for field, names in _RULE_NAMES.items()}
    return config | {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(bounded(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON ({error})", fix="fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", fix="fetch the model again")
    return content


def _read_tokenizer_json(path: Path) -> dict[str, Any]:
    """Returns {"tokens": [...], "rules": {...}} of a `tokenizers` file that describes a BERT tokenizer."""
    content = _read_json(path)
    try:
        return _bert_tokenizer(path, content)
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        raise ModelError(f"{path} is not a BERT tokenizer", received=repr(error), fix="fetch the model again") from None


def _bert_tokenizer(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    model, normalizer, splitter = (content.get(key) or {} for key in ("model", "normalizer", "pre_tokenizer"))
    kinds = (model_kind(model), normalizer.get("type"), splitter.get("type"))
    expected = ("WordPiece", "BertNormalizer", "BertPreTokenizer")
    if kinds != expected or model.get("continuing_subword_prefix", "##") != "##" or model.get("unk_token", UNK) != UNK:
        raise ModelError(f"{path} is not a BERT tokenizer", received=kinds, accepted=" ".join(expected))
    ids: dict[str, int] = dict(model["vocab"])
    for added in content.get("added_tokens") or []:
        if ids.setdefault(added["content"], added["id"]) != added["id"] or not (
            added.get("special") or added["content"] in model["vocab"]
        ):
            raise ModelError(
                f"{path} adds a token that WordPiece cannot produce",
                received=added["content"],
                accepted="special tokens",
            )
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ModelError(f"the token ids in {path} are not 0 to {len(tokens) - 1}", fix="fetch the model again")
    return {
        "tokens": tokens,
        "rules": {**normalizer, "max_input_chars_per_word": model.get("max_input_chars_per_word")},
    }


def _rules(
    folder: Path, configs: Mapping[str, Mapping[str, Any]], tokenizer: Mapping[str, Any] | None, lower_case: bool | None
) -> Rules:
    """Merges what the files say; a contradiction is an error, because either reading would change the ids silently."""
    chosen: dict[str, Any] = {}
    for field, (config_name, tokenizer_name) in _RULE_NAMES.items():
        said = {file: config[config_name] for file, config in configs.items() if config.get(config_name) is not None}
        if tokenizer and tokenizer["rules"].get(tokenizer_name) is not None:
            said["tokenizer.json"] = tokenizer["rules"][tokenizer_name]
        if field == "lower_case" and lower_case is not None:
            said = {"argument": lower_case}
        wanted = int if field == "max_word_chars" else bool
        for file, value in said.items():
            if type(value) is not wanted or (wanted is int and not 0 < value <= MOST_WORD_CHARS):
                accepted = f"1 to {MOST_WORD_CHARS}" if wanted is int else wanted.__name__
                raise ModelError(f"bad {config_name} in {folder / file}", received=value, accepted=accepted)
            chosen[field] = value
        if len(set(said.values())) > 1:
            raise ModelError(
                f"the files in {folder} disagree about {config_name}",
                received=said,
                fix="pass lower_case=True or False" if field == "lower_case" else "correct the wrong file",
            )
    return Rules(**chosen)
