"""Archives that want to write elsewhere, to fill the disk or the memory, or never to end."""

import gzip
import io
import shutil
import tarfile
import zipfile

import pytest

from easytransfer.data.files import is_bomb
from easytransfer.errors import ModelError, ResourceError
from easytransfer.presets import archive
from easytransfer.presets.archive import unpack


def zipped(entries, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as writer:
        for name, content in entries.items():
            writer.writestr(name, content)
    return stream.getvalue()


def tarred(*members, packed=False):
    """A tar file of (name or TarInfo, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz" if packed else "w") as writer:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def header(name, size, kind=tarfile.REGTYPE):
    """One tar header that claims `size` bytes, which need not follow; a negative size is written in base 256."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.fixture
def refuse(tmp_path):
    """Unpacks bytes and returns the message; nothing may be written anywhere."""
    target = tmp_path / "inner" / "target"
    target.mkdir(parents=True)

    def run(content, error=ModelError):
        path = tmp_path / "archive"
        path.write_bytes(content)
        with pytest.raises(error) as found:
            unpack(path, target)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
        return str(found.value)

    return run


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "C:\\evil", "a/..\\..\\evil", ".."]
)
def test_slip(refuse, name):
    good = ("good.txt", b"written before the bad one is seen?")
    assert "outside its folder" in refuse(zipped(dict([good, (name, b"x")])))
    for packed in (False, True):
        assert "outside its folder" in refuse(tarred(good, (name, b"x"), packed=packed))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(refuse, kind):
    info = tarfile.TarInfo("innocent")
    info.type, info.linkname = kind, "/etc/passwd"
    assert "other than a plain file" in refuse(tarred(("good", b"x"), (info, b"")))


def test_link_in_zip(refuse):
    info = zipfile.ZipInfo("innocent")
    info.external_attr = 0o120777 << 16
    assert "holds a link" in refuse(zipped({"good": b"x", info: b"/etc/passwd"}))


def test_zip_bomb_is_known_by_its_directory(refuse, monkeypatch):
    monkeypatch.setattr("easytransfer.data.files._BOMB_BYTES", 1 << 20)
    assert "hundreds of times" in refuse(zipped({"zeros": bytes(2 << 20)}, zipfile.ZIP_DEFLATED))


def test_zip_that_lies_about_a_size_gives_no_more_than_it_said(tmp_path):
    content = zipped({"zeros": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    directory = content.rindex(b"PK\x01\x02")
    lied = bytearray(content)
    lied[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    (tmp_path / "archive").write_bytes(lied)
    (tmp_path / "target").mkdir()
    with pytest.raises(ModelError, match="damaged"):
        unpack(tmp_path / "archive", tmp_path / "target")
    assert sum(path.stat().st_size for path in (tmp_path / "target").rglob("*")) <= 10


def test_tar_bomb_is_refused_before_it_is_unpacked(refuse, monkeypatch):
    """The gzip file claims 19 GiB and ends behind the header: who unpacked first would say that it is cut off."""
    assert "hundreds of times" in refuse(gzip.compress(header("zeros", 19 << 30)))
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 100)
    assert "unpacks to 101" in refuse(tarred(("a", b"x" * 101)))


def test_too_many_files(refuse, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    assert "too many files" in refuse(zipped({str(i): b"" for i in range(4)}))
    assert "too many files" in refuse(tarred(*((str(i), b"") for i in range(4))))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_tar_header_that_claims_gigabytes_is_not_read(refuse, kind):
    """The standard library reads these names in one piece, however long they say they are."""
    for content in (header("x", 8 << 30, kind), gzip.compress(header("x", 8 << 30, kind) + bytes(1 << 20))):
        assert "bytes of header" in refuse(content)


def test_tar_with_a_negative_size_ends(refuse):
    """Such an entry leads back to itself: listing the members would not end."""
    assert "-512 bytes" in refuse(header("again", -512) + bytes(1024))


def test_disk_too_small(refuse, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 8, 2))
    assert "has room for 2" in refuse(zipped({"a": b"xyz"}), ResourceError)


@pytest.mark.parametrize("name", ["a" * 300, "good.txt/below"])
def test_names_that_cannot_be_made(tmp_path, name):
    (tmp_path / "archive").write_bytes(zipped({"good.txt": b"x", name: b"y"}))
    (tmp_path / "target").mkdir()
    with pytest.raises(ModelError, match="cannot be unpacked"):
        unpack(tmp_path / "archive", tmp_path / "target")


def test_encrypted_zip(refuse):
    content = bytearray(zipped({"a": b"x"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    assert "encrypted" in refuse(bytes(content))


def test_what_is_a_bomb():
    """Weights and text are none, however large; repetition is."""
    assert not is_bomb(1 << 30, 1) and not is_bomb(20 << 30, 4 << 30) and not is_bomb((1 << 30) + 1, 6 << 20)
    assert is_bomb((1 << 30) + 1, 5 << 20)
