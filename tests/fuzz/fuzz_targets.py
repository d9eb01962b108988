"""Everything that reads what somebody else wrote, one function each; `TARGETS` is the table of them."""

from __future__ import annotations

import contextlib
from typing import Any

import yaml
from fuzz_case import Folder, Target
from fuzz_grpc import GRPC_TARGETS
from fuzz_inputs import as_json, files, json_bytes, keyed, texts, values
from fuzz_models import MODEL_TARGETS
from fuzz_pictures import PICTURE_TARGETS
from fuzz_serving import SERVING_TARGETS
from fuzz_tables import TABLE_TARGETS
from hypothesis import strategies as st

from appzoo.cli.reader import JobReader
from appzoo.text_classify.config import BertClassifyConfig
from easytransfer.config.advanced import parse_advanced, resolve_advanced
from easytransfer.config.draft import Draft
from easytransfer.config.fields import settings_of
from easytransfer.config.files import dump, load_file, parse_override, take_mode
from easytransfer.config.job import JobConfig
from easytransfer.config.original import from_original_json, is_original
from easytransfer.config.schema import MODES
from easytransfer.config.stored import RUN_CONFIG, inherited, load_run_config
from easytransfer.data.schema import COLUMN_TYPES, parse_schema
from easytransfer.presets import resolve
from easytransfer.text.vocabulary import SPECIAL_TOKENS, read_vocabulary
from easytransfer.text.wordpiece import WordPiece
from easytransfer.text.words import WordVocabulary
from modelzoo.bert.config import BertConfig
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named

SETTINGS = settings_of(BertClassifyConfig)
PATHS = [setting.path for setting in SETTINGS]
SECTIONS = sorted({path.rpartition(".")[0] for path in PATHS} - {""})


# Configuration ----------------------------------------------------------------------------------------------


def schema(text: str, folder: Folder) -> None:
    """What is read is written and read again as the same."""
    found = parse_schema(text)
    assert parse_schema(str(found)) == found


def advanced(text: str, folder: Folder) -> None:
    """`--advancedParameters`, as text, JSON or `@file`."""
    folder.put("file.json", text)
    for given in (text, f"@{folder.path / 'file.json'}"):
        resolve_advanced(parse_advanced(given), BertClassifyConfig, "train")


def config(given: tuple[str, str], folder: Folder) -> None:
    """A configuration file: read, checked, written, and the same when read again."""
    suffix, text = given
    read = load_file(folder.put(f"job.{suffix}", text))
    mode = take_mode(read, "job") or "train"
    if is_original(read):
        read = from_original_json(read, mode, warn=lambda text: None)
    checked = built(read)
    again = load_file(folder.put("again.json", as_json(dump(checked))))
    assert as_json(dump(built(again))) == as_json(dump(checked))


def built(read: dict[str, Any]) -> JobConfig:
    draft = Draft()
    draft.update(read, "job")
    return draft.build(BertClassifyConfig)


def override(text: str, folder: Folder) -> None:
    """`--set`."""
    draft = Draft()
    draft.put(*parse_override(text), "--set")
    draft.build(BertClassifyConfig)


def command_line(words: tuple[str | None, list[str]], folder: Folder) -> None:
    """A whole command line, up to where the job would begin."""
    with contextlib.chdir(folder.path), contextlib.suppress(SystemExit):
        JobReader(words[0], words[1], []).read()


