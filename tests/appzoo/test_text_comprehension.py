"""Questions, windows, answer search and settings of text comprehension, and the original's defects."""

import json

import numpy as np
import pytest

from appzoo.text_comprehension.config import BertComprehensionConfig
from appzoo.text_comprehension.questions import ASKED, Asked, Gold, misplaced, read_pairs
from appzoo.text_comprehension.search import Search
from appzoo.text_comprehension.windows import Window, WindowEncoder, token_span, widest_windows, window_starts
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError

SCHEMA = "context:str:1,question:str:1,answer:str:1"
CONTEXT = "the old man lived in a big house near the school and he had two dogs"


def make_app(model_folder, variant="bert", data=None, **model):
    from appzoo.text_comprehension import app as apps
    from appzoo.text_comprehension import config as configs

    columns = {"first_sequence": "context", "second_sequence": "question", "label_name": "answer"}
    model = {"max_query_length": 8, "pretrain_model_name_or_path": str(model_folder)} | model
    values = {"model_name": "text_comprehension_bert", "model": model}
    values["data"] = columns | {"sequence_length": 24, "input_schema": SCHEMA} | (data or {})
    app = apps.VARIANTS[variant](configs.VARIANTS[variant].model_validate(values))
    app.load_assets(None)
    return app


def opened(app, path, policy="skip"):
    bad = BadRows(policy)
    schema = parse_schema(SCHEMA) if str(path).endswith(".tsv") else None
    table = open_table(str(path), schema=schema, data=app.config.data, bad_rows=bad)
    table.explode = app.explode
    return table, bad


def encode(app, tmp_path, rows, with_labels=True):
    path = tmp_path / "table.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    table, bad = opened(app, path)
    parts = []
    for chunk in table.chunks():
        encoded = app.encode(chunk, with_labels)
        parts.append((chunk.compact(), encoded))
    (chunk, encoded) = parts[0] if parts else (None, None)
    return chunk, encoded, table.count, bad


def windows_of(encoded):
    return list(map(Window.from_json, encoded.columns["window"]))


def cells(*questions, context=CONTEXT):
    """Returns the cells of a row from (question, answer) pairs; an answer may be a (text, start) pair or None."""
    asked, answers = [], []
    for number, (question, answer) in enumerate(questions):
        text, start = (
            ("", -1) if answer is None else answer if isinstance(answer, tuple) else (answer, context.index(answer))
        )
        asked += [question, f"q{number}"]
        answers += [text, str(start)]
    return context, "||".join(asked), "||".join(answers)


# Cells -------------------------------------------------------------------------------------------------------


def test_pairs_in_both_forms():
    assert read_pairs("why?||1||how?||2") == [("why?", "1"), ("how?", "2")]
    assert read_pairs('["is || an or?", 7]') == [("is || an or?", "7")]
    # Not JSON: an ordinary text in brackets.
    assert read_pairs("[sic] who?||3") == [("[sic] who?", "3")]
    assert read_pairs("||4") == [("", "4")]


@pytest.mark.parametrize("cell", ["why?", "a||b||c", '["a", "b", "c"]'])
def test_original_shifted_pairs_after_a_separator_in_the_text_odd_parts_are_a_bad_row(cell):
    with pytest.raises(ValueError, match="odd number of parts: [13], expected pairs"):
        read_pairs(cell)


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        (Gold("", 4), "empty answer"),
        (Gold("dogs", 65), "answer beyond the context: 65 to 69 of 68"),
        (Gold("dogs", -2), "answer beyond the context"),
        (Gold("dogs", -1), "answer not at its offset: 'dogs' starts at -1"),
        (Gold("dogs", 63), "answer not at its offset: 'dogs' expected at 63, found ' dog'"),
    ],
)
def test_original_took_a_wrong_word_or_failed_for_misplaced_answers(gold, reason):
    assert misplaced(gold, CONTEXT).startswith(reason)
    assert misplaced(Gold("dogs", 64), CONTEXT) is None


