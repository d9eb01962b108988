"""list, show, verify, make-tiny, and fetch against a server on the loopback address."""

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest
from local_server import local_server

from easytransfer.errors import ModelError
from easytransfer.presets import catalogue, resolve
from modelzoo import commands
from modelzoo.albert.convert import ALBERT
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.cnn.names import named
from modelzoo.cnn.profile import profile
from modelzoo.imagebert.convert import IMAGEBERT
from modelzoo.loading import load_backbone, load_tokenizer
from modelzoo.roberta.convert import ROBERTA as FAMILY
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import weight_table
from modelzoo.videobert.convert import VIDEOBERT
from modelzoo.xlnet.convert import XLNET

SPEC_NAMES = [
    *(f"google-bert-{rest}" for rest in ("tiny-en", "small-en", "base-zh", "base-en", "large-en")),
    *(f"pai-bert-{rest}" for rest in ("tiny-zh", "tiny-zh-L2-H768-A12", "small-zh", "base-zh", "large-zh")),
    *(f"google-bert-L{n}-H{h}-A{h // 64}-en" for n in (2, 4, 6, 8, 10, 12) for h in (128, 256, 512, 768)),
]
ROBERTA = ["hit-roberta-base-zh", "hit-roberta-large-zh", "brightmart-roberta-small-zh", "brightmart-roberta-large-zh"]

IMAGES = ["efficientnet-lite0"]
HUB_ROBERTA = {"roberta-base": 124645632, "roberta-large": 355359744, "distilroberta-base": 82118400}
HUB_ROBERTA |= {"xlm-roberta-base": 278043648, "xlm-roberta-large": 559890432}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "tiny"
    commands.make_tiny(folder)
    return folder


ALBERT_NAMES = [
    f"{owner}-albert-{size}-{language}"
    for owner in ("google", "pai")
    for size in ("base", "large", "xlarge", "xxlarge")
    for language in ("zh", "en")
]


XLNET_NAMES = ["xlnet-base-cased", "xlnet-large-cased"]
REGION_NAMES = {"icbu-imagebert-small-en", "pai-imagebert-base-en", "pai-imagebert-base-zh", "pai-videobert-base-zh"}


def test_the_34_bert_names_albert_and_roberta_are_known(tmp_path):
    rows = {row["name"]: row for row in commands.list_models(tmp_path)}
    assert len(SPEC_NAMES) == 34
    known = {"minilm-l6-en", *SPEC_NAMES, *ROBERTA, *IMAGES, *ALBERT_NAMES, *XLNET_NAMES, *HUB_ROBERTA}
    known |= REGION_NAMES
    others = set(rows) - known
    # Networks of Keras, of timm, and T5s.
    assert known <= set(rows) and {rows[name]["family"] for name in others} == {"cnn", "t5"}
    assert sorted(Counter(name.split("-")[0] for name in others).items()) == [
        *(("flan", 3), ("keras", 71), ("t5", 3), ("timm", 6))
    ]
    # As transformers counts them.
    assert {name: rows[name]["parameters"] for name in HUB_ROBERTA} == HUB_ROBERTA
    large = rows["google-bert-large-en"]
    assert (large["layers"], large["hidden"], large["heads"], large["parameters"]) == (24, 1024, 16, 335141888)
    # Published: 109,482,240 parameters for bert-base-uncased and 4,385,920 for BERT-tiny, pooler included.
    assert rows["google-bert-base-en"]["parameters"] == 109482240
    assert rows["google-bert-L2-H128-A2-en"]["parameters"] == 4385920
    # As transformers counts the published albert-base, large, xlarge and xxlarge, the pooler included.
    counts = [rows[f"google-albert-{size}-en"]["parameters"] for size in ("base", "large", "xlarge", "xxlarge")]
    assert counts == [11683584, 17683968, 58724864, 222595584]
    # Published for xlnet-base-cased with a classifier of two labels, which has 768 * 2 + 2 weights: 117,310,466.
    assert rows["xlnet-base-cased"]["parameters"] == 117310466 - (768 * 2 + 2)


# Width of the feed-forward parts; FLAN's are those of version 1.1: gated, with an output matrix of its own.
FAMILIES = {family.name: family for family in (ALBERT, BERT, FAMILY, IMAGEBERT, VIDEOBERT, XLNET)}
T5_WIDTHS = {"t5": {6: 2048, 12: 3072, 24: 4096}, "flan": {8: 1024, 12: 2048, 24: 2816}}


