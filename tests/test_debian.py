"""The script that installs Debian packages, with programs that only note how they are called."""

import subprocess
from pathlib import Path

import pytest

PROGRAMS = "chromium chromedriver ssh-keygen sshd g++ cmake make patch buildah debootstrap".split()


@pytest.fixture
def script(tmp_path, repository):
    """Function that runs the script among just some programs; returns what it says and what it tells apt-get."""

    def run(programs: list[str], *arguments: str, user: int = 0, apt_get: str = "true") -> tuple[str, str]:
        calls = tmp_path / "calls"
        calls.touch()
        bodies = dict.fromkeys(programs, "exit 9") | {"id": f"echo {user}", "sed": 'exec /bin/sed "$@"'}
        bodies["apt-get"] = f'echo "$@" >>{calls}; {apt_get}'
        for name, body in bodies.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", repository / "scripts" / "debian.sh", *arguments],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "")
        return done.stderr, calls.read_text()

    return run


def test_nothing_to_do_is_silent(script):
    assert script(PROGRAMS, "image") == ("", "")


def test_missing_packages_are_installed_by_name(script):
    said, told = script(PROGRAMS[2:8])
    assert said == "installing chromium chromium-driver\n"
    assert told.startswith("install ") and "--no-install-recommends" in told
    assert told.endswith(" chromium chromium-driver\n") and told.count("\n") == 1


def test_what_builds_the_image_is_installed_when_asked_for(script):
    assert script(PROGRAMS[:8])[1] == ""
    assert script(PROGRAMS[:8], "image")[1].split()[6:][:1] == ["buildah"]


def test_without_root_it_says_what_is_missing(script):
    said, told = script(PROGRAMS[1:8], user=1000)
    assert told == "" and "not installed: chromium; tests that need them will be skipped" in said


def test_without_a_network_the_tests_go_on(script):
    said, told = script(PROGRAMS[1:8], apt_get="exit 100")
    assert "apt-get failed; tests that need chromium will be skipped" in said and "update" in told


def test_the_tests_call_it(repository: Path):
    assert "sh scripts/debian.sh\n" in (repository / "scripts" / "test.sh").read_text(encoding="utf-8")
