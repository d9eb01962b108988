"""The original's pre-training commands, changed in paths, sizes and numbers of rows only: records, then a training."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from training import without_export

from appzoo.cli.pretraining import main
from easytransfer.text.wordpiece import WordPiece

WORDS = "the cat dog man boy sits runs is here there who good bad in a house . ?".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##er"]
# run_preprocess.sh
PREPROCESS = """
  --mode=preprocess \
  --num_threads=2 \
  --input_dir=train_dir \
  --output_dir=train_dir_tfrecords \
  --tokenizer=wordpiece  \
  --vocab_fp=vocab.txt \
  --data_format=segment_pair \
  --dupe_factor=2 \
  --max_seq_length=32 \
  --do_chinese_whole_word_mask=True
"""
# run_pretrain.sh
TRAIN = """
  --workerGPU=1  \
  --mode=train_and_evaluate \
  --train_input_fp=train_list.list_tfrecord  \
  --eval_input_fp=dev_list.list_tfrecord  \
  --train_batch_size=16  \
  --num_epochs=1  \
  --model_dir=plm_model_dir  \
  --learning_rate=1e-4  \
  --vocab_fp=vocab.txt \
  --input_sequence_length=32  \
  --input_schema="input_ids:int:32,input_mask:int:32,segment_ids:int:32,masked_lm_positions:int:20,masked_lm_ids:int:20,\
masked_lm_weights:float:20,next_sentence_labels:int:1"  \
  --loss="mlm+nsp"  \
  --model_type="bert"  \
  --hidden_size=16  \
  --intermediate_size=32  \
  --num_hidden_layers=1  \
  --num_attention_heads=2
