"""Reads SentencePiece models, from their own files and from `tokenizer.json`, and refuses what would be read wrongly.

Needs no TensorFlow, so that configuration checks can read a tokenizer quickly.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.text.tokenizer import ROLES
from easytransfer.text.tokenizer_json import JSON_FILE, bounded, model_kind

MODEL_FILE, CONFIG_FILE = "spiece.model", "tokenizer_config.json"
# Stands for a space, which begins a word.
WORD_BEGIN = "\u2581"
_KINDS_OF_MODELS = {1: "unigram", 2: "bpe"}
# What a model must say of white space: pieces are places in a text only where it is treated like this.
_WHITE_SPACE = {"remove_extra_whitespaces": True, "escape_whitespaces": True}


@dataclass(frozen=True)
class PieceRules:
    """What happens to a text before a SentencePiece model reads it.

    Attributes:
        lower_case: Lower-case every character.
        keep_accents: Leave accents; without it characters are decomposed (NFKD) and combining marks dropped.
    """

    lower_case: bool = True
    keep_accents: bool = False


@dataclass(frozen=True)
class PieceKind:
    """What the tokenizers of a family are where their files are silent, and how transformers calls them.

    Attributes:
        special: Special tokens, in the order of `ROLES`.
        rules: What happens to a text before.
        tokenizer_class: Class of transformers.
        bounds: What transformers takes for the begin and the end of a text.
        file: Name of the model in a folder that is written.
        joins_quotes: Two grave accents or apostrophes become a quotation mark before.
        in_fairseq_order: Ids are those of fairseq, see `fairseq_order`.
    """

    special: tuple[str, ...]
    rules: PieceRules
    tokenizer_class: str
    bounds: tuple[str, str]
    file: str = MODEL_FILE
    joins_quotes: bool = True
    in_fairseq_order: bool = False


ALBERT_PIECES = PieceKind(
    ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), PieceRules(), "AlbertTokenizer", ("[CLS]", "[SEP]")
)
XLNET_PIECES = PieceKind(
    ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>"), PieceRules(lower_case=False), "XLNetTokenizer", ("<s>", "</s>")
)
XLM_ROBERTA_PIECES = PieceKind(
    ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
    PieceRules(lower_case=False, keep_accents=True),
    "XLMRobertaTokenizer",
    ("<s>", "</s>"),
    file="sentencepiece.bpe.model",
    joins_quotes=False,
    in_fairseq_order=True,
)
# The first pieces of XLM-RoBERTa's model as published, and the ids 0 to 3 of fairseq's dictionary; its last is <mask>.
PUBLISHED_FIRST, FAIRSEQ_FIRST, _MASK = ["<unk>", "<s>", "</s>"], ["<s>", "<pad>", "</s>", "<unk>"], "<mask>"


@dataclass(frozen=True)
class PieceFiles:
    """What a model folder says of its tokenizer.

    Attributes:
        model: SentencePiece model, a serialized `ModelProto`, its pieces in the order of their ids.
        rules: What happens to a text before.
        special: Special tokens, in the order of `ROLES`.
    """

    model: bytes
    rules: PieceRules
    special: tuple[str, ...]


def model_file(folder: Path) -> Path | None:
    """Returns the SentencePiece model of a folder: `spiece.model`, or the only file with the ending `.model`."""
    if (folder / MODEL_FILE).is_file():
        return folder / MODEL_FILE
    others = [path for path in folder.glob("*.model") if path.is_file()]
    return others[0] if len(others) == 1 else None


def holds_unigram(folder: Path) -> bool:
    """Returns whether a folder holds a `tokenizer.json` of the pieces of a SentencePiece model."""
    if not (folder / JSON_FILE).is_file():
        return False
    return model_kind(read_json(bounded(folder / JSON_FILE)).get("model")) == "Unigram"


def read_pieces(folder: str | Path, lower_case: bool | None = None, kind: PieceKind = ALBERT_PIECES) -> PieceFiles:
    """Reads model, rules and special tokens of a model folder.

    Args:
        folder: Holds `spiece.model`, one other `.model`, or a `tokenizer.json` with a Unigram model; optionally
            `tokenizer_config.json` with `do_lower_case`, `keep_accents` and names of special tokens, and `config.json`
            with `vocab_size`.
        lower_case: Overrides what the files say.
        kind: What holds where they say nothing.

    Raises:
        ModelError: Files are missing, damaged or contradict each other, or ask for what is not done here.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    rules, special = _rules(folder, config, lower_case, kind), special_tokens(folder, config, kind.special)
    path = model_file(folder)
    if path is not None:
        model, where = bounded(path).read_bytes(), path
        model = fairseq_order(model, str(where)) if kind.in_fairseq_order else model
    elif holds_unigram(folder):
        where = folder / JSON_FILE
        data = read_json(bounded(where))
        stated = PieceRules(flag(folder, config, "do_lower_case", kind.rules.lower_case), rules.keep_accents)
        model = (
            model_of_json(data, stated, special, str(where))
            if kind.joins_quotes
            else model_of_plain_json(data, special, str(where), "an XLM-RoBERTa", kind.file)
        )
    else:
        raise ModelError(
            f"no SentencePiece model in {folder}",
            accepted=f"{MODEL_FILE}, one other .model file, or {JSON_FILE} with a Unigram model",
            fix="copy the tokenizer of the model into the folder",
        )
    check_model(model, special, str(where), stated_vocab_size(folder))
    return PieceFiles(model, rules, special)


