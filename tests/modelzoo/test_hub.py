"""Models of the Hugging Face hub: names, cache, downloads and what goes wrong, against a stand-in on loopback."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hub_stand_in import hub_stand_in
from safetensors.numpy import save

from easytransfer.errors import ModelError, ResourceError
from easytransfer.presets import hub, hub_client, resolve
from easytransfer.presets.safetensors_file import read_safetensors
from modelzoo import commands
from modelzoo.hub import MOST_SMALL_BYTES, obtain
from modelzoo.loading import load_backbone, load_tokenizer

NAME, TOKEN = "someone/tiny", "hf_averysecrettokenofsomeone"
_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no token of the person who runs the tests."""
    for variable in (*_VARIABLES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def stand_in(cache, monkeypatch):
    with hub_stand_in() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture(scope="module")
def files(tiny_model):
    """A repository as they are: weights twice, a training script, a folder of another form."""
    names = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")
    found = {name: (tiny_model / name).read_bytes() for name in names}
    card = b"---\nlanguage: en\nlicense: apache-2.0\ntags:\n- bert\n---\n# A tiny model\nlicense: none\n"
    others = {"pytorch_model.bin": b"a pickle", "train.py": b"raise SystemExit", "onnx/model.onnx": b"a graph"}
    return {**found, "README.md": card, **others}


@pytest.fixture(scope="module")
def sharded(files, tiny_model):
    """The same weights in three shards."""
    tensors = read_safetensors(tiny_model / "model.safetensors")
    shards = {f"model-{part + 1:05}-of-00003.safetensors": sorted(tensors)[part::3] for part in range(3)}
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in shards.items() for name in names}}
    whole = {name: content for name, content in files.items() if name != "model.safetensors"}
    parts = {shard: save({name: tensors[name] for name in names}) for shard, names in shards.items()}
    return {**whole, **parts, "model.safetensors.index.json": json.dumps(index).encode()}


def fetch(name=f"hf://{NAME}", zoo=None):
    return commands.fetch(name, zoo, offline=False)


def stored(cache):
    """Names of files in snapshots, and of what is left of downloads."""
    return {path.name for path in cache.rglob("snapshots/*/*")}, list(cache.rglob("*.incomplete"))


# names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", hub.HubId("a/b")),
        ("a/b", hub.HubId("a/b", explicit=False)),
        ("hf://google-bert/bert-base_x.1@v1.0", hub.HubId("google-bert/bert-base_x.1", "v1.0")),
        ("a/b@refs/pr/1", hub.HubId("a/b", "refs/pr/1", explicit=False)),
        *(
            (text, None)
            for text in ("minilm-l6-en", "./a/b", "/a/b", "a/b/c", "a/../b", "~/b", "a/b@", "a b/c", "a/b.git")
        ),
        *((text, None) for text in ("a--b/c", "a/b@../../x", "a/b@x/../y", "a/b@.git", "C:\\a/b", "a/" + 100 * "b")),
    ],
)
def test_how_repositories_are_named(text, expected):
    assert hub.parse(text) == expected
    if expected:
        assert hub.parse(str(expected)) == hub.HubId(expected.id, expected.revision)


@pytest.mark.parametrize(
    "text", ["hf://", "hf://tiny", "hf:///etc/passwd", "hf://a/../b", "hf://a/b@", "hf://a/b@../x"]
)
def test_what_begins_like_one_and_is_none_is_refused(text):
    for use in (resolve, obtain, commands.fetch, load_tokenizer):
        with pytest.raises(ModelError, match=r"no model of the Hugging Face hub; got .* accepted: hf://owner/name"):
            use(text)


