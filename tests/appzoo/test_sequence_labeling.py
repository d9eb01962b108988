"""Sequence labelling: alignment, windows, losses, serving, bad rows, and the original's defects."""

import json
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appzoo.labeling.data import encode_words, split_units, unit_offsets
from appzoo.sequence_labeling.config import BertLabelingConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError
from easytransfer.text.wordpiece import WordPiece
from easytransfer.train.step import EVALUATION

TAGS = "O,B-PER,I-PER,B-LOC,I-LOC"
PIECES = ["a", "b", "c", "##a", "##b", "##c", "new", "york", "john", "##son", "北", "京"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
# What the tokenizer drops.
DROPPED = "\u0007"


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(VOCAB)


def make_app(tiny_model, labels=TAGS, data=None, train=None, folder=None, **model):
    from appzoo.sequence_labeling.app import BertLabeling

    values = {"first_sequence": "text", "label_name": "tags", "label_enumerate_values": labels, "sequence_length": 16}
    config = {
        "model_name": "sequence_labeling_bert",
        "data": values | (data or {}),
        "train": train or {},
        "model": {"pretrain_model_name_or_path": str(tiny_model)} | model,
    }
    app = BertLabeling(BertLabelingConfig.model_validate(config))
    app.load_assets(folder)
    return app


def read_chunk(app, tmp_path, lines, schema="text:str:1,tags:str:1", policy="skip"):
    path = tmp_path / "table.tsv"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    bad = BadRows(policy)
    table = open_table(str(path), schema=parse_schema(schema), data=app.config.data, bad_rows=bad)
    return SimpleNamespace(chunk=next(table.chunks()), table=table, bad=bad)


def encode(app, tmp_path, lines, with_labels=True, **options):
    read = read_chunk(app, tmp_path, lines, **options)
    return app.encode(read.chunk, with_labels), read


def whole_table_outputs(app, encoded, batch_size=3):
    from appzoo.jobs.inference import outputs_in_order
    from appzoo.jobs.trained import model_call

    return outputs_in_order(encoded, model_call(app), batch_size)


# Words and windows -------------------------------------------------------------------------------------------


def test_words_are_split_at_spaces_only_and_characters_leave_spaces_out():
    assert split_units("  new  york\u3000x ", "word") == ["new", "york\u3000x"]
    assert split_units("北京 a", "character") == ["北", "京", "a"]
    assert unit_offsets(" ab c", "word") == [(1, 3), (4, 5)] and unit_offsets("北 京", "character") == [(0, 1), (2, 3)]


def test_pieces_belong_to_their_words(tokenizer):
    windows = encode_words(tokenizer, [["New", "johnson", "ab"], []], 16)
    tokens = [VOCAB[i] for i in windows.input_ids[0]]
    assert tokens == ["[CLS]", "new", "john", "##son", "a", "##b", "[SEP]"]
    assert windows.word_starts[0].tolist() == [1, 2, 4] and windows.word_pieces.tolist() == [1, 2, 2]
    assert windows.input_ids[1].tolist() == [2, 3] and windows.word_starts[1].tolist() == []


def test_a_word_the_tokenizer_drops_is_unknown(tokenizer):
    windows = encode_words(tokenizer, [[DROPPED, "a", DROPPED], [DROPPED]], 16)
    assert windows.input_ids[0].tolist() == [2, 1, VOCAB.index("a"), 1, 3] and windows.word_starts[0].tolist() == [
        1,
        2,
        3,
    ]
    assert windows.unknown.tolist() == [2, 1]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.text("abc" + DROPPED, min_size=1, max_size=12), max_size=40), max_size=4),
    length=st.integers(3, 20),
)
def test_every_word_has_one_window_and_the_most_context_in_it(rows, length):
    """Against a search over all windows: 200 random tables."""
    tokenizer = WordPiece(VOCAB)
    windows = encode_words(tokenizer, rows, length)
    room, at = length - 2, 0
    assert windows.input_ids.lengths.max(initial=0) <= length
    for number, row in enumerate(rows):
        mine = np.flatnonzero(windows.row_of == number)
        assert windows.window[mine].tolist() == list(range(len(mine))) and len(mine) >= 1
        words = windows.word_pieces[at : at + len(row)]
        ends = np.cumsum(words)
        total, stride = int(words.sum()), room - room // 2
        begins = [min(k * stride, max(total - room, 0)) for k in range(len(mine))]
        assert len(mine) == 1 if total <= room else begins[-1] == total - room
        owned = [(k, begins[k] + start - 1) for k, w in enumerate(mine) for start in windows.word_starts[int(w)]]
        assert [start for _, start in owned] == (ends - words).tolist(), "every word once, in order"
        for (k, start), end in zip(owned, ends, strict=True):
            context = [min(start - b, b + min(total, room) - end) for b in begins]
            assert context[k] == max(context) >= 0
        at += len(row)