"""


def run(capfd, line: str, *more: str, code: int = 0):
    capfd.readouterr()
    found = main([*shlex.split(line), *more])
    captured = capfd.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out) if not code else captured.err.splitlines()[-1]


def documents(count: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [
        [f"the {random.choice(WORDS[1:5])}s {random.choice(WORDS[5:9])} in a house ." for _ in range(3)]
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "train_dir").mkdir()
    for name, count in (("a.txt", 30), ("b.txt", 12)):
        lines = ["\n".join(lines) for lines in documents(count, count)]
        (folder / "train_dir" / name).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def records(workplace, capfd_once):
    return run(capfd_once, PREPROCESS)


@pytest.fixture(scope="module")
def capfd_once(request):
    """`capfd` for a module."""
    from _pytest.capture import CaptureFixture, FDCapture

    fixture = CaptureFixture(FDCapture, request, _ispytest=True)
    fixture._start()
    yield fixture
    fixture.close()


def examples(path: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        feature = tf.train.Example.FromString(raw).features.feature
        kinds = {name: value.WhichOneof("kind") for name, value in feature.items()}
        found.append({name: np.array(getattr(value, kinds[name]).value) for name, value in feature.items()})
        assert kinds.pop("masked_lm_weights") == "float_list" and set(kinds.values()) == {"int64_list"}
    return found


def test_records_hold_the_texts_with_words_hidden(workplace, records):
    folder = workplace / "train_dir_tfrecords"
    names = ["a-00.tfrecord", "a-01.tfrecord", "b-00.tfrecord", "b-01.tfrecord"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "statistics.json"]
    tokenizer = WordPiece.from_folder(workplace, lower_case=True)
    known = {" ".join(line for line in lines) for lines in documents(30, 30)}
    pieces = {tuple(tokenizer.pieces([text]).values.tolist()) for text in known}
    hidden = masked = changed = rows = 0
    copies = []
    for name in names[:2]:
        shown = []
        for row in examples(folder / name):
            assert {key: len(value) for key, value in row.items()} == {
                **{key: 32 for key in ("input_ids", "input_mask", "segment_ids")},
                **{f"masked_lm_{key}": 20 for key in ("positions", "ids", "weights")},
                "next_sentence_labels": 1,
            }
            real = row["masked_lm_weights"] > 0
            places, length = row["masked_lm_positions"][real], int(row["input_mask"].sum())
            assert (np.diff(places) > 0).all() and not row["masked_lm_ids"][~real].any()
            assert 1 <= len(places) <= max(1, round(0.15 * length)) and (places < length).all()
            shown.append(row["input_ids"].copy())
            ids = row["input_ids"]
            hidden, masked = hidden + len(places), masked + int((ids[places] == tokenizer.mask_id).sum())
            ids[places] = row["masked_lm_ids"][real]
            first, second = np.split(ids[1 : length - 1], np.flatnonzero(ids[1 : length - 1] == tokenizer.sep_id))
            label, rows = int(row["next_sentence_labels"][0]), rows + 1
            changed += label
            # Both segments in the order of the text are one of the documents, or a part of it.
            both = [*second[1:], *first] if label else [*first, *second[1:]]
            assert any(_holds(whole, tuple(int(n) for n in both)) for whole in pieces)
            assert row["segment_ids"][:length].sum() == len(second) and set(row["segment_ids"]) == {0, 1}
        copies.append(shown)
    assert 0.35 < changed / rows < 0.65 and 0.7 < masked / hidden < 0.9
    assert not np.array_equal(np.array(copies[0])[: len(copies[1])], np.array(copies[1])[: len(copies[0])])


def _holds(whole: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def test_the_statistics_are_those_of_the_records(workplace, records, capfd):
    folder = workplace / "train_dir_tfrecords"
    told = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    for name, facts in told["files"].items():
        rows = examples(folder / name)
        tokens = sum(int(row["input_mask"].sum()) for row in rows)
        assert facts["documents"] == (30 if name.startswith("a") else 12) and facts["passages"] == len(rows)
        assert facts["tokens"] == tokens and facts["truncated"] == facts["unknown"] == facts["rejected"] == 0
        assert facts["average_fill"] == pytest.approx(tokens / (32 * len(rows)), abs=1e-4)
    total = told["total"]
    assert total["documents"] == 84 and total["tokens"] == sum(each["tokens"] for each in told["files"].values())
    assert {key: records[key] for key in total} == total
    # What is finished stays; a file that is gone is written again; other settings are refused.
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    gone = (folder / "b-01.tfrecord").read_bytes()
    (folder / "b-01.tfrecord").unlink()
    assert run(capfd, PREPROCESS) == records
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert after["a-00.tfrecord"] == before["a-00.tfrecord"] and (folder / "b-01.tfrecord").read_bytes() == gone
    assert "has records of other settings" in run(capfd, PREPROCESS, "--masked_lm_prob=0.2", code=2)


def test_a_training_takes_the_hidden_words_of_the_records(workplace, records, capfd):
    folder = workplace / "train_dir_tfrecords"
    (workplace / "train_list.list_tfrecord").write_text(
        "".join(f"{folder / name}\n" for name in ("a-00.tfrecord", "b-00.tfrecord")), encoding="utf-8"
    )
    (workplace / "dev_list.list_tfrecord").write_text(f"{folder / 'a-01.tfrecord'}\n", encoding="utf-8")
    with without_export():
        result = run(capfd, TRAIN)
    assert set(result["metrics"]) == {"perplexity", "mlm_loss", "mlm_accuracy", "pair_accuracy"}
    rows = examples(folder / "a-01.tfrecord")
    assert result["data"]["eval"]["accepted"] == len(rows)
    config = json.loads((workplace / "plm_model_dir" / "train_config.json").read_text(encoding="utf-8"))
    train = config["train"]
    assert (train["weight_decay_ratio"], train["warmup_ratio"], train["num_eval_steps"]) == (0, 0.1, 1000)
    sizes = json.loads((workplace / "plm_model_dir" / "config.json").read_text(encoding="utf-8"))
    assert (sizes["hidden_size"], sizes["num_hidden_layers"], sizes["vocab_size"]) == (16, 1, len(VOCABULARY))
    # The loss of the evaluation is that of the hidden words of the records: by NumPy, from logits of the same weights.
    from appzoo.cli.reader import JobReader
    from appzoo.jobs.trained import open_trained

    words = [f"--checkpointPath={workplace / 'plm_model_dir'}", f"--exportDirBase={workplace / 'x'}"]
    app = open_trained(JobReader("export", words, []).read().config).app
    batch = {name: tf.constant(np.stack([row[name] for row in rows]).astype(np.int32)) for name in list(rows[0])[:]
             if name in ("input_ids", "input_mask", "segment_ids")}  # fmt: skip
    encoded = app.model.backbone(batch)
    logits = app.model.head(encoded["sequence_output"], app.model.backbone.input_embeddings, None,
                            encoded["pooled_output"])["mlm_logits"].numpy()  # fmt: skip
    nll = []
    for row, scores in zip(rows, logits.astype(np.float64), strict=True):
        real = row["masked_lm_weights"] > 0
        at, ids = row["masked_lm_positions"][real], row["masked_lm_ids"][real]
        nll += (np.log(np.exp(scores[at]).sum(-1)) - scores[at, ids]).tolist()
    assert result["metrics"]["mlm_loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    stored = {name: tf.constant(np.stack([row[name] for row in rows])) for name in rows[0]}
    assert app.training_batch(stored, None) is stored


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--loss=mlm+mlm"], "wrong value for --loss; got 'mlm+mlm'; accepted: mlm, mlm+nsp, mlm+sop"),
        (["--data_reader=odps"], "export the table to TFRecord"),
        (["--do_multitaks_pretrain=True"], "--do_multitaks_pretrain is not done here"),
        (["--hidden_size=x"], "wrong value for --hidden_size; got 'x'; accepted: a whole number above 0"),
        (["--num_hidden_layer=2"], "unknown flag --num_hidden_layer; did you mean --num_hidden_layers?"),
        (["--loss=mlm", "--loss=mlm"], "--loss is given twice"),
        (["--factorized_size=8"], "--factorized_size is for --model_type=albert"),
        (["--mode=evaluate"], "easy_transfer_app evaluate"),
    ],
)  # fmt: skip
def test_wrong_flags_end_with_one_line(workplace, capfd, change, said):
    line = [word for word in shlex.split(TRAIN) if word.split("=")[0] not in {each.split("=")[0] for each in change}]
    assert said in run(capfd, shlex.join(line), *change, code=2)


def test_records_of_pieces_of_an_albert(workplace, capfd):
    """Whole sentences without pairs, in pieces of SentencePiece: no label, no short rows."""
    from modelzoo.albert.vocabulary import trained

    lines = [line for lines in documents(12, 12) for line in lines]
    model = trained(lambda: iter(lines), 60, lower_case=True)
    (workplace / "pieces.model").write_bytes(model.model)
    line = "--mode=preprocess --input_dir=train_dir --output_dir=pieces --tokenizer=sentencepiece --dupe_factor=1"
    more = ["--data_format=full_sentences", "--spm_model_fp=pieces.model", "--max_seq_length=40"]
    told = run(capfd, line, *more, "--max_predictions_per_seq=6")
    rows = examples(workplace / "pieces" / "b.tfrecord")
    assert told["files"] == 2 and len(rows) > 10
    texts = []
    for row in rows:
        assert "next_sentence_labels" not in row and len(row["masked_lm_ids"]) == 6
        ids, real = row["input_ids"].copy(), row["masked_lm_weights"] > 0
        ids[row["masked_lm_positions"][real]] = row["masked_lm_ids"][real]
        texts.append(model.decode(ids[row["input_mask"] > 0].tolist()))
    assert " ".join(texts).split() == " ".join(lines).split()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"masked_lm_positions": [1, 4, 0]}, "id out of range: 4 is not below the tokens of the row=4"),
        ({"masked_lm_ids": [7, 50, 0]}, "id out of range: 50 is not below vocab_size=50"),
        ({"masked_lm_weights": [1.0, 1.0]}, "wrong list length: masked_lm_positions, masked_lm_ids"),
        ({"masked_lm_weights": [1.0, 0.5, 0.0]}, "not a weight: neither 0 nor 1"),
        ({"next_sentence_labels": 2}, "unknown label: 2 is neither 0 nor 1"),
    ],
)
def test_broken_records_are_bad_rows(tmp_path, change, reason):
    from easytransfer.data.id_tables import encode_ids
    from easytransfer.data.schema import parse_schema
    from easytransfer.data.table import BadRows, open_table

    good = {"input_ids": [2, 7, 8, 3, 0], "input_mask": [1, 1, 1, 1, 0], "masked_lm_positions": [1, 2, 0],
            "masked_lm_ids": [7, 9, 0], "masked_lm_weights": [1.0, 1.0, 0.0], "next_sentence_labels": 1}  # fmt: skip
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, (good, good | change, good))) + "\n", encoding="utf-8")
    bad_rows = BadRows("skip")
    lists = {"input_ids": 5, "input_mask": 5, "masked_lm_positions": "*", "masked_lm_ids": "*"}
    columns = [f"{name}:int:{size}" for name, size in lists.items()]
    schema = parse_schema(",".join([*columns, "masked_lm_weights:float:*", "next_sentence_labels:int:1"]))
    table = open_table(str(path), schema=schema, bad_rows=bad_rows)
    (chunk,) = table.chunks()
    encoded = encode_ids(chunk, table.schema, ["next_sentence_labels"], {"input_ids": (50, "vocab_size")})
    assert len(encoded) == 2 and bad_rows.count == 1
    assert reason in bad_rows.summary() or reason.split(":")[0] in bad_rows.summary()
    assert encoded.columns["masked_lm_ids"].tolist() == [[7, 9, 0]] * 2


def test_wrong_flags_of_records_end_with_one_line(workplace, capfd, tmp_path):
    assert "--data_format is missing" in run(capfd, "--mode=preprocess --input_dir=train_dir --output_dir=x", code=2)
    line = f"--mode=preprocess --input_dir={tmp_path} --output_dir=x --data_format=segment_pair --vocab_fp=vocab.txt"
    assert "no text file in" in run(capfd, line, code=3)
    assert not (workplace / "x").exists()