_CACHES = [
    {},
    {"HF_HOME": "/a"},
    {"HF_HOME": "~/a", "HUGGINGFACE_HUB_CACHE": "$HF_HOME/b"},
    {"HF_HOME": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HUB_CACHE": "~/c"},
    {"XDG_CACHE_HOME": "/x"},
]


def test_the_cache_is_where_the_client_has_it(monkeypatch):
    """Against the package itself, which reads the variables when it is imported."""
    code = "import sys, importlib, os, json\nimport huggingface_hub.constants as c\n"
    code += "for made in json.loads(sys.argv[1]):\n    [os.environ.pop(name, 0) for name in json.loads(sys.argv[2])]\n"
    code += "    os.environ.update(made)\n    print(importlib.reload(c).HF_HUB_CACHE)"
    names = [*_VARIABLES, "HF_HOME"]
    command = [sys.executable, "-c", code, json.dumps(_CACHES), json.dumps(names)]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for variables, folder in zip(_CACHES, expected, strict=True):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert str(hub.cache_folder()) == folder


# what arrives ----------------------------------------------------------------------------------------------


def test_a_model_is_fetched_once_and_only_what_can_be_used(stand_in, cache, files, tiny_model):
    commit = stand_in.add(NAME, files)
    found = fetch()
    wanted = {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt", "README.md"}
    assert stored(cache) == (wanted, [])
    assert set(found["files"]) == wanted
    assert (found["revision"], found["licence"], found["family"], found["downloaded"]) == (
        commit, "apache-2.0", "bert", True,
    )  # fmt: skip
    taken = load_backbone(f"hf://{NAME}").example_outputs()
    np.testing.assert_array_equal(taken, load_backbone(tiny_model).example_outputs())
    verified = commands.verify(f"hf://{NAME}")
    assert (verified["checksums"], verified["forward"]) == ("5 files agree", "finite")
    stand_in.asked.clear()
    again = fetch()
    assert again == {**found, "downloaded": False}
    for name in (NAME, f"hf://{NAME}", f"{NAME}@main", f"hf://{NAME}@{commit}"):
        preset = obtain(name, offline=False)
        assert preset.facts["origin"] == {"kind": "hub", "id": NAME, "revision": commit}
    assert stand_in.asked == []


def test_shards_are_fetched_by_their_index(stand_in, cache, sharded, tiny_model):
    stand_in.add(NAME, sharded)
    found = fetch()
    assert sum(name.endswith(".safetensors") for name in found["files"]) == 3
    taken = load_backbone(NAME).example_outputs()
    np.testing.assert_array_equal(taken, load_backbone(tiny_model).example_outputs())


def test_revisions_are_kept_apart(stand_in, cache, files):
    other = json.dumps(json.loads(files["config.json"]) | {"hidden_dropout_prob": 0.25}).encode()
    first, second = stand_in.add(NAME, files), stand_in.add(NAME, {**files, "config.json": other}, "refs/pr/1")
    assert fetch()["revision"] == first
    with pytest.raises(ModelError, match=r"hf://someone/tiny@refs/pr/1 has not been downloaded"):
        resolve(f"hf://{NAME}@refs/pr/1")
    assert fetch(f"hf://{NAME}@refs/pr/1")["revision"] == second
    assert fetch(f"hf://{NAME}@{second}")["downloaded"] is False
    rates = [json.loads((resolve(name).folder / "config.json").read_text())["hidden_dropout_prob"]
             for name in (NAME, f"{NAME}@refs/pr/1")]  # fmt: skip
    assert rates == [json.loads(files["config.json"])["hidden_dropout_prob"], 0.25]


def test_a_broken_connection_goes_on_where_it_was(stand_in, cache, files, monkeypatch, caplog):
    stand_in.add(NAME, files)
    stand_in.cut = 2
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 10)  # what had arrived up to such a piece
    fetch()
    size = len(files["model.safetensors"])
    ranges = [
        int((headers.get("Range") or "bytes=0-")[6:-1])
        for method, path, headers in stand_in.asked
        if method == "GET" and "Signature" in path
    ]
    half = size // 2 >> 10 << 10
    assert ranges == [0, half, half + ((size - half) // 2 >> 10 << 10)]
    assert (resolve(NAME).folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert "Trying to resume download" in caplog.text and "very-secret" not in caplog.text


def test_a_killed_download_is_no_model_and_is_completed_with_what_had_arrived(stand_in, cache, sharded):
    stand_in.add(NAME, sharded)
    first, second, last = (f"model-{part:05}-of-00003.safetensors" for part in (1, 2, 3))
    stand_in.stalled.add(last)
    code = "import sys; from appzoo.cli.main import zoo; sys.exit(zoo())"
    command = [sys.executable, "-c", code, "fetch", f"hf://{NAME}", "--offline=false"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not any(last in path for path in stand_in.paths("GET")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert {first, second} <= stored(cache)[0] and last not in stored(cache)[0]
    with pytest.raises(ModelError, match="has not been downloaded"):
        resolve(f"hf://{NAME}")
    stand_in.stalled.clear()
    stand_in.asked.clear()
    assert fetch()["downloaded"]
    assert [path.split("/")[-1].split("?")[0] for path in stand_in.paths("GET") if "Signature" in path] == [last]


def test_a_shard_that_never_comes_leaves_the_others(stand_in, cache, sharded):
    stand_in.add(NAME, sharded)
    stand_in.wrong.add("model-00002-of-00003.safetensors")
    with pytest.raises(ModelError, match=r"model-00002-of-00003.safetensors of hf://someone/tiny arrived with another"):
        fetch()
    assert "model-00002-of-00003.safetensors" not in stored(cache)[0]
    assert "model-00001-of-00003.safetensors" in stored(cache)[0]
    for name in (NAME, f"hf://{NAME}"):
        with pytest.raises(ModelError, match="zoo fetch hf://someone/tiny --offline=false"):
            obtain(name)
    stand_in.wrong.clear()
    stand_in.asked.clear()
    assert fetch()["downloaded"]
    assert not [path for path in stand_in.paths("GET") if "model-00001" in path]
    assert [path for path in stand_in.paths("GET") if "model-00002" in path]


def test_a_named_commit_that_is_not_whole_is_completed_before_it_is_used(stand_in, cache, files):
    name = f"hf://{NAME}@{stand_in.add(NAME, files)}"
    stand_in.wrong.add("model.safetensors")
    with pytest.raises(ModelError, match="another checksum"):
        fetch(name)
    stand_in.wrong.clear()
    assert hub.absent_weights(resolve(name).folder) == ["model.safetensors"]
    with pytest.raises(ModelError, match="switched off"):
        commands.fetch(name)
    assert hub.absent_weights(obtain(name, offline=False).folder) == []


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_other_contents_and_other_lengths_are_refused(stand_in, cache, files, file):
    stand_in.add(NAME, files)
    stand_in.wrong.add(file)
    with pytest.raises(ModelError, match=f"{file} of hf://someone/tiny arrived with another checksum.*was deleted"):
        fetch()
    assert file not in stored(cache)[0]
    stand_in.wrong.clear()
    stand_in.longer.add(file)
    with pytest.raises(
        ModelError, match=f"{file} is longer than the hub had said; accepted: {len(files[file]):,} bytes"
    ):
        fetch()
    assert (file in stored(cache)[0], stored(cache)[1]) == (False, [])
    assert not any(file in path.name or path.stat().st_size == len(files[file]) for path in cache.rglob("blobs/*"))


def test_bytes_of_the_clients_other_way_of_transfer_are_counted_once():
    """Xet, which no stand-in speaks: what its reporter calls is what our line counts and bounds."""
    import huggingface_hub
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    seen = []
    bar = hub_client._bar(huggingface_hub, hub_client.RemoteFile("a", 100, "0" * 64), seen.append)
    with XetDownloadProgressReporter(
        reconstruction_desc="a", total=100, log_level=20, name="x", tqdm_class=bar
    ) as reporter:
        for done in (30, 100, 130):
            report = SimpleNamespace(
                total_bytes=100,
                total_bytes_completed=done,
                total_transfer_bytes_completed=done // 2,
                total_bytes_completion_rate=1.0,
                total_transfer_bytes_completion_rate=1.0,
            )
            if done <= 100:
                reporter.update_progress(report)
                continue
            with pytest.raises(ModelError, match="a is longer than the hub had said"):
                reporter.update_progress(report)
    assert seen == [30, 100]


def test_verify_finds_a_byte_that_was_changed_in_the_cache(stand_in, cache, files):
    stand_in.add(NAME, files)
    fetch()
    for file in ("vocab.txt", "model.safetensors"):  # one of each kind of checksum
        path = resolve(NAME).folder / file
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ModelError, match=f"recorded checksums: {file} has .*, the hub had"):
            commands.verify(NAME)
        path.write_bytes(whole)


# what is refused -------------------------------------------------------------------------------------------


def test_a_known_name_that_lies_on_the_hub(stand_in, cache, tmp_path):
    for call in (lambda: resolve("roberta-base", tmp_path), lambda: obtain("FacebookAI/roberta-base", tmp_path)):
        with pytest.raises(ModelError, match="known but not on this machine; get it with .* zoo fetch roberta-base"):
            call()
    commands.make_tiny(tmp_path / "made", "roberta")
    paths = [path for path in (tmp_path / "made").iterdir() if path.name != "zoo.json"]
    stand_in.add("FacebookAI/roberta-base", {path.name: path.read_bytes() for path in paths})
    with pytest.raises(ModelError, match="needs the network"):
        commands.fetch("roberta-base", tmp_path)
    preset = obtain("facebookai/roberta-base", tmp_path, offline=False)
    assert (preset.name, preset.facts["licence"]) == ("roberta-base", "MIT")
    assert preset.facts["origin"]["revision"] == preset.folder.name
    assert not fetch("roberta-base", tmp_path)["downloaded"]
    for name in ("roberta-base", "FacebookAI/roberta-base"):
        assert resolve(name, tmp_path).folder == preset.folder
        assert commands.verify(name, tmp_path)["forward"] == "finite"
    row = next(row for row in commands.list_models(tmp_path) if row["name"] == "roberta-base")
    assert row["folder"] == str(preset.folder) and row["get"] is None
    # A copy in the zoo comes first.
    commands.make_tiny(tmp_path / "roberta" / "roberta-base", "roberta")
    assert resolve("roberta-base", tmp_path).folder == tmp_path / "roberta" / "roberta-base"


def without(files, *names, **others):
    return {name: content for name, content in files.items() if name not in names} | others


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: without(f, "model.safetensors"), r"can run code of strangers.*got 'pytorch_model.bin'.*@refs/pr/1"),
        (lambda f: without(f, "model.safetensors", "pytorch_model.bin"), r"has no weights; got 'README.md, config"),
        (
            lambda f: without(f, "config.json"),
            r"is no model: it has no config.json; .*bert \(model_type bert, roberta\)",
        ),
        (
            lambda f: {**f, "config.json": b'{"model_type": "gpt2"}'},
            r"no family.*got 'gpt2'; accepted: albert, .*t5",
        ),
        (
            lambda f: {**f, "config.json": b'{"architecture": "resnet18"}'},
            r"of no family.*models of albert \(.*bert",
        ),
        (lambda f: {**f, "config.json": b"{"}, r"of no family.*not readable JSON"),
    ],
    ids=["pickles", "no_weights", "no_config", "gpt2", "timm", "damaged"],
)
def test_what_cannot_be_used_is_refused_before_weights_are_fetched(stand_in, cache, files, change, message):
    stand_in.add(NAME, change(files))
    with pytest.raises(ModelError, match=message):
        fetch()
    assert not any("safetensors" in path or ".bin" in path for path in stand_in.paths("GET"))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../../../../.bashrc"}, "weight_map of file names; got '../../../../.bashrc'"),
        ({"a": "pytorch_model.bin"}, "does not fit the repository; got 'pytorch_model.bin'"),
        ({"a": "lost.safetensors"}, "does not fit the repository; got 'lost.safetensors'"),
        ({}, "does not fit the repository; got '0 shards'"),
        ([], "weight_map of file names"),
    ],
)
def test_an_index_names_shards_of_the_repository(stand_in, cache, sharded, weight_map, message):
    index = json.dumps({"weight_map": weight_map}).encode()
    stand_in.add(NAME, {**sharded, "model.safetensors.index.json": index})
    with pytest.raises(ModelError, match=message):
        fetch()