def test_long_text_gets_windows_with_both_sides_of_a_word(tokenizer):
    windows = encode_words(tokenizer, [["a"] * 20], 10)
    assert [row.tolist() for row in map(windows.word_starts.__getitem__, range(len(windows.row_of)))] == [
        *([1, 2, 3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6, 7, 8])
    ]


# Labels ------------------------------------------------------------------------------------------------------


def test_label_on_the_first_piece_or_on_all(tokenizer):
    windows = encode_words(tokenizer, [["johnson", "a"]], 16)
    tags = np.array([1, 0])
    assert windows.token_labels(tags, False)[0].tolist() == [-1, 1, -1, 0, -1]
    assert windows.token_labels(tags, True)[0].tolist() == [-1, 1, 1, 0, -1]


def test_original_copied_the_label_to_all_pieces_now_an_option(tiny_model, tmp_path):
    app = make_app(tiny_model)
    encoded, _ = encode(app, tmp_path, ["xylophonist the\tB-PER O"])
    labels = encoded.columns["label_id"][0]
    assert len(labels) > 4 and (labels >= 0).sum() == 2
    everywhere, _ = encode(make_app(tiny_model, label_all_subtokens=True), tmp_path, ["xylophonist the\tB-PER O"])
    assert (everywhere.columns["label_id"][0] >= 0).sum() == len(labels) - 2


def test_original_gave_words_beyond_the_limit_the_last_label(tiny_model, tmp_path):
    """Every word has a place of its own, however long the text is."""
    app = make_app(tiny_model, data={"sequence_length": 8})
    tags = ["B-PER", "I-PER", "O", "B-LOC", "O"] * 9
    encoded, _ = encode(app, tmp_path, [f"{'the ' * 45}\t{' '.join(tags)}", "the\tO"])
    assert len(encoded) > 8 and encoded.row_count == 2
    gold = [
        app.labels[encoded.columns["label_id"][i][start]]
        for i in range(len(encoded) - 1)
        for start in encoded.columns["word_starts"][i]
    ]
    assert gold == tags
    app.build_model()
    outputs = whole_table_outputs(app, encoded)
    found = app.postprocess(outputs, encoded)
    assert [len(row.split(" ")) for row in found["predictions"]] == [45, 1]
    # The evaluator merges the windows to the same rows, in whatever order they come.
    evaluator = app.evaluator()
    for i in reversed(range(len(encoded))):
        evaluator.update(encoded.batch([i]), {name: value[[i]] for name, value in outputs.items()})
    whole = app.evaluator()
    whole.update(encoded.columns, outputs)
    assert evaluator.result() == whole.result()
    right = [a == b for a, b in zip(found["predictions"][0].split(" "), tags, strict=True)]
    right.append(found["predictions"][1] == "O")
    assert whole.result()["accuracy"] == pytest.approx(np.mean(right)) and whole.report()["rows"] == 2


def test_original_shifted_tags_where_a_word_had_no_pieces(tiny_model, tmp_path):
    encoded, _ = encode(make_app(tiny_model), tmp_path, [f"the {DROPPED} the\tO B-LOC B-PER"])
    labels, starts = encoded.columns["label_id"][0], encoded.columns["word_starts"][0]
    assert labels[starts].tolist() == [0, 3, 1]


def test_auto_scans_single_tags(tiny_model):
    from appzoo.sequence_labeling.app import BertLabeling

    config = make_app(tiny_model).config
    config.data.label_enumerate_values = "auto"
    app = BertLabeling(config)
    app.load_assets(None, lambda column: ["O B-PER", "O  I-PER", ""] if column == "tags" else [])
    assert app.labels == ["B-PER", "I-PER", "O"]