def test_every_question_becomes_a_row_of_its_own(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"sequence_length": 64})
    rows = [cells(("who lived?", "the old man"), ("how many dogs?", "two")), cells(("what time?", None))]
    chunk, encoded, count, _ = encode(app, tmp_path, rows)
    assert (count.read, count.accepted, count.rejected) == (3, 3, 0)
    assert chunk.columns["question"] == ["who lived?", "how many dogs?", "what time?"]
    assert chunk.columns["answer"] == ["the old man||0", "two||60", "||-1"]
    assert chunk.columns["context"] == [CONTEXT] * 3
    assert chunk.lines.tolist() == [1, 1, 2] and chunk.index.tolist() == [0, 0, 1]
    assert encoded.row_of.tolist() == [0, 1, 2]
    assert [window.asked.key for window in windows_of(encoded)] == [(0, 0), (0, 1), (1, 0)]


def test_bad_answers_reject_their_question_only_and_are_counted_by_kind(tiny_model, tmp_path):
    app = make_app(tiny_model)
    good = ("who?", "the old man")
    rows = [
        cells(good, ("where?", ("the cat", 5)), ("what?", ("dogs", 99)), ("how?", ("", 3)), good),
        (CONTEXT, "who?", "the old man||0"),
        (CONTEXT, "who?||1", "the old man||0||x"),
        (CONTEXT, "who?||1", "the old man||zero"),
        (CONTEXT, "who?||1||what?||2", "the old man||0"),
        (CONTEXT, "who?||1", ""),
        ("", "who?||1", "||-1"),
        (" \u200b", "who?||1", "||-1"),
        (CONTEXT, " ||1", "||-1"),
        (CONTEXT, "who?||1", " ||3"),
    ]
    chunk, encoded, count, bad = encode(app, tmp_path, rows)
    assert count.read == 15 and count.accepted == 2 == len(chunk) and count.rejected == 13
    assert chunk.lines.tolist() == [1, 1] and encoded.row_count == 2
    assert bad.reasons == {
        "answer not at its offset": 1,
        "answer beyond the context": 1,
        "empty answer": 2,
        "odd number of parts": 2,
        "answer start is not an integer": 1,
        "answers do not fit the questions": 2,
        "no answer": 1,
        "empty text": 3,
    }


def test_bad_rows_name_file_line_and_column(tiny_model, tmp_path):
    app = make_app(tiny_model)
    path = tmp_path / "bad.tsv"
    lines = ["\t".join(cells(("who?", "the old man"))), "\t".join(cells(("who?", ("the man", 0))))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table, _ = opened(app, path, policy="fail")
    with pytest.raises(
        DataError, match=r"bad.tsv:2: column 'answer': answer not at its offset: 'the man' expected at 0"
    ):
        for chunk in table.chunks():
            app.encode(chunk, True)
    path.write_text(f"{CONTEXT}\twho?\tthe old man||0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad.tsv:1: column 'question': odd number of parts: 1"):
        list(opened(app, path, policy="fail")[0].chunks())
    path.write_text(f"{CONTEXT};who?||1;the old man||0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad.tsv:1: wrong column count: expected 3, got 1 \(separator TAB\)"):
        list(opened(app, path, policy="fail")[0].chunks())
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")
    with pytest.raises(DataError, match=r"bad.tsv(:1: (invalid UTF-8|NUL)| is not text)"):
        list(opened(app, path, policy="fail")[0].chunks())


def test_prediction_needs_no_answers_and_ignores_wrong_ones(tiny_model, tmp_path):
    app = make_app(tiny_model)
    _, encoded, count, _ = encode(app, tmp_path, [(CONTEXT, "who?||1", "no idea"), (CONTEXT, "why?||2", "")], False)
    assert count.accepted == 2 and "start_position" not in encoded.columns


def test_long_questions_are_cut_and_counted_or_refused(tiny_model, tmp_path):
    rows = [cells(("who who who who", "two")), cells(("who", "two"))]
    app = make_app(tiny_model, max_query_length=3, data={"sequence_length": 64})
    _, encoded, _, _ = encode(app, tmp_path, rows)
    assert app.text_counts["truncated"] == 1 and app.text_counts["rows"] == 2
    assert windows_of(encoded)[0].offset == 5
    app = make_app(tiny_model, max_query_length=3, data={"sequence_length": 64, "no_truncate": True})
    _, encoded, count, bad = encode(app, tmp_path, rows)
    assert count.rejected == 1 and bad.reasons == {"too long": 1} and len(encoded) == 1


def test_json_lists_carry_any_text(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"sequence_length": 64})
    context = "he said a || b to the man"
    row = (context, json.dumps(["what || did he say?", "id 1"]), json.dumps(["a || b", 8]))
    objects = (
        context,
        "what?||2",
        json.dumps([{"text": "a || b", "answer_start": 8}, {"text": "he", "answer_start": 0}]),
    )
    chunk, encoded, count, _ = encode(app, tmp_path, [row, objects])
    asked = chunk.columns[ASKED]
    assert count.accepted == 2 and asked[0].id == "id 1" and asked[0].golds == (Gold("a || b", 8),)
    assert asked[1].gold_texts == ["a || b", "he"]
    positions = (encoded.columns[name] for name in ("start_position", "end_position"))
    for window, start, end in zip(windows_of(encoded), *positions, strict=True):
        spans = window.spans[start - window.offset], window.spans[end - window.offset]
        assert context[spans[0][0] : spans[1][1]] == "a || b"


