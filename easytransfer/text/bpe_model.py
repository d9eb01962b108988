"""Reads byte-level BPE, `vocab.json` with `merges.txt` or `tokenizer.json`; what would be read wrongly is refused.

Needs no TensorFlow, so that configuration checks can read a tokenizer quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.text.piece_model import CONFIG_FILE, flag, special_tokens, stated_vocab_size
from easytransfer.text.tokenizer import ROLES
from easytransfer.text.tokenizer_json import JSON_FILE, bounded, model_kind

VOCAB_FILE, MERGES_FILE, MAP_FILE = "vocab.json", "merges.txt", "special_tokens_map.json"
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_VERSION = "#version"
# Settings of the model in tokenizer.json with the values that mean plain byte-level BPE.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}

Merge = tuple[str, str]


def _byte_symbols() -> tuple[str, ...]:
    """Returns the character that stands for each byte: itself where it can be seen, else one of those from 256 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return tuple(chr(byte) if byte in seen else chr(256 + unseen.index(byte)) for byte in range(256))


# GPT-2's alphabet (Radford et al. 2019, section 2.2 and its code), in the order of the bytes.
BYTE_SYMBOLS = _byte_symbols()
SPACE = BYTE_SYMBOLS[0x20]


@dataclass(frozen=True)
class BpeFiles:
    """What a model folder says of its byte-level BPE.

    Attributes:
        vocab: Pieces in the order of their ids, spelled with `BYTE_SYMBOLS`.
        merges: Pairs of pieces that become one, the first ones before the others.
        add_prefix_space: Put a space before a text that begins with none.
        special: Special tokens, in the order of `ROLES`.
    """

    vocab: Sequence[str]
    merges: Sequence[Merge]
    add_prefix_space: bool = False
    special: tuple[str, ...] = SPECIAL_TOKENS


def holds_bpe(folder: Path) -> bool:
    """Returns whether a folder holds `vocab.json` with `merges.txt`, or a `tokenizer.json` with a BPE model."""
    if (folder / VOCAB_FILE).is_file() and (folder / MERGES_FILE).is_file():
        return True
    if not (folder / JSON_FILE).is_file():
        return False
    return model_kind(read_json(bounded(folder / JSON_FILE)).get("model")) == "BPE"


def read_bpe(folder: str | Path) -> BpeFiles:
    """Reads vocabulary, merges and rules of a model folder.

    Args:
        folder: Holds `vocab.json` and `merges.txt`, or `tokenizer.json`, or all of them saying the same; optionally
            `tokenizer_config.json` and `special_tokens_map.json` with `add_prefix_space` and names of special tokens,
            and `config.json` with `vocab_size`.

    Raises:
        ModelError: Files are missing, damaged or contradict each other, or ask for what is not done here.
    """
    folder = Path(folder)
    if not holds_bpe(folder):
        raise ModelError(
            f"no byte-level BPE vocabulary in {folder}",
            accepted=f"{VOCAB_FILE} with {MERGES_FILE}, or {JSON_FILE} with a BPE model",
            fix="copy the tokenizer of the model into the folder",
        )
    configs = [read_json(folder / name) for name in (MAP_FILE, CONFIG_FILE) if (folder / name).is_file()]
    config = {key: value for data in configs for key, value in data.items()}
    special = special_tokens(folder, config, SPECIAL_TOKENS)
    prefix = flag(folder, config, "add_prefix_space", False) if "add_prefix_space" in config else None
    found, json_file = None, folder / JSON_FILE
    if json_file.is_file():
        found = _of_json(read_json(bounded(json_file)), special, str(json_file))
        if prefix is not None and prefix != found.add_prefix_space:
            raise ModelError(
                f"{JSON_FILE} and {CONFIG_FILE} in {folder} disagree about add_prefix_space",
                received=f"{found.add_prefix_space} and {prefix}",
                fix="correct the wrong file",
            )
        prefix = found.add_prefix_space
    if (folder / VOCAB_FILE).is_file() and (folder / MERGES_FILE).is_file():
        files = _of_two_files(folder, bool(prefix), special)
        if found is not None and (list(files.vocab), list(files.merges)) != (list(found.vocab), list(found.merges)):
            raise ModelError(
                f"{VOCAB_FILE}, {MERGES_FILE} and {JSON_FILE} in {folder} hold different vocabularies",
                received=f"{len(files.vocab)} and {len(found.vocab)} pieces",
                fix="remove the wrong ones",
            )
        found = files
    assert found is not None
    check_bpe(found, str(folder), stated_vocab_size(folder))
    return found


