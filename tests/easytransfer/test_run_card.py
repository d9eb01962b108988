"""The model card says what the files of the run say."""

import json
import re
import shlex
from pathlib import Path

import pytest

from easytransfer.config.job import JobConfig
from easytransfer.config.stored import NOT_INHERITED
from easytransfer.errors import ModelError
from easytransfer.run.card import card_text, found_limitations, write_card
from easytransfer.run.commands import command_line, next_commands, without_labels
from easytransfer.run.folder import RunFolder
from easytransfer.run.intervals import wilson_interval


def finished_run(path, **report):
    config = JobConfig(
        model_name="text_classify_bert",
        data={
            "train_table": "train.tsv",
            "eval_table": "my dev.tsv",
            "input_schema": "label:str:1,text:str:1",
            "label_name": "label",
            "first_sequence": "text",
        },
    )
    folder = RunFolder.create(path, config.model_dump(mode="json"))
    folder.write_run(
        {"seed": 7, "packages": {"tensorflow": "2.20.0"}, "inputs": [{"path": "t", "bytes": 3, "sha256": "ab"}]}
    )
    folder.write_json("label_mapping.json", {"neg": 0, "po|s": 1})
    folder.write_evaluation(40, {"accuracy": 0.91, "auc": 0.97, "loss": 0.25}, is_best=True)
    folder.write_evaluation(80, {"accuracy": 0.90, "auc": float("nan"), "loss": 0.5}, is_best=False)
    per_class = [
        {"label": "neg", "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 1234, "predicted": 1100},
        {"label": "po|s", "precision": 0.7, "recall": 0.6, "f1": 0.65, "support": 7, "predicted": 5},
    ]
    tables = {
        "train": {"table": "train.tsv", "read": 1000, "accepted": 990, "rejected": 10, "reasons": {"no label": 10}}
    }
    facts = {
        "data": tables,
        "metric": "accuracy",
        "rows": 150,
        "labels": ["neg", "po|s"],
        "per_class": per_class,
        "text": {"train": {"rows": 990, "truncated": 99, "tokens": 1000, "unknown": 100}},
        "pictures": ["learning_curve.png", "confusion_matrix.png"],
    }
    folder.finish("done", report={**facts, **report})
    return folder


def test_card_states_results_data_use_and_limits(tmp_path):
    finished_run(tmp_path)
    text = card_text(tmp_path)
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings == ["Use it", "Results", "Data", "Training", "Environment", "Limitations"]
    for line in (
        "| metric | best (step 40) | last (step 80) |",
        "| **accuracy** | 0.9100 | 0.9000 |",
        "| auc | 0.9700 | undefined |",
        "| neg | 0.9000 | 0.8000 | 0.8500 | 1,234 | 1,100 |",
        r"| po\|s | 0.7000 | 0.6000 | 0.6500 | 7 | 5 |",
        "| train | `train.tsv` | 1,000 | 990 | 10 |",
        "| train | no label | 10 |",
        "| `t` | 3 | `ab` |",
        "| `learning_rate` | `2e-05` |",
        "| `seed` | `123123` |",
        "| tensorflow | 2.20.0 |",
        "![Learning curve](learning_curve.png)",
        "![Confusion matrix](confusion_matrix.png)",
        "- Only 150 evaluation rows: differences of a few points can be chance.",
        "- 10 of 1,000 train rows (1.0%) were rejected and not used.",
        "- 10.0% of the train texts are longer than the model reads and were cut.",
        "- 10.0% of the train tokens are unknown to the vocabulary of the pre-trained model.",
        "- Fewer than 20 evaluation rows for: po|s; their scores are uncertain.",
    ):
        assert line in text.splitlines(), line
    assert text.count("```") % 2 == 0


def test_card_tables_are_well_formed(tmp_path):
    finished_run(tmp_path)
    block = []
    for line in [*card_text(tmp_path).splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        elif block:
            assert len(set(block)) == 1 and len(block) >= 3, block
            block = []


def test_commands_are_ready_to_type(tmp_path):
    folder = finished_run(tmp_path / "my run")
    commands = next_commands(folder.path, "my dev.tsv", append=["id", "a b"])
    predict = shlex.split(commands["predict a table"])
    assert predict[:3] == ["easy_transfer_app", "predict", f"--checkpointPath={folder.path}"]
    assert predict[3:] == [
        "--inputTable=my dev.tsv",
        f"--outputTable={folder.path}/predictions.tsv",
        "--appendCols=id,a b",
    ]
    assert "--inputTable='my dev.tsv'" in commands["evaluate on a labelled table"]
    text = card_text(folder.path)
    assert all(command in text for command in next_commands(folder.path, "my dev.tsv").values())
    assert "For a table without the label column, `predict` needs `--inputSchema=text:str:1`, too." in text
    folder.write_json("report.json", {"commands": {"predict": "own command"}})
    assert "own command" in card_text(folder.path) and commands["predict a table"] not in card_text(folder.path)


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        ({"bad_rows": "fail", "max_bad_rows": 3, "encoding": "auto"}, []),
        ({"encoding": "gb18030"}, ["--encoding=gb18030"]),
        ({"encoding": "gb18030", "eval_table": None}, []),
        ({"bad_rows": "skip", "max_bad_rows": 0}, ["--badRows=skip"]),
        ({"bad_rows": "quarantine", "max_bad_rows": 9}, ["--badRows=quarantine", "--maxBadRows=9"]),
    ],
)
def test_commands_say_how_the_run_read_its_tables(data, flags):
    commands = next_commands("run", "dev.tsv", "run/export/m/1", data=data)
    for purpose, command in commands.items():
        found = [word for word in shlex.split(command) if "adRows" in word or "encoding" in word]
        assert found == (flags if purpose.startswith(("predict", "evaluate")) else []), command


