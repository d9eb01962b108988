"""Command lines of the original and of this platform, down to the checked configuration."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

import appzoo
from appzoo.cli.checks import check_job
from appzoo.cli.reader import JobReader, canonical_mode
from easytransfer.errors import ConfigError, DataError, ModelError, ResourceError

SCHEMA = "example_id:int:1,content:str:1,label:str:1,label_str:str:1,keywords:str:1"
LABELS = "100,101,102,103,104,105,106,107,108,109,110,112,113,114,115,116"
WORKERS = "--workerCount 1 --workerGPU 1 --workerCPU 1"
BERT_PARAMETERS = """'
                            pretrain_model_name_or_path=google-bert-base-zh # For BERT
                            log_step_count_steps=100
                            throttle_secs=100
                            keep_checkpoint_max=10
                            lr_decay=polynomial
                            warmup_ratio=0.1
                            weight_decay_ratio=0
                            gradient_clip=true
                            num_accumulated_batches=1
                            eval_batch_size=256
                            '
                    """

CNN_CONFIG = '''
from easytransfer.config.job import JobConfig, ModelConfig
from easytransfer.config.schema import setting
class Network(ModelConfig):
    """Convolutions."""
    fix_embedding: bool = setting(True, "Keep the embeddings.")
    max_vocab_size: int = setting(10, "Words.")
    num_filters: list[int] = setting([1], "Filters.")
    filter_sizes: list[int] = setting([1], "Sizes.")
    dropout_rate: float = setting(0.1, "Dropout.")
class Config(JobConfig):
    """Stand-in for the convolutional classifier."""
    model: Network = Network()
VARIANTS = {"cnn": Config}
'''


@pytest.fixture
def cnn(tmp_path, monkeypatch):
    folder = tmp_path / "apps" / "zz_classify"
    folder.mkdir(parents=True)
    for name, text in (("__init__.py", ""), ("config.py", CNN_CONFIG), ("app.py", "raise RuntimeError\n")):
        (folder / name).write_text(text)
    monkeypatch.setattr(appzoo, "__path__", [*appzoo.__path__, str(tmp_path / "apps")])
    yield
    for name in [name for name in sys.modules if name.startswith("appzoo.zz_")]:
        del sys.modules[name]


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it."""
    folder = tmp_path / "models"
    (folder / "model.ckpt-0").mkdir(parents=True)
    config = {
        "schema_version": 2,
        "model_name": "text_classify_bert",
        "checkpoint_dir": str(folder),
        "data": {
            "train_table": "gone.tsv",
            "input_schema": SCHEMA,
            "first_sequence": "content",
            "label_name": "label",
            "label_enumerate_values": "0,1",
            "sequence_length": 64,
        },
        "model": {"pretrain_model_name_or_path": "somewhere"},
        "train": {"batch_size": 5},
        "runtime": {"overwrite": True},
    }
    (folder / "train_config.json").write_text(json.dumps(config))
    (folder / "label_mapping.json").write_text('{"0": 0, "1": 1}')
    return folder


def read(command, *more):
    notes = []
    words = [*(shlex.split(command) if isinstance(command, str) else command), *more]
    verb = None if words[0].startswith("-") else words.pop(0)
    job = JobReader(verb, words, notes).read()
    return job, notes


def config_of(command, *more):
    return read(command, *more)[0].config


# The original's commands ---------------------------------------------------------------------------------------


def test_readme_train_command():
    job, notes = read(
        """--mode train \
        --inputTable=./train.tsv,./dev.tsv \
        --inputSchema=content:str:1,label:str:1 \
        --firstSequence=content \
        --sequenceLength=128 \
        --labelName=label \
        --labelEnumerateValues=0,1 \
        --checkpointDir=./sst2_models/\
        --numEpochs=3 \
        --batchSize=32 \
        --optimizerType=adam \
        --learningRate=2e-5 \
        --modelName=text_classify_bert \
        --advancedParameters='pretrain_model_name_or_path=google-bert-base-en'""".replace("/\\\n", "/ ")
    )
    config = job.config
    assert job.mode == "train" and notes == []
    assert (config.data.train_table, config.data.eval_table) == ("./train.tsv", "./dev.tsv")
    assert config.data.input_table is None
    assert (config.data.first_sequence, config.data.label_enumerate_values) == ("content", "0,1")
    assert (config.train.num_epochs, config.train.learning_rate) == (3.0, 2e-5)
    assert config.model.pretrain_model_name_or_path == "google-bert-base-en"


