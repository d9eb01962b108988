"""Every file of a directory of pictures is accounted for: a row, a bad row with its name, or named in a warning."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from easytransfer.data.files import expand
from easytransfer.data.table import open_table
from easytransfer.errors import DataError
from easytransfer.image.decode import load_images
from easytransfer.run.log import warn_once


def save(path: Path, form: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.new("RGB", (3, 2)).save(stream, form)
    path.write_bytes(stream.getvalue())


def write(path: Path, text: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two pictures each."""
    warn_once.cache_clear()
    for name in ("bottom", "top"):
        for number in range(2):
            save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def account(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Names that are read by class, and names that are bad rows."""
    table = open_table(str(folder), schema=None)
    used: dict[str, list[str]] = {}
    bad = []
    for chunk in table.chunks():
        names = [Path(cell).name for cell in chunk.columns["image"]]
        found = load_images(chunk.columns["image"], str(Path(chunk.file).parent), channels=3, max_pixels=100)
        for name, label, image in zip(names, chunk.columns["label"], found, strict=True):
            if isinstance(image, str):
                assert name in image
                bad.append(name)
            else:
                used.setdefault(label, []).append(name)
    assert table.row_count() == table.count.read == len(bad) + sum(map(len, used.values()))
    return used, bad


PLAIN = {"bottom": ["0.png", "1.png"], "top": ["0.png", "1.png"]}


def test_every_file_of_a_class_is_a_row(data, capsys):
    for name, form in (("a.jfif", "JPEG"), ("a.JPE", "JPEG"), ("_DSC1.JPG", "JPEG"), ("png.gif", "PNG")):
        save(data / "top" / name, form)
    for name, form in (("b.gif", "GIF"), ("c.tiff", "TIFF")):
        save(data / "top" / name, form)
    write(data / "top" / "notes.txt")
    write(data / "top" / "_SUCCESS")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        write(data / "top" / name)
    used, bad = account(data)
    assert used == {**PLAIN, "top": ["0.png", "1.png", "_DSC1.JPG", "a.JPE", "a.jfif", "png.gif"]}
    assert bad == ["_SUCCESS", "b.gif", "c.tiff", "notes.txt"]
    assert "warning" not in capsys.readouterr().err
    # The same files, given as one class.
    assert account(data / "top") == ({"top": used["top"]}, bad)


def test_a_class_of_unread_pictures_is_no_silent_loss(data):
    save(data / "left" / "a.gif", "GIF")
    used, bad = account(data)
    assert used == PLAIN and bad == ["a.gif"]


def test_classes_that_are_left_out_are_named_once(data, capsys):
    save(data / "_blurred" / "0.png")
    save(data / "top" / "_old" / "0.png")
    save(data / ".cache" / "0.png")
    save(data / "__MACOSX" / "0.png")
    write(data / "_logs" / "run.txt")
    (data / "right").mkdir()
    for _ in range(2):
        assert account(data) == (PLAIN, [])
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 3
    assert f"pictures in {data} are left out, those of the directories _blurred: names that begin with _" in lines[0]
    assert f"pictures in {data / 'top'} are left out, those of the directories _old" in lines[1]
    assert f"directories in {data} without a file are no classes: right" in lines[2]


def test_linked_directories(data, tmp_path, capsys):
    save(tmp_path / "else" / "5.png")
    (data / "linked").symlink_to(tmp_path / "else")
    (data / "top" / "deep").symlink_to(tmp_path / "else")
    (data / "top" / "9.png").symlink_to(tmp_path / "nowhere.png")
    assert account(data) == ({**PLAIN, "linked": ["5.png"]}, ["9.png"])
    assert f"pictures in {data / 'top'} are left out, those of the directories deep" in capsys.readouterr().err


def test_stray_files_beside_classes_are_told(data, capsys):
    write(data / "README.md")
    write(data / "labels.txt")
    assert account(data) == (PLAIN, [])
    assert (
        f"files beside the class directories of {data} are not read: README.md, labels.txt" in capsys.readouterr().err
    )


def test_a_stray_picture_beside_classes_has_no_class(data):
    save(data / "a.png")
    with pytest.raises(DataError, match=r"beside directories of pictures.*got 'a.png beside bottom, top'; move them"):
        account(data)


def test_tables_beside_pictures_are_the_table(data, capsys):
    write(data / "train.csv", "image,label\n")
    assert expand(str(data)) == [str(data / "train.csv")]
    told = f"{data} holds tables (train.csv), so directories of pictures are no classes: bottom, top"
    assert told in capsys.readouterr().err


def test_globs_take_names_of_cameras(data):
    save(data / "top" / "_MG_1.jpg", "JPEG")
    assert [Path(path).name for path in expand(f"{data}/top/*.jpg")] == ["_MG_1.jpg"]