def check_model(model: bytes, special: tuple[str, ...], where: str, vocab_size: int | None = None) -> None:
    """Checks that a model is whole and that its pieces can be places in a text.

    Args:
        model: Serialized `ModelProto`.
        special: Special tokens, in the order of `ROLES`.
        where: Name of the file, for messages.
        vocab_size: Rows of the model's word embeddings, if known.

    Raises:
        ModelError: It is not.
    """
    proto = parse_model(model, where)
    kind = proto.trainer_spec.model_type
    if kind not in _KINDS_OF_MODELS:
        raise ModelError(f"{where}: a model of another kind", received=kind, accepted=_KINDS_OF_MODELS.values())
    for name, wanted in _WHITE_SPACE.items():
        if getattr(proto.normalizer_spec, name) != wanted:
            raise ModelError(f"{where}: {name} is not supported", received=not wanted, accepted=str(wanted))
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise ModelError(f"{where}: treat_whitespace_as_suffix is not supported", received=True, accepted="False")
    types = {piece.piece: piece.type for piece in proto.pieces}
    if len(types) != len(proto.pieces):
        raise ModelError(f"{where} holds a piece twice", received=f"{len(proto.pieces)} pieces, {len(types)} different")
    if "" in types or not np.isfinite([piece.score for piece in proto.pieces]).all():
        raise ModelError(f"{where} is damaged: it has an empty piece, or a score that is not finite")
    piece = type(proto).SentencePiece
    if list(types.values()).count(piece.UNKNOWN) != 1:
        raise ModelError(f"{where} is damaged: it must have one unknown piece")
    for role, token in zip(ROLES, special, strict=True):
        wanted = piece.UNKNOWN if role == "unk" else piece.CONTROL
        if types.get(token) != wanted:
            kind = "unknown" if role == "unk" else "control"
            raise ModelError(
                f"{where}: the special token of the role {role} is no {kind} piece",
                received=token,
                fix=f"name it in {CONFIG_FILE} as {role}_token; tokens that text could spell are not special",
            )
    if vocab_size is not None and len(types) > vocab_size:
        raise ModelError(f"{where} does not fit the model", received=f"{len(types)} pieces", accepted=f"{vocab_size}")