def test_sizes_are_bounded_before_anything_is_fetched(stand_in, cache, files, monkeypatch):
    stand_in.add(NAME, files)
    listing = __import__("hub_stand_in")._facts
    huge = {"vocab.txt": MOST_SMALL_BYTES, "model.safetensors": 30 << 30}
    monkeypatch.setattr(
        "hub_stand_in._facts", lambda file, content: {**listing(file, content), "size": huge.get(file, len(content))}
    )
    with pytest.raises(ModelError, match=r"larger than of any model.*bytes'; accepted: at most 209,715,200 bytes"):
        fetch()
    assert stand_in.paths("HEAD") == []
    del huge["vocab.txt"]
    with pytest.raises(ModelError, match="model.safetensors of hf://someone/tiny are larger"):
        fetch()
    huge["model.safetensors"] = 10 << 30
    monkeypatch.setattr(hub_client.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9 << 30}))
    with pytest.raises(ResourceError, match=r"has no room for the model; got '9,663,676,416 bytes free'"):
        fetch()
    assert "model.safetensors" not in stored(cache)[0]
    monkeypatch.setattr("hub_stand_in._facts", lambda file, content: {"size": len(content)})
    with pytest.raises(ModelError, match="does not say size and checksum of config.json"):
        fetch()


def test_gated_private_and_missing_repositories(stand_in, cache, files, monkeypatch):
    stand_in.add(NAME, files)
    stand_in.add("someone/hidden", files)
    stand_in.gated, stand_in.private, stand_in.tokens = {NAME}, {"someone/hidden"}, {TOKEN}
    for token in (None, "hf_another"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(
            ModelError, match=f"hf://someone/tiny is gated.*{stand_in.address}/someone/tiny.*HF_TOKEN"
        ) as e:
            fetch()
        assert "hf_another" not in str(e.value)
        for name in ("someone/hidden", "someone/nothing"):
            with pytest.raises(ModelError, match=f"no repository {name} at http.*or it is private.*HF_TOKEN"):
                fetch(f"hf://{name}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch()["downloaded"] and fetch("hf://someone/hidden")["downloaded"]
    with pytest.raises(ModelError, match=r"someone/tiny has no revision v2; .*/someone/tiny/tree/main lists"):
        fetch(f"hf://{NAME}@v2")
    with pytest.raises(ModelError, match="has no revision 0123456789"):
        fetch(f"hf://{NAME}@{'0123456789' * 4}")


def test_the_token_goes_to_the_hub_alone_and_into_no_message(stand_in, cache, files, monkeypatch, capfd):
    stand_in.add(NAME, files)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    stand_in.wrong.add("model.safetensors")
    with pytest.raises(ModelError) as first:
        fetch()
    stand_in.wrong.clear()
    found = fetch()
    large = [headers for _, path, headers in stand_in.asked if "Signature" in path]
    others = [headers for _, path, headers in stand_in.asked if "Signature" not in path]
    assert large and not any("authorization" in map(str.lower, headers) for headers in large)
    assert others and all(headers.get("authorization") == f"Bearer {TOKEN}" for headers in others)
    stand_in.refuse = 503
    with pytest.raises(ModelError) as last:
        fetch("hf://someone/other")
    out = capfd.readouterr()
    told = f"{first.value} {last.value} {json.dumps(found)} {out.out} {out.err}"
    assert TOKEN not in told and "very-secret" not in told and "someone/tiny" in told


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "not valid any more"), (403, "not valid"), (429, "HTTP 429"), (500, "HTTP 500.*again")],
)
def test_other_answers_of_the_hub(stand_in, cache, status, message):
    stand_in.refuse = status
    stand_in.files[NAME] = {}
    with pytest.raises(ModelError, match=f"{message}|or it is private"):
        fetch()


