"""Run folder: what may be continued, who may write, what is recorded, what survives."""

import json
import math
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, DataError, Interrupted, ModelError, ResourceError
from easytransfer.run import environment
from easytransfer.run.atomic import atomic_path, plain, write_json
from easytransfer.run.comparison import COMPARED_WITHOUT, config_differences
from easytransfer.run.folder import RunFolder
from easytransfer.run.lock import check_space


def config(**train):
    return JobConfig(model_name="text_classify_bert", train=train).model_dump(mode="json")


def stopped_run(path, **train):
    """A run that was stopped after its first checkpoint."""
    folder = RunFolder.create(path, config(**train))
    (path / "model.ckpt-10").mkdir()
    folder.close()


def test_new_folder_has_the_resolved_configuration(tmp_path):
    with RunFolder.create(tmp_path / "a" / "run", config(learning_rate=3e-5)) as folder:
        assert not folder.resuming and folder.status == "running"
        assert folder.config["train"]["learning_rate"] == 3e-5
        assert folder.config["schema_version"] == 2
    assert RunFolder(tmp_path / "a" / "run").status == "stopped"
    assert RunFolder(tmp_path / "absent").status == "new"


def test_same_configuration_continues_and_may_be_longer(tmp_path):
    stopped_run(tmp_path, num_epochs=1)
    with RunFolder.create(tmp_path, config(num_epochs=3, log_step_count_steps=5)) as folder:
        assert folder.resuming and not folder.changed
    assert RunFolder(tmp_path).config["train"]["num_epochs"] == 3


def test_other_configuration_is_refused_by_name(tmp_path):
    stopped_run(tmp_path, learning_rate=2e-5)
    with pytest.raises(
        ConfigError, match=r"train\.learning_rate: 2e-05 -> 0\.0001.*--overwrite.*--resume=must"
    ) as caught:
        RunFolder.create(tmp_path, config(learning_rate=1e-4))
    assert caught.value.exit_code == 2
    assert RunFolder(tmp_path).config["train"]["learning_rate"] == 2e-5, "a refused run changes nothing"
    with RunFolder.create(tmp_path, config(learning_rate=1e-4), resume="must") as folder:
        assert folder.resuming and folder.changed == {"train.learning_rate": (2e-5, 1e-4)}


def table_inputs(folder, **contents):
    """Records of tables with these contents, one file each, or a folder of two."""
    for name, content in contents.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "a.tsv").write_text(content)
    return environment.input_records({name: [folder / name / "a.tsv"] for name in contents})


def test_a_changed_table_is_named_whatever_its_length(tmp_path, capsys):
    run, before = tmp_path / "run", table_inputs(tmp_path, training="a\t1\n", evaluation="b\t1\n")
    stopped_run(run)
    with RunFolder.create(run, config(), inputs=before) as folder:
        folder.write_run(environment.environment_record(inputs=before))
    for name in ("training", "evaluation"):
        contents = {"training": "a\t1\n", "evaluation": "b\t1\n", name: "c\t1\n"}
        now = table_inputs(tmp_path, **contents)
        with pytest.raises(ConfigError, match=f"the {name} table has changed since .*/{name}/a.tsv; .*--overwrite"):
            RunFolder.create(run, config(), inputs=now)
        if name == "training":
            with pytest.raises(ConfigError, match="the training table has changed"):
                RunFolder.create(run, config(), inputs=now, resume="must")
        else:
            RunFolder.create(run, config(), inputs=now, resume="must").close()
            assert "the best checkpoint so far was chosen on the earlier one" in capsys.readouterr().err
    # The same content in another place is the same table.
    moved = table_inputs(tmp_path / "moved", training="a\t1\n", evaluation="b\t1\n")
    RunFolder.create(run, config(), inputs=moved).close()
    assert RunFolder(run).plan(config(), inputs=now, overwrite=True) == "replace"


