"""Every command of a README is run as written, in a scratch folder that looks like the repository.

Blocks are tagged in the fence: `bash fast` runs by default, `bash` with `-m slow`, `bash install` (which makes an
environment from the package index) with `-m network`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md")), *sorted(ROOT.glob("appzoo/*/README.md"))]
SERVING, TASKS = ROOT / "docs" / "serving.md", ROOT / "docs" / "tasks.md"
_BLOCK = re.compile(r"^([ ]*)```(?:bash|sh|shell|console)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(readme: Path, tag: str) -> list[str]:
    """Returns the shell blocks of a file that carry `tag` ("" for none)."""
    found = _BLOCK.findall(readme.read_text(encoding="utf-8"))
    return [textwrap.dedent(text) for _, given, text in found if given.strip() == tag]


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )


def check(command: str, folder: Path) -> str:
    done = run(command, folder)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with the examples, and the user's own tables that the README speaks of."""
    # Commands write tables anew that are part of the project.
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "appzoo").symlink_to(ROOT / "appzoo")
    sample = ROOT / "examples" / "text_classify"
    for name, source in {"train": "train.tsv", "dev": "dev.tsv", "new": "test.tsv"}.items():
        rows = [line.split("\t") for line in (sample / source).read_text(encoding="utf-8").splitlines()]
        (tmp_path / f"{name}.tsv").write_bytes((sample / source).read_bytes())
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "label"][: len(rows[0])], *rows])
    _write_fixed_forms(tmp_path)
    return tmp_path


def _write_fixed_forms(folder: Path) -> None:
    """Writes the sample rows of words and tags as a column file, and small pictures of two classes."""
    (folder / "squad.json").write_bytes((ROOT / "examples" / "text_comprehension" / "train.json").read_bytes())
    with open(folder / "names.conll", "w", encoding="utf-8") as file:
        for line in (ROOT / "examples" / "sequence_labeling" / "train.tsv").read_text(encoding="utf-8").splitlines():
            words, tags = (cell.split() for cell in line.split("\t"))
            file.write("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)) + "\n")
    for i in range(40):
        place = folder / "pictures" / ("dark" if i % 2 else "light")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), i if i % 2 else 255 - i).save(place / f"{i}.png")


def test_every_block_has_a_known_tag():
    pages = [*READMES, SERVING, TASKS]
    tags = {given.strip() for readme in pages for _, given, _ in _BLOCK.findall(readme.read_text(encoding="utf-8"))}
    assert tags == {"", "fast", "install"}


def test_fast_commands(scratch: Path):
    for block in blocks(ROOT / "README.md", "fast"):
        for line in block.replace("\\\n", " ").splitlines():
            assert check(line, scratch).strip(), f"{line} printed nothing"


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands(readme: Path, scratch: Path):
    for block in blocks(readme, ""):
        check(block, scratch)
    if readme == ROOT / "README.md":
        with open(scratch / "predictions.csv", encoding="utf-8", newline="") as file:
            predicted = [row[-1] for row in csv.reader(file)]
        assert predicted == ["text", *(scratch / "new.tsv").read_text(encoding="utf-8").splitlines()]
        held_out = [json.loads(line) for line in open(scratch / "runs" / "mine" / "held_out" / "eval.jsonl")]
        assert len(held_out) == 30 and {row["label"] for row in held_out} == {"negative", "positive"}
        assert (scratch / "exported" / "text_classify_bert" / "1" / "saved_model.pb").is_file()
        assert (scratch / "runs" / "mine" / "export" / "models.config").is_file()


def test_no_task_needs_more_than_five_flags():
    shown = re.findall(r"`((?:easy_transfer_app|ez_bert_feat)[^`]*)`", TASKS.read_text(encoding="utf-8"))
    commands = [line for block in blocks(TASKS, "") for line in block.replace("\\\n", " ").splitlines()] + shown
    assert len(commands) > 11
    assert {line: line.count(" --") for line in commands if line.count(" --") > 5 or "inputSchema" in line} == {}


