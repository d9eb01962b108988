"""Model folders and checkpoints made to deceive: nothing is executed, nothing outside is read or copied."""

import json
import pickle
import struct

import numpy as np
import pytest

from easytransfer.data.table import open_table
from easytransfer.errors import DataError, ModelError
from easytransfer.export.saved_model import _check_request
from easytransfer.presets import resolve
from easytransfer.presets.folder import own_file, read_json
from easytransfer.presets.safetensors_file import INDEX, read_safetensors, read_safetensors_folder
from easytransfer.train import checkpoint
from modelzoo.bert.config import BertConfig
from modelzoo.bert.formats import detect_form


class Bomb:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


# Safetensors ------------------------------------------------------------------------------------------------


def tensors(head, body=b"", length=None):
    """A file with any header: a JSON text or bytes, and any claim of its length."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "empty": b"",
    "header_of_exabytes": tensors({}, length=2**63),
    "header_of_gigabytes": tensors({}, length=2**31),
    "header_longer_than_the_file": tensors({}, length=1000),
    "no_json": tensors(b"{" * 100),
    "deep_json": tensors(b"[" * 100_000),
    "no_object": tensors([1, 2]),
    "offsets_behind_the_end": tensors({"a": entry([4], 0, 16)}, bytes(8)),
    "offsets_backwards": tensors({"a": entry([1], 4, 0)}, bytes(4)),
    "offsets_negative": tensors({"a": entry([1], -4, 0)}, bytes(4)),
    "shape_larger_than_its_bytes": tensors({"a": entry([1 << 40], 0, 4)}, bytes(4)),
    "shape_overflows_to_the_right_size": tensors({"a": entry([1 << 32, 1 << 32, 1], 0, 0)}),
    "overlapping": tensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "hole": tensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "unknown_dtype": tensors({"a": entry([1], 0, 4, "F99")}, bytes(4)),
    "a_hundred_dimensions": tensors({"a": entry([1] * 100, 0, 4)}, bytes(4)),
    "pickle": pickle.dumps(np.zeros(3)),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_safetensors_that_lie(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        read_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    ["../../secret.safetensors", "/etc/secret.safetensors", "..", 5, None, ["a"], "a\0b", "sub/x.safetensors", ""],
)
def test_shards_lie_beside_their_index(tmp_path, name):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="weight_map of file names|cannot be read"):
        read_safetensors_folder(tmp_path)


# Pickles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "m.pth", "m.pkl"]
)
def test_a_model_folder_with_a_pickle_only(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ModelError, match=f"{name}, a pickle, which can run code.*model.safetensors"):
        detect_form(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_as_a_table(tmp_path):
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps([Bomb(tmp_path / "ran")]))
    with pytest.raises(DataError, match="looks like a pickle, which can run code"):
        list(open_table(str(tmp_path / "rows.pkl"), schema=None, form="csv").chunks())
    assert not (tmp_path / "ran").exists()


def test_a_pickle_inside_of_numpy_arrays(tmp_path):
    bomb = np.array([Bomb(tmp_path / "ran")], object)
    np.savez(tmp_path / "pictures.npz", image=bomb, label=np.zeros(1, int))
    with pytest.raises(DataError, match="not an .npz file of plain arrays"):
        list(open_table(str(tmp_path / "pictures.npz"), schema=None).chunks())
    assert not (tmp_path / "ran").exists()


# Links and names --------------------------------------------------------------------------------------------


def test_links_out_of_a_model_are_not_copied(tmp_path):
    (tmp_path / "secret.json").write_text('{"password": 1}')
    model = tmp_path / "model"
    model.mkdir()
    (model / "special_tokens_map.json").symlink_to(tmp_path / "secret.json")
    (model / "own.json").symlink_to(model / "real.json")
    (model / "real.json").write_text("{}")
    with pytest.raises(ModelError, match="leads out of its model"):
        own_file(model, "special_tokens_map.json")
    assert own_file(model, "own.json") == model / "real.json"


def test_links_of_the_hugging_face_cache_are_its_own(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blob = tmp_path / "models--a--b" / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_text("{}")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/abc")
    assert own_file(snapshot, "tokenizer.json") == blob


@pytest.mark.slow
def test_an_imported_model_holds_no_file_of_this_machine(tmp_path, tiny_model):
    import shutil

    from modelzoo.importing import import_model

    (tmp_path / "secret").write_text('{"key": "private"}')
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "special_tokens_map.json").unlink(missing_ok=True)
    (source / "special_tokens_map.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out of its model"):
        import_model(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "name", ["modelhub:../outside", "modelhub:..", "modelhub:", "modelhub/../../outside", "bert\0x"]
)
def test_zoo_names_stay_in_the_zoo(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    (tmp_path / "zoo" / "modelhub").mkdir(parents=True)
    with pytest.raises(ModelError):
        resolve(name, tmp_path / "zoo")


@pytest.mark.parametrize("name", ["../evil", "a/b", "/abs", "..", ".", ".hidden", "", "12", "a\0", "a\n", "ä", "-flag"])
def test_names_of_exports_are_plain(name):
    from easytransfer.errors import ConfigError

    with pytest.raises(ConfigError, match="unusable model name"):
        _check_request({}, name, flat=False, max_batch_size=1)


# Checkpoints ------------------------------------------------------------------------------------------------


def forged(run, change, step=1):
    """A checkpoint whose state was changed and signed again, which anybody can do."""
    arrays = {"a": np.ones(2, np.float32)}
    path = checkpoint.save(run, step, arrays, {}, {})
    state = json.loads((path / checkpoint.STATE).read_text())
    state.pop("checksum")
    change(state, path)
    state["files"] = {name: checkpoint.sha256(path / name) for name in state.get("files", {})}
    (path / checkpoint.STATE).write_text(json.dumps({**state, "checksum": checkpoint._checksum(state)}))
    return path


CHANGES = {
    "no_order": lambda state, path: state.pop("order"),
    "order_of_others": lambda state, path: state.update(order=["b"]),
    "order_is_a_number": lambda state, path: state.update(order=5),
    "order_of_lists": lambda state, path: state.update(order=[["a"]]),
    "no_files": lambda state, path: state.pop("files"),
    "weights_are_a_pickle": lambda state, path: (path / checkpoint.WEIGHTS).write_bytes(LIES["pickle"]),
    "weights_lie": lambda state, path: (path / checkpoint.WEIGHTS).write_bytes(LIES["header_of_exabytes"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_checkpoints_with_a_forged_state(tmp_path, change):
    path = forged(tmp_path, change)
    with pytest.raises(ModelError):
        checkpoint.load(path)


@pytest.mark.parametrize("target", ["../other/model.ckpt-1", "..", "/", "model.ckpt-1/../../other/model.ckpt-1"])
def test_the_pointer_of_a_run_names_its_own_checkpoints(tmp_path, target):
    forged(tmp_path / "other", lambda state, path: None)
    own = forged(tmp_path / "run", lambda state, path: None, step=3)
    (tmp_path / "run" / checkpoint.POINTER).write_text(json.dumps({"best": target, "last": target}))
    assert checkpoint.resolve(tmp_path / "run") == own


NO_JSON = ["[" * 100_000, '{"a": ' + "1" * 5000 + "}", '{"a": "\\ud800"}', "\ufeff", "null", ""]


@pytest.mark.parametrize("text", NO_JSON, ids=["deep", "digits", "surrogate", "mark", "null", "empty"])
def test_json_of_models_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError):
        read_json(tmp_path / "config.json")
    (tmp_path / checkpoint.STATE).write_text(text)
    assert "cannot be read" in checkpoint.fault(tmp_path) or "missing" in checkpoint.fault(tmp_path)


@pytest.mark.parametrize("value", [["gelu"], {"a": 1}, 5, True])
def test_activations_that_are_no_names(value):
    with pytest.raises(ModelError, match="hidden_act"):
        BertConfig.from_dict({"vocab_size": 9, "hidden_act": value})