def t5_config(facts):
    kind = facts["name"].split("-")[0]
    changes = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind == "flan" else {}
    return T5Config.from_dict({
        "vocab_size": facts["vocab"], "d_model": facts["hidden"], "d_kv": 64, "num_layers": facts["layers"],
        "d_ff": T5_WIDTHS[kind][facts["layers"]], "num_heads": facts["heads"], **changes,
    })  # fmt: skip


def test_facts_are_complete_and_sizes_computed():
    aliases = []
    for name, facts in catalogue.entries().items():
        if name.startswith("keras-"):
            assert facts["origin"]["kind"] == "file"  # counted against the library: test_keras_applications.py
        elif facts["family"] == "t5":
            table = weight_table(t5_config(facts))
            assert facts["parameters"] == sum(int(np.prod(row.shape)) for row in table), name
        elif facts["family"] == "cnn":
            counted = profile(named(facts["network"]), facts["classes"])
            assert facts["parameters"] == counted.parameters + counted.statistics, name
            assert set(facts["input"]) == {"image_size", "channels", "channel_mean", "channel_std", "resize_mode"}
        else:
            family = FAMILIES[facts["family"]]
            config = family.config_class(
                vocab_size=facts["vocab"],
                hidden_size=facts["hidden"],
                num_hidden_layers=facts["layers"],
                num_attention_heads=facts["heads"],
                intermediate_size=facts["intermediate"],
            )
            assert facts["parameters"] == family.parameter_count(config), name
            cased = facts["family"] in ("roberta", "xlnet")
            language = ("multilingual",) if facts["type"] == "xlm-roberta" else ("en", "zh")
            assert facts["language"] in language and facts["lower_case"] is not cased
        # Neither Keras nor the names of timm's repositories state one; the hub does when a model is fetched.
        assert facts["licence"] or name.split("-")[0] in ("keras", "timm")
        assert facts["sha256"] or facts["sha256_reason"]
        aliases += [name.lower(), *(alias.lower() for alias in facts["aliases"])]
    assert len(aliases) == len(set(aliases))


def test_listing_showing_and_making_import_no_tensorflow(tmp_path):
    code = (
        "import sys; from modelzoo import commands as c; c.list_models(); c.show('google-bert-base-en');"
        f"c.make_tiny({str(tmp_path / 'tiny')!r}); c.show({str(tmp_path / 'tiny')!r});"
        f"c.make_tiny({str(tmp_path / 'albert')!r}, 'albert'); c.show({str(tmp_path / 'albert')!r});"
        f"c.make_tiny({str(tmp_path / 'xlnet')!r}, 'xlnet'); c.show({str(tmp_path / 'xlnet')!r});"
        f"c.make_tiny({str(tmp_path / 'lxmert')!r}, 'lxmert'); c.show({str(tmp_path / 'lxmert')!r});"
        f"c.make_tiny({str(tmp_path / 'imagebert')!r}, 'imagebert'); c.show({str(tmp_path / 'imagebert')!r});"
        f"c.make_tiny({str(tmp_path / 'roberta')!r}, 'roberta'); c.show({str(tmp_path / 'roberta')!r});"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_show(tiny):
    shown = commands.show(str(tiny))
    assert shown["parameters"] == BERT.parameter_count(BertConfig.from_folder(tiny))
    assert {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "zoo.json"} == set(shown["files"])
    assert commands.show("bert-tiny", tiny.parent)["folder"] is None
    with pytest.raises(ModelError, match="did you mean google-bert-base-en"):
        commands.show("google-bert-bse-en")


def test_zoo_folder_is_listed_and_resolved(tiny, tmp_path):
    commands.make_tiny(tmp_path / "bert" / "my-tiny")
    rows = {row["name"]: row for row in commands.list_models(tmp_path)}
    assert rows["my-tiny"]["folder"] == str(tmp_path / "bert" / "my-tiny")
    assert load_backbone("my-tiny", zoo=tmp_path).config.num_hidden_layers == 2


def test_make_tiny_is_seeded_and_usable(tiny, tmp_path):
    commands.make_tiny(tmp_path / "same")
    commands.make_tiny(tmp_path / "other", seed=1)
    files = [(folder / "model.safetensors").read_bytes() for folder in (tiny, tmp_path / "same", tmp_path / "other")]
    assert files[0] == files[1] != files[2]
    tokenizer = load_tokenizer(tiny)
    assert tokenizer.tokenize("The movie was GOOD, 42!") == ["the", "movie", "was", "good", ",", "4", "##2", "!"]
    assert tokenizer.tokenize("我们好") == ["我", "们", "好"]
    ids = tokenizer.encode(["a good film"], ["not bad"], max_length=16)
    batch = {"input_ids": ids.input_ids.values[None], "segment_ids": ids.segment_ids.values[None]}
    batch["input_mask"] = np.ones_like(batch["input_ids"])
    assert load_backbone(tiny)(batch)["pooled_output"].shape == (1, 32)
    with pytest.raises(ModelError, match="got 'bart'; accepted: albert, bert"):
        commands.make_tiny(tmp_path / "x", family="bart")
    with pytest.raises(ModelError, match=r"special tokens"):
        commands.make_tiny(tmp_path / "x", vocab=["a"])


def test_verify_finds_a_changed_byte(tmp_path):
    commands.make_tiny(tmp_path / "a")
    assert commands.verify(str(tmp_path / "a"))["checksums"] == "4 files agree"
    path = tmp_path / "a" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ModelError, match="model.safetensors has SHA-256.*`easy_transfer_app zoo import .*a NEW_FOLDER`"
    ):
        commands.verify(str(tmp_path / "a"))