# Windows -----------------------------------------------------------------------------------------------------


def test_window_starts_cover_the_context_without_a_gap():
    for tokens in range(60):
        for room in (1, 5, 20):
            for stride in (1, 3, 50):
                starts = window_starts(tokens, room, stride)
                covered = {place for start in starts for place in range(start, min(start + room, tokens))}
                assert covered == set(range(tokens))
                # Each but the last one is full, and none is needless.
                assert all(start + room < tokens for start in starts[:-1]) and starts[-1] < max(tokens, 1)


def test_widest_window_of_a_token_has_most_context_on_its_poorer_side():
    starts, tokens, room = window_starts(23, 10, 4), 23, 10
    flags = widest_windows(starts, tokens, room)
    for token in range(tokens):
        best, chosen = None, None
        for number, start in enumerate(starts):
            length = min(room, tokens - start)
            if not start <= token < start + length:
                continue
            score = min(token - start, start + length - 1 - token) + 0.01 * length
            if best is None or score > best:
                best, chosen = score, number
        found = [
            n for n, start in enumerate(starts) if start <= token < start + len(flags[n]) and flags[n][token - start]
        ]
        assert found == [chosen]


def test_windows_hold_question_and_piece_and_point_at_the_answer(tiny_model, tmp_path):
    app = make_app(tiny_model, doc_stride=6, data={"sequence_length": 24})
    _, encoded, _, _ = encode(app, tmp_path, [cells(("who had two dogs?", "near the school"), ("what?", None))])
    tokenizer = app.encoder.tokenizer
    windows = windows_of(encoded)
    assert len(windows) > 4 and encoded.row_of.tolist() == sorted(encoded.row_of.tolist())
    pointed = 0
    for row, window in enumerate(windows):
        ids, segments = encoded.columns["input_ids"][row], encoded.columns["segment_ids"][row]
        assert len(ids) == window.offset + len(window.spans) + 1 <= 24
        assert ids[0] == tokenizer.cls_id and ids[window.offset - 1] == ids[-1] == tokenizer.sep_id
        assert segments.tolist() == [0] * window.offset + [1] * (len(ids) - window.offset)
        pieces = [tokenizer.vocab[piece].removeprefix("##") for piece in ids[window.offset : -1]]
        assert pieces == [CONTEXT[start:end] for start, end in window.spans]
        start, end = encoded.columns["start_position"][row], encoded.columns["end_position"][row]
        if start:
            pointed += 1
            first, last = window.spans[start - window.offset], window.spans[end - window.offset]
            assert CONTEXT[first[0] : last[1]] == "near the school"
        else:
            assert end == 0
            held = CONTEXT[window.spans[0][0] : window.spans[-1][1]]
            assert window.asked.id == "q1" or "near the school" not in held
    assert pointed >= 1


def test_original_dropped_windows_and_questions_silently_every_question_is_kept_or_counted(tiny_model, tmp_path):
    app = make_app(tiny_model, doc_stride=4, data={"sequence_length": 16})
    rows = [cells(("who?", "two dogs"), ("where?", ("big cat", 22)), ("why?", None))]
    chunk, encoded, count, bad = encode(app, tmp_path, rows)
    assert [asked.id for asked in chunk.columns[ASKED]] == ["q0", "q2"]
    assert count.read == 3 == count.accepted + bad.reasons["answer not at its offset"]
    # Windows without the answer stay and point at [CLS].
    assert (encoded.columns["start_position"][encoded.row_of == 0] == 0).any()


