"""State dicts of PyTorch, in both forms, against `torch.load`: equal arrays, names and order."""

import collections

import numpy as np
import pytest

from easytransfer.errors import ModelError
from easytransfer.presets.torch_file import read_torch

torch = pytest.importorskip("torch", reason="an extra of the tests")

FORMS = {"zip": True, "older": False}


def module():
    """A module with a buffer of integers, a convolution and normalisation, all with other values than at the start."""
    made = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2))
    with torch.no_grad():
        for value in made.state_dict().values():
            value += torch.arange(value.numel()).reshape(value.shape).to(value.dtype)
    return made


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        if tensor.dtype == torch.bfloat16:
            assert found[name].dtype.name == "bfloat16"
            np.testing.assert_array_equal(found[name].astype(np.float32), tensor.float().numpy(), err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], tensor.detach().numpy(), err_msg=name, strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_the_state_of_a_module(tmp_path, form):
    state = module().state_dict()
    assert state["1.num_batches_tracked"].shape == () and state["1.num_batches_tracked"].dtype == torch.int64
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=FORMS[form])
    assert_equal(read_torch(tmp_path / "a.pth"), torch.load(tmp_path / "a.pth", weights_only=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_type_and_views_of_shared_numbers(tmp_path, form):
    kinds = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    state = {kind: torch.arange(6).reshape(2, 3).to(getattr(torch, kind)) for kind in kinds}
    base = torch.arange(24.0).reshape(4, 6)
    state |= {"whole": base, "turned": base.T, "part": base[1:3, 2:4], "row": base[2], "none": base[:0]}
    state |= {"parameter": torch.nn.Parameter(base[0] + 1), "tied": base}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=FORMS[form])
    found = read_torch(tmp_path / "a.pth")
    assert_equal(found, state)
    # Each has numbers of its own: a change of one is none of the others.
    found["whole"][:] = 0
    np.testing.assert_array_equal(found["tied"], base.numpy())
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_torch(tmp_path, protocol):
    state = collections.OrderedDict(a=torch.arange(3.0), b=torch.ones(2, 2, dtype=torch.int64))
    torch.save(state, tmp_path / "a.pth", pickle_protocol=protocol)
    assert_equal(read_torch(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: module(), "torch.nn.modules.container.Sequential|__builtin__|builtins"),
        (lambda: {"state_dict": {"a": torch.ones(2)}}, "entry state_dict is a dict and no tensor"),
        (lambda: {"a": torch.ones(2), "epoch": 3}, "entry epoch is a int and no tensor"),
        (lambda: {"a": 0.5}, "the instruction BINFLOAT"),
        (lambda: {"a": b"bytes"}, "_codecs.encode"),
        (lambda: [torch.ones(2)], "the instruction APPEND|holds a list"),
        (lambda: torch.ones(2), "holds a Tensor in place of a state dict"),
        (lambda: {5: torch.ones(2)}, "an entry is named by a int"),
        (lambda: {"a": torch.ones(2).to_sparse()}, "asks for torch._utils._rebuild_sparse_tensor"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "asks for torch.ComplexFloatStorage"),
    ],
    ids=["module", "checkpoint", "number", "float", "bytes", "list", "tensor", "number_as_name", "sparse", "complex"],
)
def test_what_is_no_state_dict_is_refused_by_name(tmp_path, form, made, message):
    torch.save(made(), tmp_path / "a.pth", _use_new_zipfile_serialization=FORMS[form])
    with pytest.raises(ModelError, match=message) as error:
        read_torch(tmp_path / "a.pth")
    assert "\n" not in str(error.value) and str(tmp_path / "a.pth") in str(error.value)


def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    with pytest.raises(ModelError, match="a program of TorchScript"):
        read_torch(tmp_path / "a.pt")


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_cut_short_are_damaged(tmp_path, form):
    path = tmp_path / "a.pth"
    torch.save(module().state_dict(), path, _use_new_zipfile_serialization=FORMS[form])
    content = path.read_bytes()
    for length in (0, 1, 14, 15, 16, 30, 200, len(content) // 2, len(content) - 9, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            read_torch(path)
    with pytest.raises(ModelError, match="No such file"):
        read_torch(tmp_path / "absent.pth")