def test_every_known_name_that_is_absent_says_where_it_belongs(tmp_path):
    for name in [*SPEC_NAMES, *ROBERTA]:
        for read in (lambda name: load_backbone(name, zoo=tmp_path), lambda name: commands.verify(name, tmp_path)):
            with pytest.raises(ModelError) as error:
                read(name)
            place = tmp_path / ("roberta" if name in ROBERTA else "bert") / name
            assert f"model {name} is known but not on this machine; put it into {place}," in str(error.value)
            assert f"`easy_transfer_app zoo fetch {name}`" in str(error.value) and error.value.exit_code == 4


def test_the_chinese_roberta_names_are_found_as_the_original_has_them(tiny, tmp_path):
    """TensorFlow checkpoints, a vocabulary of WordPiece and `"model_type": "roberta"`."""
    for name in ROBERTA:
        folder = tmp_path / "roberta" / name
        commands.export_model(tiny, folder, "ez")
        config = json.loads((folder / "config.json").read_text()) | {"model_type": "roberta"}
        config.pop("architectures")  # The original's files have none.
        (folder / "config.json").write_text(json.dumps(config))
    assert load_backbone(ROBERTA[0], zoo=tmp_path).config.model_type == "bert"
    assert commands.verify(ROBERTA[1], tmp_path)["forward"] == "finite"


def test_verify_finds_values_that_are_not_finite(tmp_path):
    from safetensors.numpy import load_file, save_file

    commands.make_tiny(tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    tensors["bert.pooler.dense.bias"] = tensors["bert.pooler.dense.bias"] + np.float32("nan")
    save_file(tensors, tmp_path / "a" / "model.safetensors")
    (tmp_path / "a" / "zoo.json").unlink()
    with pytest.raises(ModelError, match="not finite"):
        commands.verify(str(tmp_path / "a"))


def test_verify_minilm():
    try:
        resolve("minilm")
    except ModelError as error:
        pytest.skip(str(error))
    result = commands.verify("minilm")
    assert (result["checksums"], result["weights"], result["parameters"]) == ("2 files agree", 103, 22713216)


# fetch -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(content, *, cut=None, ranges=True):
    """Serves `content` at every path; the first `cut` answers stop after half of the bytes they promise."""
    requests, left = [], [cut or 0]
    tag = f'"{hashlib.md5(content).hexdigest()}"'

    def get(handler):
        requests.append(dict(handler.headers))
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges else 0
        if start and handler.headers.get("If-Range") != tag:
            start = 0
        body = content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", tag)
        handler.end_headers()
        if left[0]:
            left[0] -= 1
            body = body[: len(body) // 2]
        handler.wfile.write(body)

    with local_server(get) as address:
        yield f"{address}/google-bert-tiny-en.zip", requests


@pytest.fixture(scope="module")
def archives(tiny, tmp_path_factory):
    """The tiny model in Google's form as zip and in EasyTransfer's form as tgz."""
    made = tmp_path_factory.mktemp("archives")
    commands.export_model(tiny, made / "google", "google")
    commands.export_model(tiny, made / "ez", "ez")
    as_zip, as_tgz = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(as_zip, "w") as writer:
        for path in (made / "google").iterdir():
            writer.write(path, f"uncased_L-2/{path.name}")
    with tarfile.open(fileobj=as_tgz, mode="w:gz") as writer:
        writer.add(made / "ez", "google-bert-tiny-en")
    return {"zip": as_zip.getvalue(), "tgz": as_tgz.getvalue()}


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_fetch_installs_the_archive(archives, tiny, tmp_path, kind):
    with server(archives[kind]) as (url, _):
        digest = hashlib.sha256(archives[kind]).hexdigest()
        result = commands.fetch("google-bert-tiny-en", tmp_path, url=url, sha256=digest, offline=False)
    folder = tmp_path / "bert" / "google-bert-tiny-en"
    assert result["checksum_known"] and result["sha256"] == digest
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    manifest = json.loads((folder / "zoo.json").read_text())
    assert manifest["origin"] == {"kind": "download", "url": url, "sha256": digest}
    assert manifest["licence"] == "Apache-2.0"
    assert resolve("google-bert-tiny-en", tmp_path).folder == folder
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".part", ".zip", ".tgz")] == []
    with pytest.raises(ModelError, match="already exists"):
        commands.fetch("google-bert-tiny-en", tmp_path, url=url, offline=False)