# Losses ------------------------------------------------------------------------------------------------------


def labelled_batch(app, encoded):
    import tensorflow as tf

    from easytransfer.data.encoded import device_arrays

    return {name: tf.constant(value) for name, value in device_arrays(encoded.batch(range(len(encoded)))).items()}


def test_original_divided_the_loss_by_all_positions(tiny_model, tmp_path):
    app = make_app(tiny_model)
    encoded, _ = encode(app, tmp_path, ["the\tB-PER", f"{'the ' * 9}\t{'O ' * 9}"])
    app.build_model()
    batch = labelled_batch(app, encoded)
    outputs = app.forward(batch)
    total, weight = app.losses(batch, outputs, EVALUATION)["loss"]
    loss = float(total / weight)
    logits, labels = outputs["logits"].numpy().astype(np.float64), batch["label_id"].numpy()
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [-logs[i, t, labels[i, t]] for i, t in zip(*np.nonzero(labels >= 0), strict=True)]
    assert len(expected) == 10 == float(weight)
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    evaluator = app.evaluator()
    evaluator.update(encoded.batch(range(2)), {name: value.numpy() for name, value in outputs.items()})
    assert evaluator.result()["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("use_crf", [False, True])
def test_compiled_answers_are_those_of_the_words(tiny_model, tmp_path, use_crf):
    import tensorflow as tf

    from easytransfer.export.compiled import Rounding, compiled, compiled_part

    app = make_app(tiny_model, use_crf=use_crf)
    encoded, _ = encode(app, tmp_path, ["xylophonist the\tB-PER O", "the the the\tO B-LOC I-LOC", "the\tO"])
    app.build_model()
    batch = app.model_inputs(encoded.batch(range(3), pad_multiple=1))
    plain = app.model(batch, training=False)
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in batch.items()}
    with compiled(compiled_part(app.model), Rounding.up_to(4, 16)):
        call = tf.function(lambda **inputs: app.model(inputs, training=False)).get_concrete_function(**specs)
    found = call(**{name: tf.constant(value) for name, value in batch.items()})
    real = batch["word_starts"] > 0
    for name, value in plain.items():
        assert found[name].shape == value.shape, name
        pick = real if name != "logits" else batch["input_mask"] > 0
        np.testing.assert_allclose(found[name][pick], value[pick], atol=1e-5, err_msg=name)


def test_crf_loss_and_prediction_are_those_of_the_words(tiny_model, tmp_path):
    from appzoo.labeling import crf

    app = make_app(tiny_model, use_crf=True)
    encoded, _ = encode(app, tmp_path, ["xylophonist the\tB-PER O", "the the the\tO B-LOC I-LOC"])
    app.build_model()
    app.model.crf._kernel.assign(np.random.default_rng(0).normal(size=(5, 5)) / 100)
    batch = labelled_batch(app, encoded)
    outputs = app.forward(batch)
    logits, starts = outputs["logits"].numpy(), encoded.columns["word_starts"]
    expected = 0.0
    for i, gold in enumerate([[1, 0], [0, 3, 4]]):
        emissions = logits[i, starts[i]][None]
        transitions = app.model.crf.transitions
        expected -= float(crf.log_likelihood(emissions, np.array([gold]), np.array([len(gold)]), transitions)[0])
        best = crf.viterbi(emissions, np.array([len(gold)]), transitions)[0]
        assert outputs["tags"][i, : len(gold)].numpy().tolist() == best.numpy().tolist()
    total, weight = app.losses(batch, outputs, EVALUATION)["loss"]
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert float(weight) == 5


def test_transitions_learn_faster_than_the_encoder(tiny_model):
    import tensorflow as tf

    app = make_app(tiny_model, use_crf=True)
    crf = app.build_model() and app.model.crf
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(crf.transitions * 3.0)
    gradient = tape.gradient(total, crf._kernel)
    crf._kernel.assign_sub(0.01 * gradient)
    np.testing.assert_allclose(crf.transitions, -0.01 * 3.0 * crf.rate_factor, rtol=1e-6)