def test_no_hub_at_all(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="download of hf://someone/tiny failed: .*refused.*same command again"):
        fetch()
    for address, message in (
        ("ftp://hub", "http or https"),
        ("http://169.254.169.254", "link-local"),
        ("https://me:word@hub", "password"),
    ):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(ModelError, match=message) as error:
            fetch()
        assert "word@" not in str(error.value)


# when the network is used ----------------------------------------------------------------------------------


def test_nothing_is_asked_offline(stand_in, cache, files, monkeypatch):
    stand_in.add(NAME, files)
    for name in (NAME, f"hf://{NAME}"):
        with pytest.raises(ModelError, match=f"zoo fetch hf://{NAME} --offline=false"):
            obtain(name)
        with pytest.raises(ModelError, match=f"zoo fetch hf://{NAME} --offline=false"):
            load_backbone(name)
        with pytest.raises(ModelError, match=r"switched off \(offline\); allow it with --offline=false"):
            commands.fetch(name)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            for use in (fetch, lambda: obtain(NAME, offline=False)):
                with pytest.raises(ModelError, match=f"which {variable} switches off; .*unset {variable}"):
                    use()
    assert stand_in.asked == []
    assert obtain(NAME, offline=False).folder == hub.snapshot(hub.HubId(NAME))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stand_in.asked.clear()
    assert obtain(NAME).name == obtain(NAME, offline=False).name == NAME
    assert stand_in.asked == []