def test_answers_start_inside_words_and_in_punctuation(tiny_model):
    from easytransfer.text.wordpiece import WordPiece

    tokenizer = WordPiece.from_folder(tiny_model)
    text = "He (John) was the Chinese,who."
    _, spans = tokenizer.pieces_with_offsets([text])
    for answer in ("John", "(John)", "the", "Chin", "Chinese", ",", "who.", " was "):
        start = text.index(answer)
        first, last = token_span(spans[0], Gold(answer, start))
        covered = text[spans[0][first][0] : spans[0][last][1]]
        assert answer.strip() in covered
        # No token more than needed.
        assert spans[0][first][1] > start and spans[0][last][0] < start + len(answer)
    assert token_span(spans[0], Gold(" ", 2)) is None


def test_chinese_offsets_and_bad_rows_of_cmrc(shared_data, tiny_model):
    """200 of the 9,657 answers are not where the file says; they belong to 176 of the 3,219 questions."""
    path = shared_data / "squad" / "cmrc2018_dev.json"
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    golds = [
        [p["context"][a["answer_start"] : a["answer_start"] + len(a["text"])] == a["text"] for a in q["answers"]]
        for d in data for p in d["paragraphs"] for q in p["qas"]
    ]  # fmt: skip
    assert sum(not right for answers in golds for right in answers) == 200
    app = make_app(
        tiny_model, data={"sequence_length": 128, "label_name": "answers"}, max_query_length=64, doc_stride=32
    )
    table, bad = opened(app, path)
    for chunk in table.chunks(size=8192):
        encoded = app.encode(chunk, True)
    assert table.count.read == 3219 and bad.reasons == {"answer not at its offset": 176}
    assert table.count.rejected == 176 == sum(not all(answers) for answers in golds) and encoded.row_count == 3043
    # Where a window holds the answer, its characters are the answer's, up to what shares a token with it.
    start, end = encoded.columns["start_position"], encoded.columns["end_position"]
    exact, total, windows = 0, 0, windows_of(encoded)
    for row in np.flatnonzero(start):
        window = windows[row]
        gold = window.asked.golds[0]
        first, last = window.spans[start[row] - window.offset], window.spans[end[row] - window.offset]
        found = window.asked.context[first[0] : last[1]]
        assert gold.text.strip() in found
        total, exact = total + 1, exact + (found == gold.text)
    assert total > 3000 and exact / total > 0.95


# Search ------------------------------------------------------------------------------------------------------


def random_windows(seed, tiny_model, questions=6, turns=None):
    """Windows of one context for several questions, with random scores."""
    from easytransfer.text.wordpiece import WordPiece

    encoder = WindowEncoder(WordPiece.from_folder(tiny_model), 18, 6, 5, turns)
    context = " ".join(f"{word} {number}" for number, word in enumerate(CONTEXT.split()))
    found = encoder.encode([Asked((0, n), str(n), "who is it?"[: 3 + n], context) for n in range(questions)])
    encoded = EncodedTable(found.columns, {"input_mask": "input_ids"}, row_of=found.row_of)
    random = np.random.default_rng(seed)
    scores = [[random.normal(size=n).astype(np.float32) for n in encoded.lengths] for _ in range(2)]
    return encoded, scores


def brute_force(windows, starts, ends, longest):
    """All spans of all windows, one by one: (score, text) best first, and the least score of the empty answer."""
    found = []
    for window, start, end in zip(windows, starts, ends, strict=True):
        for i in range(window.offset, window.offset + len(window.spans)):
            for j in range(i, window.offset + len(window.spans)):
                if j - i + 1 <= longest and window.widest[i - window.offset]:
                    text = window.asked.context[window.spans[i - window.offset][0] : window.spans[j - window.offset][1]]
                    found.append((float(start[i] + end[j]), text))
    nothing = min(float(start[0] + end[0]) for start, end in zip(starts, ends, strict=True))
    return sorted(found, key=lambda entry: -entry[0]), nothing


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_merged_answers_equal_a_brute_force_over_all_windows(tiny_model, longest):
    encoded, (starts, ends) = random_windows(longest, tiny_model)
    search = Search(n_best_size=5, max_answer_length=longest)
    for question in range(encoded.row_count):
        mine = np.flatnonzero(encoded.row_of == question)
        assert len(mine) > 3
        arguments = [[column[i] for i in mine] for column in (windows_of(encoded), starts, ends)]
        answer = search.answer(*arguments)
        expected, nothing = brute_force(*arguments, longest)
        assert answer.text == expected[0][1] == arguments[0][0].asked.context[answer.start : answer.end]
        # Equal texts count once, with their best score.
        best = list(dict.fromkeys(text for _, text in expected))[:5]
        ranked = [text for text, _, _ in answer.candidates if text]
        assert ranked == best
        scores = [next(score for score, text in expected if text == name) for name in best] + [nothing]
        weights = np.exp(np.array(scores) - max(scores))
        assert answer.probability == pytest.approx(weights[0] / weights.sum(), rel=1e-6)
        assert json.loads(answer.to_json())[0]["text"] in (answer.text, "")
        assert sum(entry["probability"] for entry in json.loads(answer.to_json())) == pytest.approx(1, abs=1e-4)


