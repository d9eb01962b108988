"""What `zoo list` and `zoo show` say of models, and that the commands they name can be typed."""

import shlex

import pytest
from local_server import local_server

from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.cli.zoo import zoo, zoo_parser
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import catalogue
from modelzoo import commands


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No models of the hub but those of the test."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    commands.make_tiny(tmp_path / "zoo" / "bert" / "own-tiny")
    return tmp_path / "zoo"


def names(root, **wanted):
    return [row["name"] for row in commands.list_models(root, **wanted)]


def cached(cache, tiny_model, name, *left_out, card=""):
    commit = "0123456789" * 4
    store = cache / f"models--{name.replace('/', '--')}"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    folder = store / "snapshots" / commit
    folder.mkdir(parents=True)
    for path in tiny_model.iterdir():
        if path.name not in ("zoo.json", *left_out):
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "README.md").write_text(card)
    return folder


def test_rows_say_size_place_and_how_to_get_a_model(root):
    rows = {row["name"]: row for row in commands.list_models(root)}
    own, absent = rows["own-tiny"], rows["google-bert-base-en"]
    folder = root / "bert" / "own-tiny"
    assert (own["family"], own["folder"], own["get"]) == ("bert", str(folder), None)
    assert own["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert (absent["folder"], absent["bytes"]) == (None, 109482240 * 4)
    assert "could not be reached" in absent["get_note"]
    table = zoo(["list", "--zoo", str(root)])
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line}
    assert lines["own-tiny"][:6] == ["own-tiny", "bert", "0.0M", f"{own['bytes'] / 1e6:.1f}", "en,", "zh"]
    assert lines["own-tiny"][-1] == "yes"
    assert lines["google-bert-base-en"] == ["google-bert-base-en", "bert", "109.5M", "~438", "en", "Apache-2.0", "no?"]
    assert table.endswith("was not reached when the list was made")


def test_every_command_that_gets_a_model_can_be_typed(root):
    found = [row["get"] for row in commands.list_models(root, present=False)]
    assert len(found) > 30
    for command in found:
        program, verb, *words = shlex.split(command)
        options = zoo_parser().read(words)
        assert (program, verb, options["command"], options["offline"]) == ("easy_transfer_app", "zoo", "fetch", False)
        assert catalogue.find(options["name"])


def test_filters(root):
    everything = names(root)
    assert names(root, present=True) == [name for name in everything if name not in names(root, present=False)]
    assert "own-tiny" in names(root, present=True) and "google-bert-base-en" in names(root, present=False)
    facts = catalogue.entries()
    chinese = [name for name in everything if name not in facts or facts[name].get("language") == "zh"]
    assert chinese[-1] == "own-tiny" and names(root, language="zh") == chinese
    assert names(root, type="roberta") == [name for name in everything if "roberta" in name]
    assert set(names(root, type="bert")) == {*(name for name in facts if facts[name]["family"] == "bert"), "own-tiny"}
    assert names(root, pattern="L?-h512*EN") == [f"google-bert-L{n}-H512-A8-en" for n in (2, 4, 6, 8)]
    assert names(root, pattern="bert-base-uncased") == ["google-bert-base-en"]  # its alias
    assert "pai-bert-base-zh" in names(root, licence="not stated", language="zh")
    assert names(root, licence="gpl") == []
    for wrong, accepted in (
        ({"type": "bart"}, "bert, cnn, imagebert, roberta"),
        ({"language": "ja"}, "en, fr, multilingual, ro, zh"),
    ):
        with pytest.raises(ConfigError, match=f"no model has this .* accepted: .*{accepted}"):
            names(root, **wrong)