def test_without_the_package_the_message_names_the_extra(stand_in, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="huggingface_hub, which is not installed; install it with: pip install .*hub"):
        fetch()


def test_folders_and_names_of_the_zoo_come_first_and_it_is_told(
    stand_in, cache, files, tiny_model, tmp_path, monkeypatch, capfd
):
    stand_in.add(NAME, files)
    alias = "google/bert_uncased_L-2_H-128_A-2"
    stand_in.add(alias, files)
    monkeypatch.chdir(tmp_path)
    commands.make_tiny(NAME, seed=5)
    with pytest.raises(ModelError, match=f"{NAME} is the folder {NAME}: nothing to fetch; .*hf://{NAME}"):
        fetch(NAME)
    assert obtain(NAME, offline=False).folder.resolve() == tmp_path / NAME
    with pytest.raises(
        ModelError, match=r"google-bert-L2-H128-A2-en is known but .*hf://google/bert_uncased_L-2_H-128"
    ):
        obtain(alias, tmp_path, offline=False)
    with pytest.raises(ModelError, match="fetching google-bert-L2-H128-A2-en needs the network"):
        commands.fetch(alias, tmp_path)
    assert stand_in.asked == []
    assert f"hf://{alias} is the model of the Hugging Face hub" in capfd.readouterr().err
    fetch()
    assert obtain(NAME).folder.resolve() == tmp_path / NAME
    assert f"{NAME} is taken for {NAME}; hf://{NAME} is" in capfd.readouterr().err
    assert obtain(f"hf://{NAME}").folder == hub.snapshot(hub.HubId(NAME))
    with pytest.raises(ModelError, match="leave out --url and --sha256"):
        commands.fetch(f"hf://{NAME}", sha256="0" * 64, offline=False)