def test_readme_predict_command(run):
    config = config_of(
        f"""--mode predict --inputTable=./test.tsv --outputTable=./test.pred.tsv
        --inputSchema=id:str:1,content:str:1 --firstSequence=content --appendCols=content
        --outputSchema=predictions,probabilities,logits --checkpointPath={run}/"""
    )
    assert config.data.input_schema == "id:str:1,content:str:1"
    assert config.data.append_cols == "content" and config.data.output_schema == "predictions,probabilities,logits"
    # From the stored configuration, apart from what described the training job.
    assert (config.model_name, config.data.sequence_length, config.train.batch_size) == ("text_classify_bert", 64, 5)
    assert config.model.pretrain_model_name_or_path == "somewhere"
    assert config.data.train_table is None and config.runtime.overwrite is False


TRAIN = (
    f"--mode train --inputTable train.csv,dev.csv --inputSchema {SCHEMA} --firstSequence content --labelName label "
    f"--labelEnumerateValues {LABELS} --checkpointDir models --numEpochs 1 --batchSize 5 --optimizerType adam "
    f"--learningRate 2e-5 --modelName text_classify_bert --distributionStrategy none {WORKERS}"
)
PREDICT = (
    f"--mode predict --inputTable dev.csv --outputTable pred.csv --inputSchema {SCHEMA} --firstSequence content "
    f"--appendCols example_id,keywords,label_str --outputSchema predictions,probabilities,logits "
    f"--batchSize 100 {WORKERS}"
)


def test_original_train_test_command():
    job, notes = read(TRAIN, "--advancedParameters", BERT_PARAMETERS)
    assert notes == []
    train = job.config.train
    assert (train.keep_checkpoint_max, train.throttle_secs, train.eval_batch_size) == (10, 100, 256)
    assert (train.warmup_ratio, train.weight_decay_ratio, train.gradient_clip) == (0.1, 0.0, True)
    assert job.config.distribution.distribution_strategy == "none"
    assert job.config.model.pretrain_model_name_or_path == "google-bert-base-zh"


def test_original_continue_train_test_command():
    text = """'
        pretrain_model_name_or_path=google-bert-base-zh # For BERT
        init_checkpoint_path=./ez_text_classify_models/model.ckpt-0
        '
    """
    assert config_of(TRAIN, "--advancedParameters", text).train.init_checkpoint_path.endswith("model.ckpt-0")


def test_original_predict_and_evaluate_test_commands(run):
    config = config_of(f"{PREDICT} --checkpointPath {run}/")
    assert config.data.append_cols == "example_id,keywords,label_str" and config.train.batch_size == 100
    config = config_of(f"--mode evaluate --inputTable dev.csv --checkpointPath {run}/model.ckpt-0 --batchSize 100")
    assert (config.data.input_schema, config.data.label_name) == (SCHEMA, "label")


def test_original_export_test_commands(run, tmp_path):
    base = f"--mode export --checkpointPath {run}/model.ckpt-0 --exportDirBase {tmp_path}/saved/ --exportType "
    assert config_of(base + "app_model").export.export_type == "app_model"
    assert config_of(base + "ez_bert_feat").export.export_dir_base.endswith("saved/")
    manifest = tmp_path / "saved" / "1" / "assets.extra" / "export.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"config": json.loads((run / "train_config.json").read_text())}))
    config = config_of(f"{PREDICT} --checkpointPath {tmp_path}/saved")
    assert config.model_name == "text_classify_bert"


def test_original_textcnn_test_command(cnn):
    text = """'
        fix_embedding=false
        max_vocab_size=20000
        num_filters=100,100,100
        filter_sizes=3,4,5
        dropout_rate=0.5

        lr_decay=none
        warmup_ratio=0.0
        weight_decay_ratio=0
        gradient_clip=true
        clip_norm_value=5.0
        throttle_secs=10
    '
    """
    command = TRAIN.replace("text_classify_bert", "zz_classify_cnn").replace("adam", "adadelta")
    config = config_of(command, "--advancedParameters", text)
    assert config.model.num_filters == [100, 100, 100] and config.model.filter_sizes == [3, 4, 5]
    assert config.model.fix_embedding is False and config.train.lr_decay == "none"
    assert config.train.optimizer_type == "adadelta" and config.train.clip_norm_value == 5.0