def test_filters_of_the_command_line(root, capsys):
    assert main(["zoo", "list", "tiny", "--present", "--type=bert", "--zoo", str(root)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", "own-tiny"]
    assert "pai-bert-tiny-zh" in zoo(["list", "tiny", "--missing", "--language=zh", "--zoo", str(root)])
    assert zoo(["list", "--licence=gpl", "--zoo", str(root)]).startswith("no model is like that")
    assert main(["zoo", "list", "--present", "--missing"]) == 2


def test_models_of_the_hub_are_listed_when_they_are_here(root, cache, tiny_model):
    card = "---\nlanguage: nl\nlicense: mit\n---\n"
    folder = cached(cache, tiny_model, "someone/tiny", card=card)
    cached(cache, tiny_model, "someone/half", "model.safetensors")
    (cached(cache, tiny_model, "other/program") / "config.json").write_text('{"model_type": "gpt2"}')
    rows = {row["name"]: row for row in commands.list_models(root) if row["name"].startswith("hf://")}
    assert set(rows) == {"hf://someone/tiny", "hf://someone/half"}
    tiny = rows["hf://someone/tiny"]
    assert (tiny["language"], tiny["licence"], tiny["folder"], tiny["lacks"]) == ("nl", "mit", str(folder), [])
    assert tiny["parameters"] == commands.show(str(tiny_model))["parameters"]
    assert rows["hf://someone/half"]["lacks"] == ["model.safetensors"]
    assert names(root, language="nl") == ["hf://someone/tiny"]
    assert "hf://someone/half" in names(root, present=False) and "hf://someone/half" not in names(root, present=True)
    lines = zoo(["list", "someone", "--zoo", str(root)]).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["part", "yes"] and "completes it" in lines[-1]
    shown = commands.show("hf://someone/tiny")
    assert (shown["name"], shown["origin"]["revision"]) == ("someone/tiny", folder.name)
    assert shown["example"].endswith("model.pretrain_model_name_or_path=hf://someone/tiny")


def test_examples_are_command_lines_that_are_read(root, tmp_path, repository, monkeypatch):
    """Those of every family that has one, for models that are here, under a path with a space, and that are not."""
    monkeypatch.chdir(repository)
    spaced = tmp_path / "a folder"
    commands.make_tiny(spaced)
    examples = [commands.show(name, root)["example"] for name in ("own-tiny", "google-bert-base-en", str(spaced))]
    families = [name for name, data in catalogue.families().items() if "example" in data]
    assert "bert" in families
    examples += [commands.example(family, "some-name") for family in families]
    for line in examples:
        program, verb, *words = shlex.split(line)
        assert (program, verb) == ("easy_transfer_app", "train")
        job = JobReader(verb, words, []).read()
        assert job.config.checkpoint_dir == "runs/mine"
    read = JobReader("train", shlex.split(examples[2])[2:], []).read().config
    assert read.model.pretrain_model_name_or_path == str(spaced)


def test_a_family_without_an_example_is_verified(tmp_path):
    commands.make_tiny(tmp_path / "net", family="cnn")
    shown = commands.show(str(tmp_path / "net"))
    assert zoo_parser().read(shlex.split(shown["example"])[2:])["command"] in ("verify", "show")


def test_show_for_people(root):
    text = zoo(["show", "own-tiny", "--zoo", str(root)])
    facts = dict(line.split(maxsplit=1) for line in text.splitlines()[1:])
    assert facts["family"] == "bert (model_type bert)" and facts["here"] == str(root / "bert" / "own-tiny")
    assert text.splitlines()[-1].startswith("  use it      easy_transfer_app train ") and "get it" not in text
    absent = zoo(["show", "hit-roberta-base-zh", "--zoo", str(root)])
    assert "  get it      easy_transfer_app zoo fetch hit-roberta-base-zh --offline=false\n" in absent
    assert "could not be reached when this list was made" in absent and "hfl/chinese-roberta-wwm-ext" in absent


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_name_that_cannot_be_fetched_any_more_says_so(tmp_path, status):
    with local_server(lambda handler: handler.send_error(status)) as address:
        with pytest.raises(ModelError) as error:
            commands.fetch("google-bert-L2-H128-A2-en", tmp_path, url=f"{address}/x.zip", offline=False)
    text = str(error.value)
    assert f"no address delivered google-bert-L2-H128-A2-en: {address}/x.zip cannot be fetched any more" in text
    assert f"HTTP {status}" in text and "to continue" not in text
    assert "hf://google/bert_uncased_L-2_H-128_A-2, " in text and "--url" in text and "zoo import" in text


def test_a_server_that_fails_now_may_be_asked_again(tmp_path):
    with local_server(lambda handler: handler.send_error(503)) as address:
        with pytest.raises(ModelError, match="download of .* failed: HTTP Error 503.*run the same command again"):
            commands.fetch("google-bert-tiny-en", tmp_path, url=f"{address}/x.zip", offline=False)