def test_folders_of_files_are_compared_by_name_and_content(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").write_bytes(b"one")
    before = environment.file_record(tmp_path)
    assert before["bytes"] == 3 and before == environment.file_record(tmp_path)
    (tmp_path / "cats" / ".hidden").write_bytes(b"x")
    assert before == environment.file_record(tmp_path)
    (tmp_path / "cats" / "1.png").write_bytes(b"two")
    changed = environment.file_record(tmp_path)
    (tmp_path / "cats" / "1.png").rename(tmp_path / "cats" / "2.png")
    assert len({record["sha256"] for record in (before, changed, environment.file_record(tmp_path))}) == 3


def test_overwrite_removes_the_old_run_and_nothing_else(tmp_path):
    stopped_run(tmp_path)
    for name in ("metrics.jsonl", "DONE", "notes.txt", "photo.png", "README.md"):
        (tmp_path / name).write_text("x")
    with RunFolder.create(tmp_path, config(learning_rate=1.0), overwrite=True) as folder:
        assert not folder.resuming
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "README.md",
        "notes.txt",
        "photo.png",
        "train_config.json",
    ]


def test_resume_never_and_must(tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"):
        RunFolder.create(tmp_path / "new", config(), resume="must")
    stopped_run(tmp_path / "old")
    with pytest.raises(ConfigError, match="holds a run already"):
        RunFolder.create(tmp_path / "old", config(), resume="never")


def test_run_without_checkpoint_is_replaced_silently(tmp_path):
    RunFolder.create(tmp_path, config(learning_rate=1.0)).close()
    with RunFolder.create(tmp_path, config()) as folder:
        assert not folder.resuming


def test_two_trainings_cannot_share_a_folder_even_across_processes(tmp_path):
    code = (
        "import sys; from easytransfer.run.folder import RunFolder\n"
        "kept = RunFolder.create(sys.argv[1], {}); print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "locked\n"
        assert RunFolder(tmp_path).status == "running"
        with pytest.raises(ResourceError, match=f"another training uses .*process {other.pid}") as caught:
            RunFolder.create(tmp_path, {})
        assert caught.value.exit_code == 5
    finally:
        other.kill()
        other.communicate()
    RunFolder.create(tmp_path, {}).close()  # a killed training leaves no lock behind


def test_refused_run_releases_the_lock(tmp_path):
    stopped_run(tmp_path)
    with pytest.raises(ConfigError):
        RunFolder.create(tmp_path, config(learning_rate=1.0))
    RunFolder.create(tmp_path, config()).close()


def test_disk_space_and_place_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(ResourceError, match=r"MB free and about 1,000,000,000 MB are needed"):
        RunFolder.create(tmp_path / "run", config(), needed_bytes=10**15)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="is a file"):
        RunFolder.create(tmp_path / "file" / "run", config())
    check_space(tmp_path / "not" / "yet" / "there", 1)


def test_read_only_place_is_a_resource_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind root, who may run the tests
    with pytest.raises(ResourceError, match="not writable"):
        RunFolder.create(tmp_path / "run", config())


def test_full_disk_while_reporting_a_failure_keeps_the_failure(tmp_path, monkeypatch, capsys):
    folder = RunFolder.create(tmp_path, config())

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("easytransfer.run.folder.write_json", full)
    folder.finish("failed", error=DataError("bad row"))
    assert "No space left on device" in capsys.readouterr().err
    with pytest.raises(OSError):
        folder.finish("done")


def test_differences_ignore_devices_and_logging_only():
    old = JobConfig().model_dump(mode="json")
    new = json.loads(json.dumps(old))
    new["distribution"]["worker_gpu"] = 4
    new["runtime"]["log_format"] = "json"
    new["export"]["max_batch_size"] = 1
    assert config_differences(old, new) == {}
    new["runtime"]["seed"] = 1
    new["data"]["sequence_length"] = 64
    assert set(config_differences(old, new)) == {"runtime.seed", "data.sequence_length"}


def test_a_setting_that_is_newer_than_the_run_counts_as_its_default(tmp_path):
    defaults = JobConfig().model_dump(mode="json")
    old = json.loads(json.dumps(defaults))
    del old["train"]["ema_decay"], old["data"]["table_memory_mb"]
    with RunFolder.create(tmp_path, old):
        (tmp_path / "model.ckpt-1").mkdir()
    with RunFolder.create(tmp_path, defaults, defaults=defaults) as folder:
        assert folder.resuming and not folder.changed
    new = json.loads(json.dumps(defaults))
    new["train"]["ema_decay"] = 0.9
    (tmp_path / "train_config.json").write_text(json.dumps(old))
    with pytest.raises(ConfigError, match="train.ema_decay"):
        RunFolder.create(tmp_path, new, defaults=defaults)


def test_another_number_of_workers_goes_on_when_it_is_allowed(tmp_path):
    """README: batch size times workers stays the same, and resume=must allows the change."""
    config = JobConfig().model_dump(mode="json")
    config["distribution"]["worker_count"], config["train"]["batch_size"] = 2, 8
    with RunFolder.create(tmp_path, config) as folder:
        (folder.path / "model.ckpt-1").mkdir()
    one = json.loads(json.dumps(config))
    one["distribution"]["worker_count"], one["train"]["batch_size"] = 1, 16
    with pytest.raises(ConfigError, match="distribution.worker_count: 2 -> 1.*--resume=must to continue it"):
        RunFolder(tmp_path).plan(one)
    assert RunFolder(tmp_path).plan(one, resume="must") == "resume"


def test_ignored_settings_exist():
    """A renamed field must not silently become one that is compared."""
    stored = JobConfig().model_dump(mode="json")
    for path in COMPARED_WITHOUT:
        value = stored
        for key in path.split("."):
            assert key in value, path
            value = value[key]


def test_finish_writes_markers_report_and_wall_time(tmp_path):
    folder = RunFolder.create(tmp_path, config())
    folder.write_run({"seed": 1})
    assert folder.read_json("run.json")["status"] == "running"
    folder.finish("done", report={"data": {}})
    assert RunFolder(tmp_path).status == "done"
    record = folder.read_json("run.json")
    assert record["status"] == "done" and record["wall_time_s"] >= 0 and record["peak_memory_mb"] > 1
    assert folder.read_json("report.json") == {"status": "done", "data": {}}


def test_a_run_says_where_its_time_went(tmp_path, monkeypatch):
    now = iter([100.0, 103.0, 105.0, 110.0, 140.0, 141.0, 141.5, 150.0, 151.0])
    # Of this module alone: the loop of a server that other tests have in this process asks the clock, too.
    clock = SimpleNamespace(**{**vars(time), "monotonic": lambda: next(now)})
    monkeypatch.setattr("easytransfer.run.folder.time", clock)
    folder = RunFolder.create(tmp_path, config())
    for part in ("tables", "training", "tables"):
        with folder.timed(part):
            pass
    folder.finish("done", report={})
    assert folder.read_json("run.json")["parts_s"] == {"tables": 2.5, "training": 30.0}
    assert folder.time_line() == "time: 51 s, of which tables 2 s, training 30 s"


def test_failure_leaves_the_trace_of_unexpected_errors_only(tmp_path):
    for error, traced in ((DataError("bad row"), False), (RuntimeError("bug"), True)):
        folder = RunFolder.create(tmp_path, config())
        try:
            raise error
        except Exception as raised:
            folder.finish("failed", error=raised)
        failed = folder.read_json("FAILED")
        assert failed["error"] == str(error) and ("trace" in failed) == traced
        assert failed["exit_code"] == (1 if traced else 3)
        assert RunFolder(tmp_path).status == "failed"
        assert folder.read_json("report.json")["failure"]["type"] == type(error).__name__


def test_interrupted_run_can_go_on_and_keeps_its_records(tmp_path):
    folder = RunFolder.create(tmp_path, config())
    (tmp_path / "model.ckpt-3").mkdir()
    folder.write_run({"seed": 1, "command": ["first"]})
    folder.finish("interrupted")
    assert RunFolder(tmp_path).status == "stopped"
    with RunFolder.create(tmp_path, config()) as again:
        again.write_run({"seed": 1, "command": ["second"]})
        record = again.read_json("run.json")
    assert record["command"] == ["second"] and record["earlier"][0]["command"] == ["first"]
    assert record["earlier"][0]["status"] == "interrupted"


def test_evaluation_file_keeps_best_and_last(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_evaluation(10, {"accuracy": 0.8}, is_best=True)
    folder.write_evaluation(20, {"accuracy": np.float32(0.75)}, is_best=False)
    stored = folder.read_json("evaluation.json")
    assert stored == {
        "best": {"step": 10, "accuracy": 0.8},
        "last": {"step": 20, "accuracy": 0.75},
    }
    folder.write_measured("best", {"accuracy": 0.9})
    assert folder.read_json("evaluation.json") == {**stored, "best": {"step": 10, "accuracy": 0.9}}


def test_labels_come_in_id_order(tmp_path):
    write_json(tmp_path / "label_mapping.json", {"b": 1, "a": 0, "体育": 2})
    assert RunFolder(tmp_path).labels == ["a", "b", "体育"]
    assert RunFolder(tmp_path / "none").labels is None


def test_folder_without_a_run_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="not a run folder"):
        _ = RunFolder(tmp_path).config
    (tmp_path / "train_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read"):
        _ = RunFolder(tmp_path).config


# Atomic files ----------------------------------------------------------------------------------------------


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"version": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert json.loads(path.read_text()) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_reader_of_the_old_file_is_not_disturbed(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, ["old"] * 1000)
    with path.open() as reader:
        write_json(path, ["new"])
        assert json.load(reader) == ["old"] * 1000, "the file was written in place"
    assert json.loads(path.read_text()) == ["new"]


def test_plain_gives_strict_json(tmp_path):
    value = {
        "a": np.float32(1.5),
        "b": np.array([1, 2]),
        "c": math.nan,
        "d": tmp_path,
        "e": {"z", "y"},
        3: np.bool_(True),
    }
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {"a": 1.5, "b": [1, 2], "c": None, "d": str(tmp_path), "e": ["y", "z"], "3": True}


# Environment -----------------------------------------------------------------------------------------------


def test_environment_record(tmp_path):
    table = tmp_path / "a.tsv"
    table.write_bytes(b"abc")
    inputs = environment.input_records({"training": [table]})
    record = environment.environment_record(seed=7, devices=["CPU:0"], inputs=inputs)
    # SHA-256 of "abc" from FIPS 180-2, appendix B.1
    assert record["inputs"][0] == {
        "table": "training",
        "path": str(table),
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert record["packages"]["numpy"] == np.__version__ and record["seed"] == 7 and record["cpus"] >= 1
    json.dumps(record, allow_nan=False)


def test_git_revision_of_a_checkout_and_of_none(tmp_path):
    assert environment.git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "f").write_text("1")
    subprocess.run([*git, "add", "f"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    clean = environment.git_revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "f").write_text("2")
    assert environment.git_revision(tmp_path) == clean + "+changes"


def test_memory_counts_what_this_process_holds():
    before = environment.memory_mb()
    block = np.ones(25_000_000)  # 200 MB
    assert 150 < environment.memory_mb() - before < 250
    assert environment.peak_memory_mb() >= environment.memory_mb() - 5
    own = "from easytransfer.run import environment; print(environment.peak_memory_mb())"
    started = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=True)
    assert float(started.stdout) < 150  # not what the program had that started it
    del block


def test_run_package_does_not_import_tensorflow():
    modules = "atomic card comparison environment folder history lock log pictures progress report"
    code = f"""
import sys
for name in "{modules}".split(): __import__("easytransfer.run." + name)
import easytransfer.losses, easytransfer.evaluators
heavy = [name for name in ("tensorflow", "matplotlib", "sklearn", "scipy", "rich") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("error", "status", "marker"),
    [(Interrupted("stopped by a signal"), "interrupted", False), (ValueError("a fault"), "failed", True)],
)
def test_an_error_that_leaves_the_block_ends_the_run(tmp_path, error, status, marker):
    with pytest.raises(type(error)), RunFolder.create(tmp_path, config()) as folder:
        raise error
    assert folder.read_json("run.json")["status"] == status
    assert (tmp_path / "FAILED").exists() == marker and not (tmp_path / "DONE").exists()
    assert folder.read_json("report.json")["failure"]["error"] == str(error)
    RunFolder.create(tmp_path, config()).close()  # the lock is free


def test_an_error_after_the_end_leaves_a_complete_run(tmp_path):
    with pytest.raises(ValueError), RunFolder.create(tmp_path, config()) as folder:
        folder.finish("done", report={"metrics": {}})
        raise ValueError("a fault")
    assert folder.status == "done" and not (tmp_path / "FAILED").exists()