def test_original_multi_label_test_command():
    text = "'\n multi_label=true\n max_num_labels=5\n pretrain_model_name_or_path=google-bert-base-zh # For BERT\n '"
    model = config_of(TRAIN, "--advancedParameters", text).model
    assert model.multi_label is True and model.max_num_labels == 5


def test_original_regression_test_command_with_a_flag_and_a_key_for_one_value():
    command = TRAIN.replace(f"--labelEnumerateValues {LABELS}", "--saveCheckpointSteps 10000")
    job, notes = read(command, "--advancedParameters", "'save_steps=300 # steps\nlog_step_count_steps=100'")
    assert job.config.train.save_checkpoint_steps == 10000 and job.config.train.log_step_count_steps == 100
    assert notes == ["--advancedParameters key save_steps is ignored: --saveCheckpointSteps sets the same value"]


# Order of precedence, forms, modes -----------------------------------------------------------------------------


def test_verbs_and_modes_are_equal():
    assert read(TRAIN)[0].config == read(TRAIN.replace("--mode train", "train"))[0].config
    assert read(TRAIN.replace("--mode train", "train --mode=train"))[0].mode == "train"
    assert canonical_mode("train_and_evaluate_on_the_fly") == "train"
    assert canonical_mode("predict_on_the_fly") == "predict"
    with pytest.raises(ConfigError, match="differ"):
        read("predict --mode train")
    with pytest.raises(ConfigError, match="unknown mode; got 'tran'.*did you mean train"):
        read("--mode tran")
    with pytest.raises(ConfigError, match="no mode is given"):
        read("--modelName text_classify_bert")


def test_defaults_file_set_flags(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "model_name: text_classify_bert\ndata: {train_table: a, eval_table: b}\n"
        "train: {batch_size: 1, num_epochs: 1, warmup_ratio: 0.5}\n"
    )
    config = config_of(
        f"train --config {tmp_path}/job.yaml --set train.batch_size=2 --set train.num_epochs=2 --numEpochs 3 "
        "--inputTable=c,d --advancedParameters warmup_ratio=0.25"
    )
    train = config.train
    assert (train.batch_size, train.num_epochs, train.warmup_ratio, train.learning_rate) == (2, 3, 0.25, 2e-5)
    assert (config.data.train_table, config.data.eval_table) == ("c", "d")


def test_a_dumped_configuration_runs_again(tmp_path):
    first = read(TRAIN + " --configDump", "--advancedParameters", BERT_PARAMETERS)[0]
    assert first.dump == ""
    from easytransfer.config.files import dump

    (tmp_path / "dump.json").write_text(json.dumps(dump(first.config, first.mode)))
    again = read(f"--config {tmp_path}/dump.json")[0]
    assert (again.mode, again.config) == ("train", first.config)


def test_original_json_file(tmp_path):
    original = {
        "preprocess_config": {"input_schema": "a:str:1,b:str:1", "first_sequence": "a", "label_name": "b"},
        "model_config": {"model_name": "text_classify_bert", "num_labels": 2},
        "train_config": {"train_input_fp": "x", "model_dir": "m", "train_batch_size": 3, "stray": 1},
        "evaluate_config": {"eval_input_fp": "y"},
    }
    (tmp_path / "o.json").write_text(json.dumps(original))
    job, notes = read(f"--mode train_and_evaluate_on_the_fly --config {tmp_path}/o.json --tables p,q")
    assert (job.config.data.train_table, job.config.train.batch_size) == ("p", 3)
    assert job.config.model.num_labels == 2 and "train_config.stray" in notes[0]


def test_input_table_of_a_file_is_split_in_train(tmp_path):
    (tmp_path / "job.yaml").write_text("model_name: text_classify_bert\ndata: {input_table: 'a, b'}\n")
    config = config_of(f"train --config {tmp_path}/job.yaml")
    assert (config.data.train_table, config.data.eval_table, config.data.input_table) == ("a", "b", None)
    with pytest.raises(ConfigError, match="data.input_table and data.train_table are both given"):
        read(f"train --config {tmp_path}/job.yaml --set data.train_table=x")