def parse_model(model: bytes, where: str) -> Any:
    """Returns the `ModelProto` of serialized bytes; ModelError where they are none."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{where} is no SentencePiece model ({error})", fix="copy the file again") from None
    if not proto.pieces:
        raise ModelError(f"{where} is no SentencePiece model: it has no pieces", fix="copy the file again")
    return proto


def model_of_json(data: dict[str, Any], rules: PieceRules, special: tuple[str, ...], where: str) -> bytes:
    """Returns the model that a `tokenizer.json` of an ALBERT or XLNet describes.

    Raises:
        ModelError: It describes another one, or other rules than `rules`.
    """
    try:
        return _model_of_json(data, rules, special, where)
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        raise ModelError(f"{where} describes no ALBERT or XLNet tokenizer", received=repr(error)) from None


def _model_of_json(data: dict[str, Any], rules: PieceRules, special: tuple[str, ...], where: str) -> bytes:
    steps = data["normalizer"]["normalizers"]
    shown = [step["type"] for step in steps]
    wanted = ["Replace", "Replace", *([] if rules.keep_accents else ["NFKD", "StripAccents"])]
    wanted += ["Lowercase"] if rules.lower_case else []
    rest = shown[len(wanted) :]
    if shown[: len(wanted)] != wanted or rest not in ([], ["Precompiled"], ["Replace"], ["Precompiled", "Replace"]):
        raise ModelError(f"{where} and {CONFIG_FILE} have different text rules", received=shown, accepted=wanted)
    charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), "")
    # The model has more of them than roles, such as <eod>; text cannot spell them.
    control = (*special, *(added["content"] for added in data.get("added_tokens") or [] if added.get("special")))
    return unigram_model(data, control, charsmap or "", where)


def model_of_plain_json(
    data: dict[str, Any], control: Collection[str], where: str, family: str = "a T5", file: str = MODEL_FILE
) -> bytes:
    """Returns the model that a `tokenizer.json` describes whose texts nothing but the model's normalization changes.

    Args:
        data: Contents of the file.
        control: Pieces that no text has; special ones that the file adds come on top.
        where: Its name, for messages.
        family: Whose tokenizer it should be, for messages.
        file: Name of the SentencePiece model that may be had instead, for messages.

    Raises:
        ModelError: It describes another one.
    """
    fix = f"copy {file} of the model into the folder"
    try:
        normalizer, splitter = data["normalizer"] or {}, data["pre_tokenizer"] or {}
        splitters = splitter.get("pretokenizers", [splitter])
        _expect(where, "normalizer.type", normalizer.get("type"), ["Precompiled"], fix)
        kinds = [step.get("type") for step in splitters]
        _expect(where, "pre_tokenizer", kinds, [["Metaspace"], ["WhitespaceSplit", "Metaspace"]], fix)
        mark = splitters[-1]
        _expect(where, "pre_tokenizer.replacement", mark["replacement"], [WORD_BEGIN], fix)
        begins = mark.get("prepend_scheme") or ("always" if mark.get("add_prefix_space") else "never")
        _expect(where, "pre_tokenizer.prepend_scheme", begins, ["always"], fix)
        control = {*control, *(added["content"] for added in data["added_tokens"] if added["special"])}
        return unigram_model(data, control, normalizer["precompiled_charsmap"], where)
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        raise ModelError(f"{where} describes no tokenizer of {family}", received=repr(error)) from None


def _expect(where: str, part: str, value: Any, accepted: Sequence[Any], fix: str) -> None:
    if value not in accepted:
        shown = " or ".join(map(str, accepted))
        raise ModelError(f"{part} of {where} asks for what is not done here", received=value, accepted=shown, fix=fix)


def unigram_model(data: dict[str, Any], control: Collection[str], charsmap: str, where: str) -> bytes:
    """Returns the SentencePiece model with the pieces of a `tokenizer.json`.

    Args:
        data: Contents of the file.
        control: Pieces that no text has.
        charsmap: Normalization of the model, in base 64.
        where: Name of the file, for messages.

    Raises:
        ModelError: The model cannot be one of SentencePiece.
        LookupError, TypeError, ValueError: The file is damaged.
    """
    from sentencepiece import sentencepiece_model_pb2

    if data["model"].get("byte_fallback"):
        raise ModelError(f"{where}: byte_fallback is not supported", received=True, accepted="False")
    proto = sentencepiece_model_pb2.ModelProto()
    for token, score in data["model"]["vocab"]:
        kind = proto.SentencePiece.CONTROL if token in control else proto.SentencePiece.NORMAL
        proto.pieces.add(piece=token, score=score, type=kind)
    proto.pieces[data["model"]["unk_id"]].type = proto.SentencePiece.UNKNOWN
    for added in data.get("added_tokens") or []:
        if proto.pieces[added["id"]].piece != added["content"]:
            raise ModelError(f"{where} adds a token that is no piece of the model", received=added["content"])
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(charsmap, validate=True)
    return proto.SerializeToString()


def fairseq_order(model: bytes, where: str) -> bytes:
    """Returns a published model of XLM-RoBERTa with its pieces in the order of fairseq's ids, <pad> and <mask> added.

    fairseq's dictionary begins with four tokens of its own and ends with <mask>, so that all other pieces have the id
    of the published model plus one (Conneau et al. 2020, arXiv 1911.02116, and its code).

    Raises:
        ModelError: The bytes are no model, or one whose first pieces are others.
    """
    proto = parse_model(model, where)
    unknown, begin, end, *others = list(proto.pieces)
    if (first := [piece.piece for piece in (unknown, begin, end)]) != PUBLISHED_FIRST:
        raise ModelError(
            f"{where} is no model of an XLM-RoBERTa: its first pieces are others",
            received=first,
            accepted=PUBLISHED_FIRST,
        )
    pad, mask = (proto.SentencePiece(piece=name, type=unknown.CONTROL) for name in (FAIRSEQ_FIRST[1], _MASK))
    return _with_pieces(proto, [begin, pad, end, unknown, *others, mask])


def published_order(model: bytes, where: str) -> bytes:
    """Returns the model that `fairseq_order` makes this one of.

    Raises:
        ModelError: There is none.
    """
    proto = parse_model(model, where)
    begin, pad, end, unknown, *others, mask = list(proto.pieces)
    found = [piece.piece for piece in (begin, pad, end, unknown, mask)]
    if found != [*FAIRSEQ_FIRST, _MASK]:
        raise ModelError(
            f"{where} numbers the special tokens of an XLM-RoBERTa otherwise",
            received=found,
            accepted=[*FAIRSEQ_FIRST, _MASK],
        )
    return _with_pieces(proto, [unknown, begin, end, *others])


def _with_pieces(proto: Any, pieces: Sequence[Any]) -> bytes:
    found = type(proto)()
    found.CopyFrom(proto)
    del found.pieces[:]
    found.pieces.extend(pieces)
    return bytes(found.SerializeToString())


def tokenizer_config(rules: PieceRules, special: tuple[str, ...], kind: PieceKind = ALBERT_PIECES) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, readable by this module and by `transformers`."""
    names = {f"{role}_token": token for role, token in zip(ROLES, special, strict=True)}
    # In transformers, bos and eos are what begins and ends the text; where these are cls and sep, by their own names.
    bounds = (special[kind.special.index(token)] if token in kind.special else token for token in kind.bounds)
    names |= dict(zip(("bos_token", "eos_token"), bounds, strict=True))
    return {
        "tokenizer_class": kind.tokenizer_class,
        "do_lower_case": rules.lower_case,
        "keep_accents": rules.keep_accents,
        "remove_space": True,
        **names,
    }