@pytest.fixture
def of_tasks(scratch: Path) -> Path:
    """The same folder with the further tables of the ten tasks."""
    with open(scratch / "topics.jsonl", "w", encoding="utf-8") as file:
        for i in range(60):
            topics = [name for name, number in (("price", 2), ("service", 3)) if i % number == 0] or ["place"]
            file.write(json.dumps({"text": f"{' and '.join(topics)} in remark {i}", "label": topics}) + "\n")
    rows = (ROOT / "examples" / "text_match" / "train.tsv").read_text(encoding="utf-8").splitlines()
    with open(scratch / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["question", "other", "label"], *(row.split("\t") for row in rows)])
    return scratch


def test_trainings_of_the_ten_tasks_need_no_further_flag(of_tasks: Path, monkeypatch: pytest.MonkeyPatch):
    from appzoo.cli.checks import check_required, check_tables
    from appzoo.cli.reader import JobReader

    monkeypatch.chdir(of_tasks)
    labels = []
    for block in blocks(TASKS, ""):
        verb, *words = shlex.split(block.replace("\\\n", " ").splitlines()[0])[1:]
        if verb == "train":
            config = JobReader(verb, words, []).read().config
            check_required(verb, config)
            check_tables(verb, config)
            labels.append(config.data.label_name)
    assert labels == ["label", "label", "tags", "answers", "label", "label", "label"]


@pytest.mark.slow
def test_commands_of_the_ten_tasks(of_tasks: Path):
    from modelzoo.commands import make_tiny

    scratch = of_tasks
    make_tiny(scratch / "my-encoder")
    commands = blocks(TASKS, "")
    assert len(commands) == 9  # serve, the ninth task, is in the text and does not end
    *others, own = commands
    for command in others:
        check(command, scratch)
    # Where there is no checkout: in one, the folder would become a part of it.
    (scratch / "elsewhere").mkdir()
    written = json.loads(check(own, scratch / "elsewhere").splitlines()[-1])
    assert written["application"] == "forecast" and not written["inside"]
    assert (scratch / "runs" / "study" / "best.json").is_file()


@pytest.mark.slow
def test_serving_commands(scratch: Path):
    ports = {}
    for name in ("8501", "8500"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[name] = str(free.getsockname()[1])
    train, ask = blocks(SERVING, "")
    check(train, scratch)
    flags = f"serve --restPort={ports['8501']} --grpcPort={ports['8500']} --modelDir="
    ask = ask.replace("serve runs", f"{flags}runs")
    for name, port in ports.items():
        ask = ask.replace(f"127.0.0.1:{name}", f"127.0.0.1:{port}")
    answers = check(ask, scratch)
    assert '"predictions"' in answers and '"results"' in answers and '{"requests": ' in answers


@pytest.mark.network
@pytest.mark.slow
def test_installing_commands(tmp_path: Path):
    (demo,) = [block for block in blocks(ROOT / "README.md", "install") if "demo" in block]
    done = run(demo, ROOT, EZ_VENV=str(tmp_path / "venv"))
    assert done.returncode == 0, done.stderr[-4000:]


def test_python_in_the_readme_is_that_of_the_examples():
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    scripts = sorted(ROOT.glob("examples/*/*.py"))
    assert shown and set(shown) <= {path.read_text(encoding="utf-8") for path in scripts}
    not_run = [path for path in scripts if path.name not in "".join(blocks(path.parent / "README.md", ""))]
    assert not_run == [], "each script is run by the commands of its own README"


def test_ci_runs_the_documented_test_command():
    (command,) = [block for block in blocks(ROOT / "README.md", "install") if "test" in block]
    assert command.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_to_files():
    dead = [
        f"{readme.relative_to(ROOT)}: {target}"
        for readme in [*READMES, SERVING, ROOT / "benchmarks" / "README.md"]
        for target in _LINK.findall(readme.read_text(encoding="utf-8"))
        if not (readme.parent / target).exists()
    ]
    assert dead == []