def stored(text: str, folder: Folder) -> None:
    """The configuration that a run left beside its weights."""
    folder.put(RUN_CONFIG, text)
    draft = Draft()
    draft.fill(inherited(load_run_config(folder.path)), "the stored configuration")
    draft.build(BertClassifyConfig)


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=False)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Configurations: sections with some of their keys."""
    keys = {section: [p.rpartition(".")[2] for p in PATHS if p.rpartition(".")[0] == section] for section in SECTIONS}
    sections = st.one_of([st.tuples(st.just(name), keyed(names, inner)) for name, names in keys.items()])
    top = keyed([path for path in PATHS if "." not in path], inner)
    return st.builds(lambda top, parts: {**top, **dict(parts)}, top, st.lists(sections, max_size=3))


ORIGINAL = ["preprocess_config", "model_config", "train_config", "evaluate_config", "_config_json", "schema_version"]
KEYS = [key for setting in SETTINGS for key in setting.keys]
YAML_WORDS = [*SECTIONS, *(path.rpartition(".")[2] for path in PATHS)]
YAML_WORDS += [": ", "\n  ", "\n", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "|\n", "? ", "---\n"]  # fmt: skip
YAML_WORDS += ["!!int ", "!!python/name:os.system ", "!!binary ", "!!map ", "!!omap ", "!!set "]
ANY_VALUE = st.one_of(values(), st.sampled_from(["1", "true", "none", 1, 0.5, [1], ["a"]]))
ORIGINAL_SECTION = st.one_of(keyed(["model_name", "optimizer_config", "label_enumerate_values"]), ANY_VALUE)
CONFIGS = st.one_of(
    st.tuples(st.just("yaml"), texts(YAML_WORDS)),
    st.tuples(st.just("yaml"), nested(ANY_VALUE).map(as_yaml)),
    st.tuples(st.just("json"), nested(ANY_VALUE).map(as_json)),
    st.tuples(st.just("json"), keyed(ORIGINAL, ORIGINAL_SECTION).map(as_json)),
)
ADVANCED = texts([*KEYS, "=", '"', " ", "\\", "#", "\n", "{", "}", ":", "@", "'"], surrogates=True)
FLAGS = [setting.flag for setting in SETTINGS if setting.flag]
WORDS = st.one_of(
    st.sampled_from(["--modelName=text_classify_bert", "--config=job.yaml", "--set", "--mode", "--configDump"]),
    st.builds("--{}={}".format, st.sampled_from(FLAGS), texts(["a:str:1", "train,eval"])),
    st.builds("--set={}={}".format, st.sampled_from([*PATHS, *SECTIONS]), texts(["[", "]", "{", "}", "1"])),
    st.builds("--advancedParameters={}".format, ADVANCED),
    texts(["--", "-", "="]),
)


# Text -------------------------------------------------------------------------------------------------------

TOKENS = [*SPECIAL_TOKENS, "a", "##a", "é", "e", "!", "中", "0", "##0", "##é"]
TOKENIZER = WordPiece(TOKENS)


def tokenizer(given: tuple[list[str], list[str], int], folder: Folder) -> None:
    """Any texts: rows within the length, pieces within the text, and words of any alphabet."""
    first, second, length = given
    pairs = (second * len(first))[: len(first)] if second else None
    encoded = TOKENIZER.encode(first, pairs, max_length=length)
    assert not len(first) or encoded.input_ids.lengths.max() <= length
    ids, spans = TOKENIZER.pieces_with_offsets(first)
    for row, text in enumerate(first):
        assert TOKENIZER.tokenize(text) == [TOKENS[number] for number in ids[row]]
        assert all(0 <= start <= end <= len(text) for start, end in spans[row])
    TOKENIZER.decode(ids.values)
    for split in ("none", "cjk", "all"):
        vocabulary = WordVocabulary.build(first, split=split)
        assert not vocabulary.encode(first, max_length=length).unknown.any()


def vocabulary(given: dict[str, bytes], folder: Folder) -> None:
    """The files of a tokenizer."""
    for name, content in given.items():
        folder.put(name, content)
    WordPiece(*read_vocabulary(folder.path)).encode(["a é 中!"])
    WordVocabulary.load(folder.path)


VOCAB = "\n".join(TOKENS).encode()
TOKENIZER_JSON = as_json(
    {
        "model": {"type": "WordPiece", "vocab": {token: i for i, token in enumerate(TOKENS)}, "unk_token": "[UNK]"},
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "added_tokens": [{"id": 0, "content": "[PAD]", "special": True}],
    }
).encode()
RULES = ["do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text", "vocab_size"]
RULES += ["max_input_chars_per_word"]
PARTS = ["model", "normalizer", "pre_tokenizer", "added_tokens"]
WORD_IDS = b'{"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3, "[MASK]": 4, "[SEP]": 5, "a": 6}'
VOCABULARIES = st.fixed_dictionaries(
    {"vocab.txt": files(VOCAB)},
    optional={
        "tokenizer.json": st.one_of(files(TOKENIZER_JSON), json_bytes(keyed(PARTS))),
        "tokenizer_config.json": st.one_of(files(b'{"do_lower_case": true}'), json_bytes(keyed(RULES))),
        "train_vocab.txt": files(WORD_IDS),
    },
)
TEXTS = st.lists(texts(surrogates=True), max_size=3)


# Models -----------------------------------------------------------------------------------------------------


def encoder_config(given: tuple[str, str], folder: Folder) -> None:
    """Sizes of an encoder, in each of their forms."""
    folder.put(*given)
    BertConfig.from_folder(folder.path)


def network_config(text: str, folder: Folder) -> None:
    """Sizes of an image network."""
    folder.put("config.json", text)
    CnnConfig.from_folder(folder.path)


def model_name(text: str, folder: Folder) -> None:
    """What a user types for a model."""
    folder.put("zoo/bert/config.json", "{}")
    with contextlib.chdir(folder.path):
        resolve(text, folder.path / "zoo")


def network_name(text: str, folder: Folder) -> None:
    """What a user types for an image network."""
    with contextlib.chdir(folder.path):
        named(text)


BERT_KEYS = [*BertConfig.model_fields, "architectures", "embedding_size", "gelu_form", "transformers_version"]
BERT_VALUES = st.one_of(st.sampled_from(["bert", "gelu", 8, 2, 0.1, True]), values())
JSON_PIECES = texts(["{", "}", '"', ":", ",", "hidden_size", "family", "1"])
ENCODERS = st.tuples(
    st.sampled_from(["config.json", "bert_config.json"]),
    st.one_of(keyed(BERT_KEYS, BERT_VALUES).map(as_json), JSON_PIECES),
)
NETWORKS = st.one_of(keyed(list(CnnConfig.model_fields)).map(as_json), JSON_PIECES)
MODEL_NAMES = texts(["modelhub:", "bert", "google-bert-base-en", "/", "..", "~", "zoo", ".", "minilm"])
NETWORK_NAMES = texts(["resnet", "20", "_cifar", "wrn", "28_10", "split2_", "_imagenet", "mlp", "x", "http://", "0"])


TARGETS = {
    target.name: target
    for target in (
        Target("schema", texts([*COLUMN_TYPES, ":", ",", "1", "*", "a", "b", " ", "0"]), schema),
        Target("advanced_parameters", st.one_of(ADVANCED, keyed(KEYS).map(as_json)), advanced),
        Target("config", CONFIGS, config),
        Target("override", st.one_of(texts([*PATHS, "=", "[", "]", "{", "}", "1"]), texts()), override),
        Target("command_line", st.tuples(st.sampled_from([None, *MODES]), st.lists(WORDS, max_size=6)), command_line),
        Target("stored_config", st.one_of(nested(ANY_VALUE).map(as_json), texts(["{", "}", '"config"', ":"])), stored),
        Target("tokenizer", st.tuples(TEXTS, TEXTS, st.integers(-1, 9)), tokenizer),
        Target("vocabulary", VOCABULARIES, vocabulary),
        Target("encoder_config", ENCODERS, encoder_config),
        Target("network_config", NETWORKS, network_config),
        Target("model_name", MODEL_NAMES, model_name),
        Target("network_name", NETWORK_NAMES, network_name),
        *TABLE_TARGETS,
        *MODEL_TARGETS,
        *SERVING_TARGETS,
        *GRPC_TARGETS,
        *PICTURE_TARGETS,
    )
}