def test_input_table_in_train_may_be_the_training_table_alone():
    for words in (["--inputTable=a.tsv"], ["--set=data.input_table=a.tsv"]):
        data = JobReader("train", words, []).read().config.data
        assert (data.train_table, data.eval_table, data.input_table) == ("a.tsv", None, None)
        data = JobReader("train", [*words, "--evalTable=b.tsv"], []).read().config.data
        assert (data.train_table, data.eval_table) == ("a.tsv", "b.tsv")


@pytest.mark.parametrize("value", ["a,b,c", "a,", ""])
def test_input_table_in_train_is_at_most_two(value):
    with pytest.raises(ConfigError, match="--inputTable in train needs a training table, or one and an eval") as error:
        read(["train", "--modelName=text_classify_bert", f"--inputTable={value}"])
    assert "--inputTable=train,eval" in str(error.value)


def test_a_flag_without_meaning_in_the_mode_warns(run, tmp_path):
    command = f"export --checkpointPath {run} --exportDirBase {tmp_path}/x --labelName label --numEpochs 3"
    job, notes = read(command)
    assert [note.split(" has")[0] for note in notes] == ["--labelName", "--numEpochs"]
    assert "export" in notes[0]
    # Published predict commands carry the label column.
    assert read(f"predict --checkpointPath {run} --labelName label")[1] == []


def test_snake_case_flags_and_empty_values():
    config = config_of(["train", "--model_name=text_classify_bert", "--batch_size", "7", "--secondSequence="])
    assert config.train.batch_size == 7 and config.data.second_sequence is None


def test_model_name_given_with_a_checkpoint(run, tmp_path):
    job, notes = read(f"predict --checkpointPath {run} --modelName text_match_bert")
    assert job.config.model_name == "text_classify_bert" and "was trained as text_classify_bert" in notes[0]
    hub = tmp_path / "zoo" / "modelhub" / "mine"
    hub.parent.mkdir(parents=True)
    run.rename(hub)
    config = config_of(f"predict --modelName modelhub:mine --modelZooBasePath {tmp_path}/zoo")
    assert (config.checkpoint_path, config.model_name) == (str(hub), "text_classify_bert")


def test_preprocess_takes_a_tokenizer_as_model_name(tmp_path):
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "config.json").write_text('{"model_type": "bert"}')
    config = config_of(f"preprocess --modelName {tmp_path}/tok")
    assert config.model_name == "text_classify_bert"
    assert config.model.pretrain_model_name_or_path == str(tmp_path / "tok")
    config = config_of("preprocess --modelName text_classify_bert --advancedParameters tokenizer_name_or_path=abc")
    assert config.model.pretrain_model_name_or_path == "abc"
    with pytest.raises(ConfigError, match="unknown modelName"):
        read("preprocess --modelName text_clasify_bert")
    with pytest.raises(ModelError, match="not on this machine"):
        read(f"preprocess --modelName google-bert-base-en --modelZooBasePath {tmp_path}")


# Wrong input (specification 12, rows 1 to 5, 10, 12, 17) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("train --modelName text_clasify_bert", "did you mean text_classify_bert"),
        ("train --modelNam text_classify_bert", "unknown flag --modelNam; did you mean --modelName"),
        ("train --modelName text_classify_bert --batchSzie 3", "unknown flag --batchSzie; did you mean --batchSize"),
        (
            "train --modelName text_classify_bert --batchSize x",
            "wrong value for --batchSize; got 'x'; accepted: int >= 1",
        ),
        (
            "train --modelName text_classify_bert --set train.x=1",
            "unknown key --set train.x; `easy_transfer_app config APPLICATION` prints all keys",
        ),
        ("train --modelName text_classify_bert --batchSize 1 --batchSize 2", "--batchSize is given twice"),
        (
            "train --modelName text_classify_bert --batchSize 1 --batch_size 1",
            "--batchSize and --batch_size set the same",
        ),
        ("train --config=a --config=b", "--config is given twice"),
        (
            "train --modelName text_classify_bert --advancedParameters warmup_ration=0.1",
            "unknown key warmup_ration; did you mean warmup_ratio",
        ),
        (
            "train --modelName text_classify_bert --advancedParameters drop_rate=0.1",
            "unknown key drop_rate; did you mean dropout_rate",
        ),
        (
            "train --modelName text_classify_bert --advancedParameters warmup_ratio=lots",
            "wrong value for --advancedParameters key warmup_ratio; got 'lots'; accepted: float >= 0 and <= 1",
        ),
    ],
)
def test_wrong_command_lines(command, part):
    with pytest.raises(ConfigError) as error:
        read(command)
    assert part in str(error.value)
    assert error.value.exit_code == 2