def test_settings_that_do_not_fit_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="num_labels"):
        make_app(tiny_model, num_labels=2)
    with pytest.raises(ConfigError, match="needs the list of tags"):
        make_app(tiny_model, labels=None)
    with pytest.raises(ConfigError, match="lists a label twice"):
        make_app(tiny_model, labels="O,B-PER,O")
    for wrong in (
        {"model": {"use_crf": True, "label_all_subtokens": True}},
        {"model": {"use_crf": True}, "train": {"label_smoothing": 0.1}},
        {"train": {"class_weights": "balanced"}},
        {"data": {"second_sequence": "b"}},
    ):
        with pytest.raises(ValueError, match="does not apply"):
            BertLabelingConfig.model_validate(wrong)


def test_layer_groups_hold_every_trainable_variable_once(tiny_model):
    app = make_app(tiny_model, use_crf=True)
    model = app.build_model()
    grouped = [id(variable) for group in app.layer_groups() for variable in group]
    assert sorted(grouped) == sorted(id(variable) for variable in model.trainable_variables)


# Output ------------------------------------------------------------------------------------------------------


def fixed_outputs(app, encoded, tags):
    """Model outputs that say `tags`, one list of names per window."""
    width = max(map(len, tags))
    ids = np.zeros((len(tags), width), np.int32)
    for row, names in enumerate(tags):
        ids[row, : len(names)] = [app.labels.index(name) for name in names]
    logs = np.log(np.where(np.eye(len(app.labels))[ids] > 0, 0.6, 0.1)).astype(np.float32)
    return {"tags": ids, "log_probabilities": logs}


def test_rows_have_tags_probabilities_and_entities_with_character_offsets(tiny_model, tmp_path):
    app = make_app(tiny_model)
    encoded, _ = encode(app, tmp_path, ["John  Smith likes <b>", "", "Rome"], with_labels=False, schema="text:str:1")
    tags = [["B-PER", "I-PER", "O", "I-LOC"], [], ["O"]]
    found = app.postprocess(fixed_outputs(app, encoded, tags), encoded)
    assert found["predictions"] == ["B-PER I-PER O I-LOC", "", "O"]
    assert [len(row) for row in found["probabilities"]] == [4, 0, 1]
    np.testing.assert_allclose(np.concatenate(found["probabilities"]), 0.6, rtol=1e-6)
    assert [json.loads(row) for row in found["entities"]] == [
        [
            {"type": "PER", "start": 0, "end": 11, "text": "John  Smith"},
            {"type": "LOC", "start": 18, "end": 21, "text": "<b>"},
        ],
        *([], []),
    ]


def test_characters_have_tags_of_their_own(tiny_model, tmp_path):
    app = make_app(tiny_model, unit="character")
    encoded, _ = encode(app, tmp_path, ["我爱 北京\tO O B-LOC I-LOC"])
    assert encoded.lengths.tolist() == [6]
    outputs = fixed_outputs(app, encoded, [["O", "O", "B-LOC", "I-LOC"]])
    (entities,) = app.postprocess(outputs, encoded)["entities"]
    assert json.loads(entities) == [{"type": "LOC", "start": 3, "end": 5, "text": "北京"}]


class _Marks(HTMLParser):
    def __init__(self):
        super().__init__()
        self.marks, self.tags, self.text = [], Counter(), ""

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        if tag == "mark":
            self.marks.append(dict(attributes).get("class"))

    def handle_data(self, data):
        self.text += data


def test_page_marks_differences_and_escapes_the_text(tiny_model, tmp_path):
    app = make_app(tiny_model)
    lines = ["<script> saw Rome\tO O B-LOC", "Rome\tB-LOC", "a Rome\tO B-LOC"]
    encoded, _ = encode(app, tmp_path, lines)
    outputs = fixed_outputs(app, encoded, [["B-PER", "O", "B-LOC"], ["B-LOC"], ["O", "O"]])
    (name,) = app.write_pages(tmp_path, encoded, outputs)
    page = (tmp_path / name).read_text(encoding="utf-8")
    parser = _Marks()
    parser.feed(page)
    # Legend of two types and of two kinds of difference; row 1 predicted (2) and true (1), row 2, row 3 predicted/true.
    same = {"hue-0": 1 + 1 + 1 + 1, "hue-1": 1}
    assert Counter(parser.marks) == same | {"wrong": 1, "hue-1 wrong": 1, "missed": 1, "hue-0 missed": 1}
    # One script, of the page itself.
    assert parser.tags["script"] == 1 and "<script> saw" in parser.text.replace("PER", "")
    assert "1 of 3 rows are right" in parser.text and "://" not in page and "src=" not in page


# Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("the the\tO", "tags", "wrong number of tags: 1 for 2 words"),
        ("the\tO O", "tags", "wrong number of tags: 2 for 1 words"),
        ("the Rome\tO B-ORG", "tags", "unknown tag: 'B-ORG' of 'Rome'; known: O, B-PER"),
        ("\tO", "text", "empty text"),
        ("   \tO", "text", "empty text"),
        ("the\t", "tags", ""),
        ("the,O", "", "wrong column count: expected 2, got 1"),
        (b"\x89PNG\xff\xfe\tO", "", "UTF-8"),
    ],
)
def test_bad_rows_name_file_row_and_column(tiny_model, tmp_path, line, column, reason):
    app = make_app(tiny_model)
    with pytest.raises(DataError) as raised:
        encode(app, tmp_path, ["the\tO", line], policy="fail")
    message = str(raised.value)
    assert f"{tmp_path}/table.tsv:2: " in message and column in message and reason in message


def test_original_raised_index_error_for_a_wrong_number_of_tags(tiny_model, tmp_path):
    app = make_app(tiny_model)
    encoded, read = encode(app, tmp_path, ["the\tO", "the the\tO", "the\tO B-PER", "the\tB-PER", "a\tX"])
    assert read.bad.reasons == {"wrong number of tags": 2, "unknown tag": 1}
    assert (read.table.count.accepted, read.table.count.rejected) == (2, 3) and encoded.row_count == 2
    assert list(encoded.columns["place"]) == [[0, 0, 1], [3, 0, 1]], "rows keep their number in the table"


def test_tags_stay_with_their_words_behind_rejected_rows(tiny_model, tmp_path):
    app = make_app(tiny_model, label_all_subtokens=True, data={"sequence_length": 6})
    lines = [
        "the xylophonist\tO B-LOC",
        "a b c\tO",
        f"{'the ' * 9}\tO O I-PER O O O B-PER O O",
        "Rome\tX",
        "the a\tB-PER O",
    ]
    encoded, read = encode(app, tmp_path, lines)
    assert read.bad.reasons == {"wrong number of tags": 1, "unknown tag": 1} and encoded.row_count == 3
    found = [[], [], []]
    for i, row in enumerate(encoded.row_of):
        labels = encoded.columns["label_id"][i]
        found[row] += [app.labels[labels[start]] for start in encoded.columns["word_starts"][i]]
    assert found == [["O", "B-LOC"], "O O I-PER O O O B-PER O O".split(), ["B-PER", "O"]]
    # Every piece of the long word has its tag, in whichever window answers for it.
    assert sum((encoded.columns["label_id"][i] == 3).sum() for i in np.flatnonzero(encoded.row_of == 0)) > 1


def test_a_word_too_long_for_any_window_is_reported(tiny_model, tmp_path, capfd):
    lines = [f"the {'xyloph' * 12}\tO B-PER", "the\tO"]
    app = make_app(tiny_model)
    encoded, _ = encode(app, tmp_path, lines)
    assert app.text_counts["truncated"] == 1 and encoded.row_count == 2
    assert encoded.lengths.max() <= 16 and "table.tsv:1: too long" in capfd.readouterr().err
    strict = make_app(tiny_model, data={"no_truncate": True})
    encoded, read = encode(strict, tmp_path, lines)
    assert read.bad.reasons == {"too long": 1} and encoded.row_count == 1


# Serving -----------------------------------------------------------------------------------------------------

TEXTS = [
    *("the cat", "", "  two  spaces ", "我爱北京 天安门", "Überraschend gut 👍", f"a {DROPPED} b", "the " * 40),
    *("xyloph" * 12, f"the {'xyloph' * 12} {'cat ' * 30}"),
]