def _rules(folder: Path, config: dict[str, Any], lower_case: bool | None, kind: PieceKind) -> PieceRules:
    if not flag(folder, config, "remove_space", True):
        raise ModelError(f"remove_space in {folder / CONFIG_FILE} is not supported", received=False, accepted="True")
    stated = flag(folder, config, "do_lower_case", kind.rules.lower_case)
    keep_accents = flag(folder, config, "keep_accents", kind.rules.keep_accents)
    return PieceRules(stated if lower_case is None else lower_case, keep_accents)


def flag(folder: Path, config: dict[str, Any], name: str, default: bool) -> bool:
    """Returns a setting of `tokenizer_config.json` that is true or false."""
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ModelError(f"bad {name} in {folder / CONFIG_FILE}", received=value, accepted="true, false")
    return value


def special_tokens(folder: Path, config: dict[str, Any], usual: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the special tokens of a model folder, in the order of `ROLES`.

    Args:
        folder: The folder, for messages.
        config: Contents of its `tokenizer_config.json`.
        usual: Those that it does not name.

    Raises:
        ModelError: One is no text.
    """
    found = []
    for role, default in zip(ROLES, usual, strict=True):
        token = config.get(f"{role}_token", default)
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str) or not token:
            raise ModelError(f"bad {role}_token in {folder / CONFIG_FILE}", received=token, accepted="a piece")
        found.append(token)
    return tuple(found)


def stated_vocab_size(folder: Path) -> int | None:
    """Returns the rows of the word embeddings that `config.json` of a folder states, if any."""
    path = folder / "config.json"
    size = read_json(path).get("vocab_size") if path.is_file() else None
    return size if isinstance(size, int) else None
