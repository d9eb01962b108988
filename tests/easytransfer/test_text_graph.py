"""The in-graph tokenizer must give the very ids of `WordPiece`, also after a SavedModel is reloaded elsewhere."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from multilingual_corpus import SENTENCES, character_vocabulary, corpus, minilm_folder, pairs
from tensorflow.core.protobuf import saved_model_pb2
from tokenizers import pre_tokenizers

from easytransfer.errors import ConfigError, ModelError
from easytransfer.text.vocabulary import Rules
from easytransfer.text.wordpiece import WordPiece, bert_normalizer
from easytransfer.text.wordpiece_graph import GraphWordPiece

ALL_RULES = [
    Rules(),
    Rules(lower_case=False),
    Rules(lower_case=True, strip_accents=False),
    Rules(lower_case=False, strip_accents=True),
    Rules(clean=False, split_cjk=False, max_word_chars=200),
]


def reference_words(lines, rules):
    normalizer, splitter = bert_normalizer(rules), pre_tokenizers.BertPreTokenizer()
    return [[word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))] for line in lines]


def graph_words(graph, lines):
    found = tf.function(graph.words)(tf.constant(lines))
    return [[word.decode() for word in row] for row in found.to_list()]


def assert_same_ids(tokenizer, graph, texts, seconds=None):
    """Compares ids, mask and segments, padded to the longest row."""
    tokens = tokenizer.encode(texts, seconds, max_length=graph.max_length)
    rows, width = np.arange(len(texts)), int(tokens.input_ids.lengths.max())
    found = graph(tf.constant(texts), None if seconds is None else tf.constant(seconds))
    expected = {
        "input_ids": tokens.input_ids.padded(rows, width, tokenizer.pad_id),
        "input_mask": (np.arange(width) < tokens.input_ids.lengths[:, None]).astype(np.int32),
        "segment_ids": tokens.segment_ids.padded(rows, width),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == tf.int32
        np.testing.assert_array_equal(found[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize(
    "rules", ALL_RULES, ids=lambda rules: "".join(f"{int(value or 0)}-" for value in vars(rules).values())[:-1]
)
def test_words_equal_tokenizers(rules):
    graph = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], rules).in_graph()
    expected, found = reference_words(corpus(), rules), graph_words(graph, corpus())
    wrong = [(ascii(line), a, b) for line, a, b in zip(corpus(), expected, found, strict=True) if a != b]
    assert not wrong, wrong[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules", ALL_RULES[:2], ids=lambda rules: "".join(f"{int(value or 0)}-" for value in vars(rules).values())[:-1]
)
def test_every_code_point_equals_tokenizers(rules):
    graph = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], rules).in_graph()
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    for between in ("", "a", "\u302f", "\u0345"):
        lines = [between.join(points[at : at + 64]) for at in range(0, len(points), 64)]
        assert graph_words(graph, lines) == reference_words(lines, rules)


@pytest.mark.parametrize("lower_case", [True, False])
def test_ids_equal_with_a_vocabulary_of_characters(lower_case):
    rules = Rules(lower_case=lower_case)
    tokenizer = WordPiece(character_vocabulary(rules), rules)
    assert tokenizer.encode(corpus(), max_length=512).unknown.mean() < 1
    graph = tokenizer.in_graph()
    for graph.max_length in (4, 64):
        assert_same_ids(tokenizer, graph, corpus())
        assert_same_ids(tokenizer, graph, *pairs(corpus()))


@pytest.mark.parametrize("lower_case", [True, False])
def test_ids_equal_with_the_minilm_vocabulary(lower_case):
    folder = minilm_folder()
    tokenizer = WordPiece.from_folder(folder, lower_case)
    graph = GraphWordPiece(folder / "vocab.txt", lower_case)
    for graph.max_length in (9, 128):
        assert_same_ids(tokenizer, graph, corpus())
        assert_same_ids(tokenizer, graph, *pairs(corpus()))


def small_tokenizer(*extra, **rules):
    return WordPiece([*"[PAD] [UNK] [CLS] [SEP] [MASK] a b ##b é ##é".split(), *extra], Rules(**rules))


def test_batches_of_none_and_one():
    graph = small_tokenizer().in_graph(8)
    encode = tf.function(graph, input_signature=[tf.TensorSpec([None], tf.string)])
    for value in encode(tf.constant([], tf.string)).values():
        # One column of nothing: encoders read the first token.
        assert value.shape == (0, 1) and value.dtype == tf.int32
    assert encode(tf.constant([""]))["input_ids"].numpy().tolist() == [[2, 3]]
    assert encode(tf.constant(["Abb c"]))["input_ids"].numpy().tolist() == [[2, 5, 7, 7, 1, 3]]
    empty = tf.constant([], tf.string)
    assert graph(empty, empty)["segment_ids"].shape == (0, 1)


def test_bytes_that_are_not_utf8_are_dropped():
    graph = small_tokenizer().in_graph(8)
    assert graph(tf.constant([b"a\xff\xfeb \xc3"]))["input_ids"].numpy().tolist() == [[2, 5, 7, 3]]


def test_long_words_are_bounded_in_characters_not_bytes():
    tokenizer = small_tokenizer(lower_case=False, max_word_chars=150)
    graph = tokenizer.in_graph(256)
    assert_same_ids(tokenizer, graph, ["é" * 150, "é" * 151, "\U00020000" * 151, "a" + "b" * 149])


def test_vocabularies_with_odd_tokens():
    tokenizer = small_tokenizer("##", "#", "\ue000", "a b", "\u2028", "##a#", " ", clean=False)
    graph = tokenizer.in_graph(16)
    assert_same_ids(tokenizer, graph, ["# ## a#b \ue000 \ue000a a b", "x" * 300, "\u2028"])


def test_construction_is_checked(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ModelError, match="lacks special tokens"):
        GraphWordPiece(tmp_path / "vocab.txt")
    with pytest.raises(ConfigError, match="no room"):
        small_tokenizer().in_graph(2)
    with pytest.raises(ConfigError, match="no room"):
        small_tokenizer().in_graph(3)(tf.constant(["a"]), tf.constant(["b"]))


LOADER = """
import json, sys
import tensorflow as tf
import tensorflow_text
folder, request = sys.argv[1], json.loads(sys.stdin.read())
answers = []
model = tf.saved_model.load(folder)
for n in request["sizes"]:
    text, pair = tf.constant(request["text"][:n], tf.string), tf.constant(request["pair"][:n], tf.string)
    for name, inputs in (("single", {"text": text}), ("pair", {"text": text, "pair": pair})):
        output = model.signatures[name](**inputs)
        answers.append({key: value.numpy().tolist() for key, value in output.items()})
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    signature = loaded.signature_def["single"]
    feed = {signature.inputs["text"].name: request["text"]}
    ids = session.run(signature.outputs["input_ids"].name, feed)
