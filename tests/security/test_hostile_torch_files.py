"""Files of PyTorch made to deceive: nothing is called, memory and time are bounded, and what was asked for is named."""

import io
import pickle
import struct
import time
import tracemalloc
import zipfile

import pytest

from easytransfer.errors import ModelError
from easytransfer.presets.torch_file import MAGIC, PROTOCOL, read_torch

FACTS = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STOP = b"."


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def in_zip(program, **storages):
    """A file of the newer form whose pickle is `program`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        writer.writestr("archive/data.pkl", program)
        for key, content in storages.items():
            writer.writestr(f"archive/data/{key}", content)
    return stream.getvalue()


def in_pickles(program, keys=(), numbers=b"", magic=MAGIC, version=PROTOCOL, facts=FACTS):
    """A file of the older form whose state dict is `program`."""
    head = b"".join(pickle.dumps(value, 2) for value in (magic, version, facts))
    return head + program + pickle.dumps(list(keys), 2) + numbers


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else pickle.dumps(value, 2)[2:-1]


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", count=4, kind="torch\nFloatStorage"):
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(offset=0, size=(4,), stride=(1,), source=None, hooks=b"ccollections\nOrderedDict\n)R"):
    view = (source or storage()) + number(offset) + numbers(size) + numbers(stride) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"


def state(**entries):
    """A pickle of a dict with these entries."""
    return b"\x80\x02}(" + b"".join(text(name) + made for name, made in entries.items()) + b"u" + STOP


FLOATS = bytes(16)


def test_the_parts_make_a_file_that_is_read(tmp_path):
    for content in (
        in_zip(state(a=tensor()), **{"0": FLOATS}),
        in_pickles(state(a=tensor()), ["0"], struct.pack("<q", 4) + FLOATS),
    ):
        (tmp_path / "a.pth").write_bytes(content)
        assert read_torch(tmp_path / "a.pth")["a"].tolist() == [0.0] * 4


@pytest.mark.parametrize("form", [in_zip, in_pickles])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_functions_are_not_called(tmp_path, form, protocol):
    mark = tmp_path / "called"
    for function in (Call(open, str(mark), "w"), Call(eval, f"open({str(mark)!r}, 'w')")):
        (tmp_path / "a.pth").write_bytes(form(pickle.dumps({"a": function}, protocol)))
        with pytest.raises(ModelError, match=r"asks for (_?io|__builtin__|builtins)\.|the instruction [A-Z]+"):
            read_torch(tmp_path / "a.pth")
    assert not mark.exists()


LIES = {
    "global_of_os": (state(a=b"cos\nsystem\n(" + text("true") + b"tR"), "asks for os.system"),
    "global_by_stack": (state(a=text("os") + text("system") + b"\x93"), "asks for os.system"),
    "global_of_texts_of_tuples": (state(a=b")" + b")" + b"\x93"), "names something by no text"),
    "other_function_of_torch": (state(a=b"ctorch\nload\n" + text("x") + b"\x85R"), "asks for torch.load"),
    "dotted_way_around": (
        state(a=b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n"),
        "_rebuild_tensor_v2.__globals__",
    ),
    "class_by_instruction": (state(a=b"(ios\nsystem\n"), "the instruction INST"),
    "object_by_instruction": (state(a=b"(ccollections\nOrderedDict\no"), "the instruction OBJ"),
    "new_object": (state(a=b"ccollections\nOrderedDict\n)\x81"), "the instruction NEWOBJ"),
    "extension_registry": (state(a=b"\x82\x01"), "the instruction EXT1"),
    "attributes": (state(a=tensor() + b"}" + text("x") + number(1) + b"sb"), "sets attributes"),
    "attributes_of_a_dict": (state(a=b"}}" + text("__class__") + number(1) + b"sb"), "sets attributes"),
    "call_of_a_tensor": (state(a=tensor() + b")R"), "calls a Tensor"),
    "persistent_text": (b"\x80\x02Pid\n.", "the instruction PERSID"),
    "persistent_other": (state(a=text("storage") + b"Q"), "no storage"),
    "hooks": (state(a=tensor(hooks=b"}" + text("x") + number(1) + b"s")), "has hooks"),
    "beyond_the_end": (state(a=tensor(size=(5,))), "reaches beyond its 4 numbers"),
    "beyond_by_offset": (state(a=tensor(offset=1)), "reaches beyond its 4 numbers"),
    "before_the_beginning": (state(a=tensor(offset=-1)), "not described as one"),
    "negative_steps": (state(a=tensor(stride=(-1,))), "not described as one"),
    "another_number_of_steps": (state(a=tensor(stride=(1, 1))), "not described as one"),
    "a_hundred_axes": (state(a=tensor(size=(1,) * 100, stride=(1,) * 100)), "not described as one"),
    "repeated_to_terabytes": (state(a=tensor(size=(1 << 20, 1 << 20), stride=(0, 0))), "more than 4 times its size"),
    "shared_by_very_many": (state(**{f"a{i}": tensor() for i in range(400)}), None),
    "size_without_end": (state(a=tensor(size=(1 << 70,))), "not described as one"),
    "number_without_end": (b"\x80\x02\x8a\xff" + b"\x01" * 255 + STOP, "a number without end"),
    "text_of_gigabytes": (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + STOP, "a piece of 4294967295 bytes"),
    "bytes_of_exabytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + STOP, "a piece of"),
    "more_instructions_than_any_model": (b"\x80\x02" + b"}" * 600_000 + STOP, "more than 500000 instructions"),
    "itself": (b"\x80\x02}q\x00" + text("a") + b"h\x00s.", "entry a is a dict"),
    "nothing": (b"\x80\x02.", "leaves no value"),
    "two_values": (b"\x80\x02}}.", "leaves no value"),
    "mark_alone": (b"\x80\x02(.", "leaves no value"),
    "no_mark": (b"\x80\x02}u.", "lacks a mark"),
    "pop_of_nothing": (b"\x80\x02\x86.", "is not there"),
    "memo_of_nothing": (b"\x80\x02h\x07.", "cannot be read: 7"),
    "unknown_instruction": (b"\x80\x02\xff.", "opcode"),
    "no_end": (b"\x80\x02}", "exhausted before seeing STOP"),
    "described_in_two_ways": (
        state(a=tensor(), b=tensor(source=storage(kind="torch\nDoubleStorage"))),
        "described in two ways",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_pickles_that_lie(tmp_path, lie):
    program, message = LIES[lie]
    path = tmp_path / "a.pth"
    path.write_bytes(in_zip(program, **{"0": FLOATS}))
    tracemalloc.start()
    began = time.perf_counter()
    if message is None:
        # Many small tensors that share numbers are what a state dict may have.
        assert len(read_torch(path)) == 400
    else:
        with pytest.raises(ModelError, match=message) as error:
            read_torch(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and time.perf_counter() - began < 60


def test_values_of_values_are_never_printed(tmp_path):
    """Thirty tuples, each of two of the one before, are a billion in a message."""
    laughs = text("x") + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(30))
    for content in (
        in_zip(state(a=laughs)),
        in_zip(state(a=laughs + laughs + b"\x93")),
        in_zip(state(a=laughs + b"Q")),
        in_pickles(state(a=tensor()), ["0"], struct.pack("<q", 4) + FLOATS).replace(
            pickle.dumps(PROTOCOL, 2), b"\x80\x02" + laughs + STOP
        ),
    ):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ModelError) as error:
            read_torch(tmp_path / "a.pth")
        assert len(str(error.value)) < 1000


def _compressed():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("archive/data.pkl", state(a=tensor()))
        writer.writestr("archive/data/0", bytes(10_000_000))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (in_zip(state(a=tensor())), "data/0"),
        (in_zip(state(a=tensor()), **{"0": bytes(12)}), "12 bytes for 4 float32 numbers"),
        (_compressed(), "is compressed"),
        (in_zip(state(a=tensor(source=storage(key="../../x"))), **{"0": FLOATS}), "data/../../x"),
        (in_pickles(state(a=tensor()), ["0"], struct.pack("<q", 2**62)), "has 4611686018427387904 numbers"),
        (in_pickles(state(a=tensor()), ["0"], struct.pack("<q", 4) + bytes(12)), "storage 0 ends at"),
        (in_pickles(state(a=tensor()), ["0"], struct.pack("<q", 4) + bytes(20)), "its tensors need"),
        (in_pickles(state(a=tensor()), ["1"], struct.pack("<q", 4) + FLOATS), "differs from those"),
        (in_pickles(state(a=tensor()), ["0", "0"], struct.pack("<q", 4) + FLOATS), "differs from those"),
        (in_pickles(state(a=tensor()), [], b""), "differs from those"),
        (
            in_pickles(state(a=tensor(source=storage(count=1 << 60))), ["0"], struct.pack("<q", 1 << 60)),
            "storage 0 ends at 46116860184273",
        ),
        (in_pickles(state(), version=7), "version is not 1001"),
        (in_pickles(state(), facts={"little_endian": False}), "big-endian"),
        (in_pickles(state(), magic=5), "no file of torch.save"),
        (b"not a file of PyTorch", "no file of torch.save"),
    ],
    ids=range(15),
)
def test_containers_that_lie(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_torch(tmp_path / "a.pth")