def test_padding_behind_the_logits_changes_nothing(tiny_model):
    encoded, (starts, ends) = random_windows(3, tiny_model, questions=1)
    windows = windows_of(encoded)
    padded = [[np.append(row, np.full(9, -1e9, np.float32)) for row in rows] for rows in (starts, ends)]
    assert Search().answer(windows, *padded) == Search().answer(windows, starts, ends)


def test_null_threshold_decides_between_the_best_and_no_answer(tiny_model):
    encoded, (starts, ends) = random_windows(4, tiny_model, questions=1)
    windows = windows_of(encoded)
    expected, nothing = brute_force(windows, starts, ends, 30)
    gap = nothing - expected[0][0]
    assert Search().answer(windows, starts, ends).text == expected[0][1]
    assert Search(null_score_threshold=gap + 0.01).answer(windows, starts, ends).text == expected[0][1]
    none = Search(null_score_threshold=gap - 0.01).answer(windows, starts, ends)
    assert (none.text, none.start, none.end) == ("", -1, -1)
    assert none.probability == pytest.approx(next(p for text, p, _ in none.candidates if text == ""))


# Configuration -----------------------------------------------------------------------------------------------


def test_settings_that_do_not_fit_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="sequenceLength leaves no room .*max_query_length"):
        make_app(tiny_model, max_query_length=64, data={"sequence_length": 64})
    with pytest.raises(ConfigError, match="secondSequence"):
        make_app(tiny_model, data={"second_sequence": None}).input_columns()
    with pytest.raises(ConfigError, match="labelName"):
        make_app(tiny_model, data={"label_name": None}).label_inputs()
    with pytest.raises(ValueError, match="answer_metric"):
        BertComprehensionConfig.model_validate({"model": {"answer_metric": "rouge"}})
    defaults = BertComprehensionConfig().model
    assert (defaults.max_query_length, defaults.doc_stride, defaults.n_best_size, defaults.max_answer_length) == (
        *(64, 128, 20, 30),
    )
    assert defaults.null_score_threshold is None


def test_question_id_in_append_cols_is_the_output_column_of_the_original():
    data = {"input_schema": SCHEMA, "append_cols": "context, qas_id", "output_schema": "predictions"}
    config = BertComprehensionConfig.model_validate({"data": data})
    assert config.data.output_schema == "predictions,qas_id" and config.data.append_cols == "context"
    again = BertComprehensionConfig.model_validate(config.model_dump())
    assert again == config
    own = {"input_schema": SCHEMA + ",qas_id:str:1", "append_cols": "qas_id", "output_schema": "predictions"}
    assert BertComprehensionConfig.model_validate({"data": own}).data.append_cols == "qas_id"


def test_layer_groups_hold_every_trainable_variable_once(tiny_model):
    for variant in ("bert", "bert_hae"):
        app = make_app(tiny_model, variant)
        model = app.build_model()
        grouped = [id(variable) for group in app.layer_groups() for variable in group]
        assert sorted(grouped) == sorted(id(variable) for variable in model.trainable_variables)


def test_positions_of_an_id_table_must_lie_in_their_row(tiny_model):
    from easytransfer.data.encoded import Ragged

    app = make_app(tiny_model)
    columns = {"input_ids": Ragged.from_lists([[1, 2, 3], [1, 2]])}
    columns |= {"start_position": np.array([2, 1]), "end_position": np.array([2, 2])}
    with pytest.raises(DataError, match="end_position of accepted row 2 lies outside of its 2 tokens"):
        app.on_train_table(EncodedTable(columns))