assert not [name for name in sys.modules if name.startswith(("easytransfer", "tokenizers", "transformers"))]
print(json.dumps({"answers": answers, "session": ids.tolist()}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel of the tokenizer alone, its folder, and the live module."""
    graph = WordPiece(character_vocabulary(Rules())).in_graph(32)
    text = tf.TensorSpec([None], tf.string, "text")
    pair = tf.TensorSpec([None], tf.string, "pair")
    signatures = {
        "single": tf.function(lambda text: graph(text), [text]),
        "pair": tf.function(lambda text, pair: graph(text, pair), [text, pair]),
    }
    folder = tmp_path_factory.mktemp("export") / "1"
    tf.saved_model.save(graph, str(folder), signatures)
    return folder, graph


def test_reload_in_a_process_without_this_package(exported):
    folder, graph = exported
    request = {"text": SENTENCES, "pair": SENTENCES[::-1], "sizes": [0, 1, len(SENTENCES)]}
    command = [sys.executable, "-c", LOADER, str(folder)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    reply = json.loads(done.stdout)
    answers = iter(reply["answers"])
    for size in request["sizes"]:
        text, pair = (tf.constant(request[name][:size], tf.string) for name in ("text", "pair"))
        for expected in (graph(text), graph(text, pair)):
            assert next(answers) == {name: value.numpy().tolist() for name, value in expected.items()}
    assert reply["session"] == graph(tf.constant(SENTENCES))["input_ids"].numpy().tolist()


def test_only_core_operators_and_one_of_tf_text_are_exported(exported):
    content = saved_model_pb2.SavedModel.FromString((exported[0] / "saved_model.pb").read_bytes())
    graph_def = content.meta_graphs[0].graph_def
    nodes = list(graph_def.node) + [node for function in graph_def.library.function for node in function.node_def]
    calls = {function.signature.name for function in graph_def.library.function}
    foreign = {node.op for node in nodes if not hasattr(tf.raw_ops, node.op)} - calls
    assert foreign == {"FastWordpieceTokenizeWithOffsets"}
    assert not {node.op for node in nodes} & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
    own = [function for function in graph_def.library.function if "traced_" not in function.signature.name]
    assert not {node.device for function in own for node in function.node_def if node.device}
    assert (exported[0] / "assets" / "vocab.txt").read_text(encoding="utf-8").startswith("[PAD]\n[UNK]\n")