def test_a_later_job_is_told_all_of_a_table_that_it_does_not_inherit():
    """A setting of the data that is new to `NOT_INHERITED` must be among the flags of the commands, or named here."""
    own = {
        "train_table",
        "eval_table",
        "eval_share",
        "input_table",
        "output_table",
        "append_cols",
        "output_schema",
        "merge",
        "region_cache",
    }
    left = {path.removeprefix("data.") for path in NOT_INHERITED if path.startswith("data.")} - own
    assert left == {"bad_rows", "max_bad_rows", "encoding"}


def test_exports_of_a_run_lie_beside_each_other(tmp_path):
    """The base is the folder of all models, not the model whose next version is made."""
    commands = next_commands(tmp_path / "run", "dev.tsv", tmp_path / "run" / "export" / "text_classify_bert" / "1")
    assert commands["export the next version"].endswith(f" --exportDirBase={tmp_path}/run/export")
    assert commands["serve the export over REST and gRPC"] == f"easy_transfer_app serve {tmp_path}/run/export"
    assert not any("serve" in command for command in next_commands(tmp_path / "run", "dev.tsv").values())


@pytest.mark.parametrize(
    ("table", "output"),
    [
        ("a.tsv", "predictions.tsv"),
        ("a.csv.gz", "predictions.csv"),
        ("a.jsonl,b.jsonl", "predictions.jsonl"),
        ("squad.json", "predictions.jsonl"),
        ("a.parquet", "predictions.parquet"),
        ("digits-images-idx3-ubyte", "predictions.csv"),
    ],
)
def test_predictions_have_the_form_of_the_table(table, output):
    assert f"--outputTable=run/{output}" in next_commands("run", table)["predict a table"]


def test_command_lines_leave_out_what_is_not_given():
    line = command_line("export", checkpointPath=Path("a b"), exportFlat=True, outputSchema=None, secondSequence="")
    assert line == "easy_transfer_app export --checkpointPath='a b' --exportFlat"


@pytest.mark.parametrize(
    ("schema", "label", "expected"),
    [
        ("text:str:1,label:str:1", "label", "--inputSchema=text:str:1"),
        ("id:str:1, text:str:1, label:str:1", "label", "--inputSchema=id:str:1,text:str:1"),
        ("text:str:1", "label", None),
        (None, "label", None),
    ],
)
def test_a_table_without_labels_needs_a_schema_without_them(schema, label, expected):
    assert without_labels({"input_schema": schema, "label_name": label}) == expected


def test_pages_of_the_application_are_linked(tmp_path):
    finished_run(tmp_path, pages=["entities.html", "mistakes.png"])
    text = card_text(tmp_path)
    assert "Row by row: [Entities](entities.html)." in text and "![Mistakes](mistakes.png)" in text


def test_card_replaces_its_own_file_and_no_other(tmp_path):
    finished_run(tmp_path)
    assert write_card(tmp_path).name == "README.md"
    assert write_card(tmp_path).name == "README.md"
    (tmp_path / "README.md").write_text("# My project")
    assert write_card(tmp_path).name == "MODEL_CARD.md"
    assert (tmp_path / "README.md").read_text() == "# My project"


def test_card_of_a_bare_run(tmp_path):
    RunFolder.create(tmp_path, {"model_name": None}).close()
    text = card_text(tmp_path)
    assert "The model was not evaluated." in text and "## Results" not in text and "## Data" not in text
    with pytest.raises(ModelError, match="not a run folder"):
        card_text(tmp_path / "absent")


def test_changed_settings_and_many_classes_are_told(tmp_path):
    row = {"precision": 1.0, "recall": 1.0, "support": 50, "predicted": 50}
    per_class = [{"label": f"c{i}", "f1": i / 100, **row} for i in range(100)]
    folder = finished_run(tmp_path, rows=5000, per_class=per_class)
    record = folder.read_json("run.json")
    folder.write_json("run.json", {**record, "changed_settings": {"train.learning_rate": [1e-5, 1e-4]}})
    text = card_text(tmp_path)
    assert "another `train.learning_rate` (`0.0001` after `1e-05`)" in text
    assert "The 60 classes with the lowest F1 of 100" in text and "| c0 |" in text and "| c60 |" not in text
    assert not any("Only" in line for line in found_limitations(folder.config, {}, json.loads("{}")))


def test_wilson_interval_of_a_worked_case():
    """15 of 148 and 0 of 20 at 95%: Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3."""
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1.0, 20)[1] == 1.0