@pytest.fixture(scope="module", params=["word", "character"])
def served(request, tiny_model, tmp_path_factory):
    """An application with a CRF and its raw-text function."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("assets")
    app = make_app(tiny_model, unit=request.param, use_crf=True)
    app.save_assets(folder)
    app.build_model()
    app.model.crf._kernel.assign(np.random.default_rng(1).normal(size=(5, 5)) / 50)
    signature = app.signatures(folder)["serving_default"]
    options = {"input_signature": list(signature.inputs.values()), "autograph": False}
    function = tf.function(lambda text: signature.function(text=text), **options)
    words = tf.function(lambda text: app.inputs[0].from_request({"text": text}), **options)
    return SimpleNamespace(app=app, function=function, module=signature.module, words=words, folder=folder)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(" ab北é\u0301\u0007\u3000x👍.", max_size=60), min_size=1, max_size=4))
def test_graph_encodes_as_the_training_does(served, texts):
    arrays = served.words(np.array(texts, object))
    unit = served.app.config.model.unit
    units = [split_units(text, unit) for text in texts]
    windows = encode_words(served.app.encoder.tokenizer, units, 16)
    table = EncodedTable(
        {"input_ids": windows.input_ids, "word_starts": windows.word_starts}, masks={"input_mask": "input_ids"}
    )
    expected = table.batch(range(len(table)), pad_multiple=1)
    for name in ("input_ids", "input_mask", "word_starts"):
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    assert arrays["word_count"].numpy().tolist() == [len(row) for row in units]
    assert arrays["truncated"].numpy().tolist() == (windows.cut > 0).tolist()


def test_raw_text_is_served_as_tables_are_predicted(served, tmp_path):
    app = served.app
    encoded, _ = encode(app, tmp_path, TEXTS, with_labels=False, schema="text:str:1")
    assert len(encoded) > len(TEXTS), "some texts need windows"
    outputs = app.forward(labelled_batch(app, encoded))
    expected = app.postprocess({name: value.numpy() for name, value in outputs.items()}, encoded)
    answer = served.function(np.array(TEXTS, object))
    assert [tags.decode() for tags in answer["tags"].numpy()] == expected["predictions"]
    for row, probabilities in zip(answer["probabilities"].numpy(), expected["probabilities"], strict=True):
        np.testing.assert_allclose(row[: len(probabilities)], probabilities, atol=1e-5)
    is_cut = [False] * 7 + [True] * 2 if app.config.model.unit == "word" else [False] * 9
    assert answer["truncated"].numpy().tolist() == is_cut


def test_labels_come_back_from_the_run_folder(served, tiny_model):
    again = make_app(tiny_model, labels=None, folder=served.folder)
    assert again.labels == TAGS.split(",")


def test_no_text_at_all_is_served(served):
    answer = served.function(np.array([], object))
    assert answer["tags"].shape == (0,)
    answer = served.function(np.array(["", " "], object))
    assert answer["tags"].numpy().tolist() == [b"", b""] and not answer["truncated"].numpy().any()


# Tables of token ids -----------------------------------------------------------------------------------------


def test_id_tables_train_and_evaluate_like_text(tiny_model, tmp_path):
    from appzoo.jobs.preprocess import dense_columns

    app = make_app(tiny_model)
    encoded, _ = encode(app, tmp_path, ["xylophonist the\tB-PER O", "the\tO"])
    app.build_model()
    dense = dense_columns(encoded, 16, app.label_columns)
    assert dense["label_id"].shape == (2, 16) and dense["label_id"].min() == -1
    # An id table pads every list with 0 in a batch.
    table = EncodedTable({name: dense[name] for name in ("input_ids", "segment_ids", "word_starts", "label_id")})
    table.columns["input_mask"] = dense["input_mask"]
    table.columns["label_id"] = np.where(dense["input_mask"] > 0, dense["label_id"], 0)
    results = []
    for rows in (encoded, table):
        batch = labelled_batch(app, rows)
        outputs = app.forward(batch)
        evaluator = app.evaluator()
        evaluator.update(rows.columns, {name: value.numpy() for name, value in outputs.items()})
        total, weight = app.losses(batch, outputs, EVALUATION)["loss"]
        results.append((float(total / weight), *evaluator.result().values()))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    # Training on ids ended with an error: there is no text to show entities in.
    assert app.write_pages(tmp_path, table, {name: value.numpy() for name, value in outputs.items()}) == []