def test_fetch_resumes_where_it_stopped(archives, tmp_path):
    content = archives["zip"]
    with server(content, cut=1) as (url, requests):
        with pytest.raises(ModelError, match=f"{len(content) // 2} of {len(content)} bytes.*again to continue"):
            commands.fetch("google-bert-tiny-en", tmp_path, url=url, offline=False)
        assert not (tmp_path / "bert").exists()
        commands.fetch("google-bert-tiny-en", tmp_path, url=url, offline=False)
    assert requests[1]["Range"] == f"bytes={len(content) // 2}-"
    assert (tmp_path / "bert" / "google-bert-tiny-en" / "model.safetensors").is_file()


def test_fetch_starts_over_when_the_server_cannot_resume(archives, tmp_path):
    with server(archives["zip"], cut=1, ranges=False) as (url, _):
        with pytest.raises(ModelError, match="again to continue"):
            commands.fetch("google-bert-tiny-en", tmp_path, url=url, offline=False)
        commands.fetch("google-bert-tiny-en", tmp_path, url=url, offline=False)
    assert commands.verify("google-bert-tiny-en", tmp_path)["forward"] == "finite"


def test_fetch_uses_the_next_mirror(archives, tmp_path):
    with server(archives["zip"]) as (url, _):
        mirrors = ["http://127.0.0.1:9/nothing.zip", url]
        result = commands.fetch("google-bert-tiny-en", tmp_path, url=mirrors, offline=False)
    assert result["source"] == url
    assert result["checksum_known"] is False


def test_fetch_deletes_a_file_with_the_wrong_checksum(archives, tmp_path):
    with server(archives["zip"]) as (url, _):
        with pytest.raises(ModelError, match="another checksum"):
            commands.fetch("google-bert-tiny-en", tmp_path, url=url, sha256="0" * 64, offline=False)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_fetch_never_runs_offline_and_knows_its_names(tmp_path):
    with server(b"") as (url, requests):
        with pytest.raises(ModelError, match="switched off"):
            commands.fetch("google-bert-tiny-en", tmp_path, url=url)
        assert requests == []
    with pytest.raises(ModelError, match="did you mean google-bert-tiny-en"):
        commands.fetch("google-bert-tny-en", tmp_path, offline=False)
    with pytest.raises(ModelError, match="minilm-l6-en needs the network, which is switched off"):
        commands.fetch("minilm", tmp_path)


def _zip(name, content=b"x"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        writer.writestr(name, content)
    return stream.getvalue()


def _tar(name, kind=tarfile.REGTYPE, link=""):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as writer:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        writer.addfile(member)
    return stream.getvalue()


def _zip_link():
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    return _zip(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_zip("../evil"), "outside its folder"),
        (_zip("/tmp/evil"), "outside its folder"),
        (_tar("a/../../evil"), "outside its folder"),
        (_zip_link(), "holds a link"),
        (_tar("link", tarfile.SYMTYPE, "/etc/passwd"), "other than a plain file"),
        (_tar("link", tarfile.LNKTYPE, "a"), "other than a plain file"),
        (b"not an archive", "is not an archive"),
        (_zip("readme.txt"), "holds no model folder"),
        (_zip("a/config.json", b"{}"), "no weights|does not describe"),
    ],
    # The archives hold the time they were made at, which no test may be named by.
    ids=["up", "absolute", "up_in_tar", "link", "link_in_tar", "hard_link", "no_archive", "no_model", "no_weights"],
)
def test_fetch_refuses_unsafe_and_empty_archives(tmp_path, content, message):
    with server(content) as (url, _):
        with pytest.raises(ModelError, match=message):
            commands.fetch("google-bert-tiny-en", tmp_path / "zoo", url=url, offline=False)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert "evil" not in left and not any("link" == name for name in left)
    assert not (tmp_path / "zoo" / "bert").exists()