def test_labels_given_at_prediction_must_be_those_of_the_training(run):
    assert config_of(f"predict --checkpointPath {run} --labelEnumerateValues 0,1").data.label_enumerate_values == "0,1"
    with pytest.raises(ConfigError, match="--labelEnumerateValues differs from the labels of the training.*0, 1"):
        read(f"predict --checkpointPath {run} --labelEnumerateValues 1,0")


# Checks before the start -----------------------------------------------------------------------------------------


@pytest.fixture
def job_line(tmp_path, monkeypatch):
    """Words of a train command line that passes all checks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.tsv").write_text("good\t1\nbad\t0\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "bert"}')
    return shlex.split(
        "train --modelName=text_classify_bert --inputTable=t.tsv,t.tsv --inputSchema=content:str:1,label:str:1 "
        "--firstSequence=content --labelName=label --labelEnumerateValues=0,1 --checkpointDir=run "
        "--advancedParameters=pretrain_model_name_or_path=./base"
    )


def checked(words):
    job, _ = read(words)
    check_job(job)
    return job


def replaced(words, **flags):
    kept = [word for word in words if word.partition("=")[0].lstrip("-") not in flags]
    return kept + [f"--{name}={value}" for name, value in flags.items() if value is not None]


def test_a_good_command_line_passes(job_line):
    assert checked(job_line).config.checkpoint_dir == "run"
    assert checked(replaced(job_line, distributionStrategy="MirroredStrategy", workerCount=1)).mode == "train"


@pytest.mark.parametrize(
    ("flags", "kind", "part"),
    [
        ({"modelName": None, "advancedParameters": None}, ConfigError, "mode train needs --modelName; see"),
        ({"inputTable": None}, ConfigError, "mode train needs --inputTable=train,eval; see"),
        ({"inputSchema": None}, ConfigError, "needs --inputSchema"),
        ({"inputSchema": "content:text:1"}, ConfigError, "type"),
        ({"firstSequence": "contnt"}, ConfigError, "column 'contnt' is not in the input schema (asked for by firstSeq"),
        ({"labelName": "lable"}, ConfigError, "accepted: content, label; did you mean label?"),
        ({"inputTable": "t.tsv,u.tsv"}, DataError, "u.tsv"),
        ({"inputTable": "odps://a,odps://b"}, ConfigError, "odps"),
        ({"labelEnumerateValues": "0,0"}, ConfigError, "twice"),
        ({"labelEnumerateValues": "0,,1"}, ConfigError, "empty"),
        ({"labelEnumerateValues": "no/such/file.txt"}, ConfigError, "does not exist"),
        ({"distributionStrategy": "ParameterServerStrategy"}, ConfigError, "not supported"),
        ({"distributionStrategy": "mirored"}, ConfigError, "did you mean mirrored"),
        ({"workerCount": 2, "distributionStrategy": "none"}, ConfigError, "use --distributionStrategy=horovod"),
        ({"worker_hosts": "a:1,b:1"}, ConfigError, "horovodrun -np 2 -H a:1,b:1"),
        ({"advancedParameters": "pretrain_model_name_or_path=minlm-l6-en"}, ModelError, "did you mean minilm-l6-en"),
        (
            {"advancedParameters": "pretrain_model_name_or_path=./base init_checkpoint_path=gone/model.ckpt-1"},
            ModelError,
            "checkpoint gone/model.ckpt-1 does not exist",
        ),
        ({"checkpointDir": "t.tsv"}, ResourceError, "t.tsv"),
    ],
)
def test_start_checks(job_line, flags, kind, part):
    with pytest.raises(kind) as error:
        checked(replaced(job_line, **flags))
    assert part in str(error.value)


def test_schema_is_not_needed_when_tables_name_their_columns(job_line, tmp_path):
    (tmp_path / "t.csv").write_text("content,label\ngood,1\n")
    flags = {"inputTable": "t.csv,t.csv", "inputSchema": None, "delimiter": ","}
    assert checked(replaced(job_line, **flags)).config.data.input_schema is None
    with pytest.raises(ConfigError, match="accepted: content, label"):
        checked(replaced(job_line, **flags, firstSequence="text"))


def test_existing_run_of_another_configuration(job_line, tmp_path):
    from easytransfer.config.files import dump

    (tmp_path / "run" / "model.ckpt-1").mkdir(parents=True)
    (tmp_path / "run" / "train_config.json").write_text(json.dumps(dump(checked(job_line).config)))
    checked(replaced(job_line, numEpochs=5))
    with pytest.raises(ConfigError, match="train.batch_size: 32 -> 8"):
        checked(replaced(job_line, batchSize=8))
    checked([*replaced(job_line, batchSize=8), "--overwrite"])


def test_predict_checks(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.tsv").write_text("1\tgood\t1\tx\ty\n")
    words = ["predict", f"--checkpointPath={run}", "--inputTable=t.tsv", "--outputTable=o.tsv"]
    checked(words)
    with pytest.raises(ConfigError, match="'keyword' is not in the input schema .*appendCols.*did you mean keywords"):
        checked([*words, "--appendCols=content,keyword"])
    with pytest.raises(ModelError, match="does not exist"):
        checked(replaced(words, checkpointPath="gone"))
    with pytest.raises(ConfigError, match="mode predict needs --outputTable"):
        checked(replaced(words, outputTable=None))
    (tmp_path / "o.tsv").write_text("")
    with pytest.raises(ConfigError, match="o.tsv exists; add --overwrite"):
        checked(words)
    checked([*words, "--overwrite"])
    with pytest.raises(ConfigError, match="mode predict needs --checkpointPath"):
        checked(replaced(words, checkpointPath=None))


@pytest.mark.parametrize("options", [{"workerCount": 2}, {"distributionStrategy": "WhaleStrategy"}])
def test_several_workers_without_horovod_say_how_to_get_it(job_line, monkeypatch, options):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs Horovod; .*scripts/horovod.sh"):
        checked(replaced(job_line, **options))


def test_an_empty_label_list_is_told(tmp_path):
    told = ["labelEnumerateValues is empty: the training table says what its labels are"]
    train = "--modelName text_classify_bert"
    (tmp_path / "empty.yaml").write_text("data: {label_enumerate_values: ''}\n")
    (tmp_path / "null.yaml").write_text("data: {label_enumerate_values: null}\n")
    for words, expected in (
        ([train, "--labelEnumerateValues", ""], told),
        ([train, "--labelEnumerateValues="], told),
        ([train, "--set", "data.label_enumerate_values="], told),
        ([train, f"--config={tmp_path}/empty.yaml"], told),
        ([train, f"--config={tmp_path}/null.yaml"], []),
        ([train, "--labelEnumerateValues=none"], []),
        ([train], []),
        (["--modelName text_comprehension_bert", "--labelEnumerateValues="], []),
    ):
        notes: list[str] = []
        line = [*words[0].split(), *words[1:]]
        job = JobReader("train", line, notes).read()
        value = "none" if words[-1].endswith("=none") else None
        assert job.config.data.label_enumerate_values == value and notes == expected, words


def _labelled(columns, folder, **flags):
    """Returns the label column of a training on a table with these columns, by a command line without `labelName`."""
    (folder / "train.csv").write_text(f"{columns}\na,b,c\n")
    words = {"modelName": "text_classify_bert", "inputTable": folder / "train.csv", "firstSequence": "text"} | flags
    return JobReader("train", [f"--{name}={value}" for name, value in words.items()], []).read().config.data.label_name


def test_a_column_called_label_is_that_of_the_labels(tmp_path, capsys):
    assert _labelled("text,label,other", tmp_path) == "label"
    assert capsys.readouterr().err.splitlines()[-1] == f"labels: the column 'label' of {tmp_path}/train.csv"
    assert _labelled("labels,text,label", tmp_path) == "label"
    assert _labelled("text,labels,other", tmp_path) == "labels"
    assert _labelled("text,label,other", tmp_path, labelName="other") == "other"
    # Not where another column may be meant, where columns are declared, or where the labels are words of the text.
    for columns, flags in (
        ("text,Label,class", {}),
        ("text,label,other", {"inputSchema": "text:str:1,label:str:1,other:str:1"}),
        ("text,label,other", {"modelName": "text_pretrain"}),
        ("text,label,other", {"inputTable": tmp_path / "none.csv"}),
    ):
        assert _labelled(columns, tmp_path, **flags) is None