def check_bpe(files: BpeFiles, where: str, vocab_size: int | None = None) -> None:
    """Checks that every text can be spelled and no text spells a special token.

    Args:
        files: Vocabulary, merges and special tokens.
        where: Name of the folder, for messages.
        vocab_size: Rows of the model's word embeddings, if known.

    Raises:
        ModelError: They do not fit together.
    """
    known = set(files.vocab)
    if len(known) != len(files.vocab) or "" in known:
        raise ModelError(f"the vocabulary in {where} holds a piece twice, or an empty one", fix="copy the files again")
    if missing := [byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol not in known]:
        raise ModelError(
            f"the vocabulary in {where} has no piece for {len(missing)} bytes, so that not every text can be spelled",
            received=f"none for byte {missing[0]}, {BYTE_SYMBOLS[missing[0]]!r}",
            fix="train the vocabulary with all bytes in its first alphabet",
        )
    products = set()
    for number, (first, second) in enumerate(files.merges):
        if not {first, second, first + second} <= known or not set(first + second) <= set(BYTE_SYMBOLS):
            raise ModelError(
                f"merge {number} in {where} needs pieces that the vocabulary does not have",
                received=f"{first} {second}",
                fix="copy vocabulary and merges of the same model",
            )
        products.add(first + second)
    if len(set(files.merges)) != len(files.merges):
        raise ModelError(f"the merges in {where} hold a pair twice", fix="copy the files again")
    for role, token in zip(ROLES, files.special, strict=True):
        if token not in known or token in products or token in BYTE_SYMBOLS:
            raise ModelError(
                f"the special token of the role {role} in {where} is no piece of its own",
                received=token,
                fix=f"name it in {CONFIG_FILE} as {role}_token; tokens that text could spell are not special",
            )
    if vocab_size is not None and len(known) > vocab_size:
        raise ModelError(f"{where} does not fit the model", received=f"{len(known)} pieces", accepted=f"{vocab_size}")


def tokenizer_config(files: BpeFiles) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, readable by this module and by `transformers`."""
    names = {f"{role}_token": token for role, token in zip(ROLES, files.special, strict=True)}
    names |= {"bos_token": names["cls_token"], "eos_token": names["sep_token"]}
    return {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": files.add_prefix_space, **names}


def merges_text(merges: Iterable[Merge]) -> str:
    """Returns the content of `merges.txt`."""
    return f"{_VERSION}: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges)


def _of_two_files(folder: Path, prefix: bool, special: tuple[str, ...]) -> BpeFiles:
    path = bounded(folder / MERGES_FILE)
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text ({error})", fix="copy the file again") from None
    merges = [_merge(line.removesuffix("\r"), path) for line in lines if line.strip() and not line.startswith(_VERSION)]
    vocab = _ordered(read_json(bounded(folder / VOCAB_FILE)), str(folder / VOCAB_FILE))
    return BpeFiles(vocab, merges, prefix, special)


def _merge(merge: Any, where: object) -> Merge:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ModelError(f"{where} holds a line that is no merge of two pieces", received=str(merge)[:80])
    return parts[0], parts[1]


def _ordered(ids: Mapping[str, Any], where: str) -> list[str]:
    """Returns the pieces in the order of their ids."""
    if not ids or not all(type(number) is int for number in ids.values()):
        raise ModelError(f"{where} holds no ids by pieces", fix="copy the file again")
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ModelError(f"the ids in {where} are not 0 to {len(pieces) - 1}", fix="copy the file again")
    return pieces


def _of_json(data: dict[str, Any], special: tuple[str, ...], where: str) -> BpeFiles:
    try:
        return _plain_bpe(data, special, where)
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        raise ModelError(f"{where} describes no byte-level BPE tokenizer", received=repr(error)) from None


def _plain_bpe(data: dict[str, Any], special: tuple[str, ...], where: str) -> BpeFiles:
    model, splitter = data["model"], data.get("pre_tokenizer") or {}
    _expect(where, "model.type", model_kind(model), ("BPE",))
    for name, accepted in _PLAIN.items():
        _expect(where, f"model.{name}", model.get(name), accepted)
    _expect(where, "normalizer", data.get("normalizer"), (None, {"type": "Sequence", "normalizers": []}))
    _expect(where, "pre_tokenizer.type", splitter.get("type"), ("ByteLevel",))
    _expect(where, "pre_tokenizer.use_regex", splitter.get("use_regex", True), (True,))
    _expect(where, "pre_tokenizer.add_prefix_space", splitter.get("add_prefix_space"), (True, False))
    ids = dict(model["vocab"])
    for added in data.get("added_tokens") or []:
        if ids.setdefault(added["content"], added["id"]) != added["id"] or not added.get("special"):
            raise ModelError(
                f"added_tokens of {where} hold one that is looked for in texts before all else, which is not done here",
                received=added["content"],
                accepted="special tokens",
                fix="train without it, or mark it as special where texts never hold it",
            )
    _check_template(data.get("post_processor"), special, ids, where)
    merges = [_merge(merge, f"model.merges of {where}") for merge in model["merges"]]
    return BpeFiles(_ordered(ids, where), merges, splitter["add_prefix_space"], special)


def _check_template(processor: Any, special: tuple[str, ...], ids: Mapping[str, Any], where: str) -> None:
    """Checks that rows are `<s> a </s>` and `<s> a </s> </s> b </s>`."""
    begin, end = special[ROLES.index("cls")], special[ROLES.index("sep")]
    kind = processor.get("type") if isinstance(processor, dict) else None
    _expect(where, "post_processor.type", kind, ("RobertaProcessing", "TemplateProcessing"))
    if kind == "RobertaProcessing":
        for name, token in (("cls", begin), ("sep", end)):
            _expect(where, f"post_processor.{name}", list(processor[name]), ([token, ids.get(token)],))
        return
    for name, wanted in (("single", [begin, "A", end]), ("pair", [begin, "A", end, end, "B", end])):
        shown = [part["id"] for step in processor[name] for part in step.values()]
        _expect(where, f"post_processor.{name}", shown, (wanted,))


def _expect(where: str, part: str, value: Any, accepted: Sequence[Any]) -> None:
    if value not in accepted:
        raise ModelError(
            f"{part} of {where} asks for what is not done here",
            received=str(value)[:80],
            accepted=" or ".join(map(str, accepted)),
            fix="take a model whose tokenizer is that of RoBERTa",
        )
