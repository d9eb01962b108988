"""Which versions are served, on folders whose loading is replaced: policies, labels, exchange, failures."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from easytransfer.errors import ConfigError, ModelError
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.repository import Repository, Target
from easytransfer.serving.sources import ModelDirectory, Policy


class Loaded(SimpleNamespace):
    __hash__ = object.__hash__

    def close(self):
        self.closed = True


def publish(model: Path, *versions: int, text: str = "good") -> None:
    for version in versions:
        (model / str(version)).mkdir(parents=True, exist_ok=True)
        (model / str(version) / "saved_model.pb").write_text(text, encoding="utf-8")


def load(name: str, version: int, folder: Path) -> Loaded:
    if (folder / "saved_model.pb").read_text() != "good":
        raise ValueError(f"damaged\nsecond line about {folder}")
    return Loaded(name=name, version=version)


def repository(path: Path) -> Repository:
    found = Repository(ModelDirectory(path), load)
    found.poll()
    return found


def states(found: Repository, name: str = "a") -> dict[int, str]:
    return {version: status.state for version, status in found.status(Target(name)).items()}


def latest(found: Repository, name: str = "a") -> int:
    with found.lease(Target(name)) as servable:
        return servable.version


def config(base: Path, text: str, name: str = "a") -> None:
    block = f'config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" {text} }}'
    (base / "models.config").write_text(f"model_config_list {{ {block} }}", encoding="utf-8")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(Policy(), {9}), (Policy(latest=2), {5, 9}), (Policy(latest=0), {1, 5, 9}),
     (Policy(specific=frozenset({1, 4})), {1})],
)  # fmt: skip
def test_policies(policy, expected):
    assert policy.wanted([9, 1, 5]) == expected


def test_a_folder_of_models_one_model_and_one_version(tmp_path):
    publish(tmp_path / "base" / "a", 1, 3)
    publish(tmp_path / "base" / "b", 2)
    publish(tmp_path / "base" / "b" / ".staging-1")
    found = repository(tmp_path / "base")
    assert found.names == ["a", "b"] and found.ready and (latest(found), latest(found, "b")) == (3, 2)
    assert states(found) == {3: "AVAILABLE"}
    assert latest(repository(tmp_path / "base" / "a")) == 3
    assert states(repository(tmp_path / "base" / "a" / "1")) == {1: "AVAILABLE"}


def test_models_config_gives_policy_and_labels_and_is_read_again(tmp_path):
    publish(tmp_path / "a", 1, 2, 3)
    publish(tmp_path / "other", 1)
    config(tmp_path, 'model_version_policy { latest { num_versions: 2 } } version_labels { key: "stable" value: 2 }')
    found = repository(tmp_path)
    assert found.names == ["a"] and states(found) == {2: "AVAILABLE", 3: "AVAILABLE"}
    with found.lease(Target("a", label="stable")) as servable:
        assert servable.version == 2
    config(tmp_path, 'model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 }')
    found.poll()
    assert states(found) == {1: "AVAILABLE", 2: "END", 3: "END"} and servable.closed
    with found.lease(Target("a", label="stable")) as servable:
        assert servable.version == 1
    # The policy is that of the file also where one model is served alone.
    assert states(repository(tmp_path / "a")) == {1: "AVAILABLE"}
    (tmp_path / "models.config").write_text("model_config_list {", encoding="utf-8")
    found.poll()
    assert latest(found) == 1
    config(tmp_path, "", name="other")
    found.poll()
    assert found.names == ["other"]
    with pytest.raises(ServingFailure):
        latest(found)


def test_the_old_version_stays_until_the_new_one_is_there_and_its_requests_are_done(tmp_path):
    publish(tmp_path / "a", 1)
    found = repository(tmp_path)
    with found.lease(Target("a")) as old:
        publish(tmp_path / "a", 2)
        found.poll()
        assert old.version == 1 and latest(found) == 2
        assert states(found) == {1: "UNLOADING", 2: "AVAILABLE"}
    assert states(found) == {1: "END", 2: "AVAILABLE"}


def test_a_version_that_does_not_load_is_reported_and_the_old_one_stays(tmp_path, capsys):
    publish(tmp_path / "a", 1)
    found = repository(tmp_path)
    publish(tmp_path / "a", 2, text="half a copy")
    found.poll()
    found.poll()
    status = found.status(Target("a"))[2]
    assert (status.state, status.error_code) == ("END", "UNKNOWN") and status.error_message == "ValueError: damaged"
    assert latest(found) == 1 and capsys.readouterr().err.count("version 2 does not load") == 1
    publish(tmp_path / "a", 2)
    found.poll()
    assert states(found) == {1: "END", 2: "AVAILABLE"}


def test_a_server_that_starts_on_a_broken_newest_version_serves_the_one_before(tmp_path):
    publish(tmp_path / "a", 1)
    publish(tmp_path / "a", 2, text="broken")
    found = repository(tmp_path)
    assert found.ready and latest(found) == 1


def test_removing_the_newest_version_goes_back_and_losing_all_changes_nothing(tmp_path):
    publish(tmp_path / "a", 1, 2)
    found = repository(tmp_path)
    (tmp_path / "a" / "2" / "saved_model.pb").unlink()
    found.poll()
    assert states(found) == {1: "AVAILABLE", 2: "END"}
    (tmp_path / "a" / "1" / "saved_model.pb").unlink()
    found.poll()
    assert latest(found) == 1


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        (Target("b"), "NOT_FOUND", "Servable not found for request: Latest(b)"),
        (Target("a", 7), "NOT_FOUND", "Servable not found for request: Specific(a, 7)"),
        (Target("a", None, "x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (Target("../a"), "NOT_FOUND", "Latest(../a)"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, target, code, message):
    publish(tmp_path / "a", 1)
    with pytest.raises(ServingFailure, match=".*") as failure, repository(tmp_path).lease(target):
        pass
    assert failure.value.code == code and message in str(failure.value)


def test_folders_that_cannot_be_served(tmp_path):
    with pytest.raises(ModelError, match="no exported model"):
        ModelDirectory(tmp_path)
    publish(tmp_path / "a", 1)
    (tmp_path / "a" / "1").rename(tmp_path / "a" / "first")
    with pytest.raises(ModelError, match="named by its number"):
        ModelDirectory(tmp_path / "a" / "first")
    (tmp_path / "models.config").write_text('model_config_list { config { name: "" } }', encoding="utf-8")
    with pytest.raises(ConfigError, match="name of its own"):
        ModelDirectory(tmp_path).sources()
