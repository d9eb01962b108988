"""The HTML report of a run shows its card and pictures, and nothing that is not the run's own."""

import base64
import hashlib
import html
import json
import re
import subprocess

import pytest

from easytransfer.run.card import table
from easytransfer.run.commands import command_line
from easytransfer.run.environment import environment_record
from easytransfer.run.folder import RunFolder
from easytransfer.run.page import PAGE_FILE, html_page, write_page
from easytransfer.run.pictures import draw_pictures

PICTURE = b"\x89PNG\r\n\x1a\nnot really"


CONFIG = {
    "model_name": "text_classify_bert",
    "data": {"train_table": "https://user:pass@example.org/train.tsv"},
    "train": {"learning_rate": 1e-4, "num_epochs": 3},
    "serving": {"token": "not for readers"},
}


def run_with(path, labels, rates=(100.0, 25.0, *[110.0] * 18)):
    folder = RunFolder.create(path, {"model_name": "text_classify_bert"})
    folder.write_json("label_mapping.json", {name: i for i, name in enumerate(labels)})
    folder.write_evaluation(4, {"accuracy": 0.91}, is_best=True)
    (path / "learning_curve.png").write_bytes(PICTURE)
    records = [{"event": "step", "step": 10 * i, "rows_per_s": rate} for i, rate in enumerate(rates, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    folder.finish("done", report={"pictures": ["learning_curve.png"], "metric": "accuracy"})
    return write_page(path)


def test_the_page_holds_results_pictures_settings_and_slowest_steps(tmp_path):
    page = run_with(tmp_path / "my <run>", ["good", "bad"])
    text = page.read_text()
    assert page.name == PAGE_FILE and "<title>text_classify_bert: my &lt;run&gt;</title>" in text
    assert f'<img src="data:image/png;base64,{base64.b64encode(PICTURE).decode()}" alt="Learning curve"' in text
    assert '<strong>accuracy</strong></td>\n<td class="number">0.9100</td>' in text and ">Training</h2>" in text
    slowest = re.sub(' class="number"', "", text.split(">Slowest steps</h2>")[1])
    assert slowest.index("<td>20</td>\n<td>25.0</td>\n<td>23%</td>") < slowest.index("<td>10</td>")
    titles = ["Results", "Learning curve", "Training", "Environment", "Limitations", "Slowest steps", "Use it"]
    assert re.findall(r'<section class="card" aria-labelledby="(.*)">\n<h2 id="\1">(.*)</h2>', text) == [
        (f"section-{number}", title) for number, title in enumerate(titles, 1)
    ]


def test_short_trainings_have_no_slowest_steps(tmp_path):
    assert "Slowest" not in run_with(tmp_path / "run", ["good", "bad"], rates=(100.0, 25.0, *[110.0] * 17)).read_text()


def test_the_number_of_a_run_stands_at_its_top(tmp_path):
    """15 of 148 are right: the interval is that of Newcombe 1998, Statistics in Medicine 17:857-872, table I."""
    folder = RunFolder.create(tmp_path / "run", {"model_name": "text_classify_bert"})
    data = {"train": {"accepted": 1234}, "eval": {"accepted": 148}}
    metrics = {"accuracy": 15 / 148, "auc": 0.25}
    for report, shown in (
        (
            {"metric": "accuracy", "rows": 148},
            ["accuracy", "0.1014", "95% interval 0.0624 to 0.1605, 148 evaluation rows"],
        ),
        ({"metric": "accuracy", "rows": 148, "confusion_of": "words"}, ["accuracy", "0.1014", "148 evaluation rows"]),
        (
            {"metric": "auc", "interval": {"metric": "auc", "low": 0.2, "high": 0.3125, "draws": 1000}},
            ["auc", "0.2500", "95% interval 0.2000 to 0.3125"],
        ),
        ({"metric": "mcc"}, None),
    ):
        folder.write_json("report.json", {"data": data, "metrics": metrics, **report})
        text = write_page(folder.path).read_text().partition("<nav")[0]
        found = re.search('<p class="headline">(.*)</p>', text, re.DOTALL)
        assert (found and re.findall(">([^<>\n]+)<", found[1])) == shown
        assert "<dt>training rows</dt><dd>1,234</dd>" in text and "<dt>steps" not in text


def test_tables_are_set_by_what_they_hold():
    lines = [
        "# Title",
        "",
        "## One",
        "",
        *table(("name", "train share", "n"), [("a", "25.0%", "1,000"), ("b", "75.0%", "-2e-05")]),
    ]
    lines += ["", "## Two", "", *table(("", ""), [("seed", "1"), ("of", "what")])]
    text = html_page("Title", "\n".join(lines))
    assert '<th scope="col">name</th>\n<th class="number" scope="col">train share</th>' in text
    assert re.findall(r'<rect width="([\d.]+)" height="10"/></svg>([^<]*)<', text) == [
        ("33.3", "25.0%"),
        ("100.0", "75.0%"),
    ]
    assert "<td>a</td>" in text and '<td class="number">-2e-05</td>' in text
    facts = text.split('<table class="facts">')[1]
    assert "<thead" not in facts and '<th scope="row">seed</th>\n<td>1</td>' in facts and "<td>what</td>" in facts


@pytest.mark.parametrize("value", ["short", "a --b", "it's --c", 'say "x --y"', "x" * 80, "--z $HOME `ls`"])
def test_long_commands_are_shown_in_lines_that_a_shell_reads_as_one(value):
    command = command_line(
        "predict", checkpointPath="runs/a long name", inputTable=value, outputTable="predictions.csv"
    )
    text = html_page("Title", f"# Title\n\n```bash\n{command}\n```\n")
    shown = html.unescape(re.search('<code class="language-bash">(.*?)</code>', text, re.DOTALL)[1])
    assert len(shown.splitlines()) == 4
    words = [
        subprocess.run(
            ["sh", "-c", f"easy_transfer_app() {{ printf '%s\\n' \"$@\"; }}\n{line}"], capture_output=True, check=True
        )
        for line in (command, shown)
    ]
    assert words[0].stdout == words[1].stdout and f"--inputTable={value}\n".encode() in words[0].stdout


def test_charts_and_photos_are_told_apart(tmp_path):
    folder = tmp_path / "run"
    run_with(folder, ["good", "bad"])
    (folder / "mistakes.png").write_bytes(PICTURE)
    RunFolder(folder).write_json("report.json", {"pictures": ["learning_curve.png"], "pages": ["mistakes.png"]})
    images = re.findall("<img [^>]*>", write_page(folder).read_text())
    assert ['class="chart"' in image for image in images] == [True, False]


def test_text_of_others_stays_text(tmp_path):
    hostile = ["<script>alert(1)</script>", "![x](https://example.org/a.png)", "`` [y](javascript:alert(1)) ``"]
    text = run_with(tmp_path / "run", hostile, rates=(1.0,)).read_text()
    scripts = re.findall("<script.*?</script>", text, re.DOTALL)
    script = scripts[0].removeprefix("<script>").removesuffix("</script>")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert len(scripts) == 1 and f"script-src 'sha256-{digest}';" in text and "unsafe" not in text
    assert "alert" not in script and 'src="http' not in text
    assert all(target.startswith("#section-") for target in re.findall(r'<a [^>]*href="([^"]*)"', text))
    assert "&lt;script&gt;alert(1)" in text and "Slowest steps" not in text
    assert "default-src 'none'" in text


def test_pages_of_the_application_are_linked_and_its_pictures_embedded(tmp_path):
    folder = tmp_path / "run"
    run_with(folder, ["good", "bad"])
    (folder / "mistakes.png").write_bytes(PICTURE)
    run = RunFolder(folder)
    run.write_json("report.json", {"pictures": [], "pages": ["answers.html", "mistakes.png", "a&b:c.html"]})
    text = write_page(folder).read_text()
    assert '<a href="answers.html">Answers</a>' in text and '<a href="a%26b%3Ac.html">A&amp;b:c</a>' in text
    assert f'<img src="data:image/png;base64,{base64.b64encode(PICTURE).decode()}" alt="Mistakes"' in text


@pytest.fixture
def drawn(tmp_path):
    """The page of a run whose pictures were really drawn."""
    pytest.importorskip("matplotlib")
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.write_run(environment_record(seed=1, devices=["cpu"]))
    folder.write_evaluation(40, {"accuracy": 0.85, "loss": 0.4}, is_best=True)
    records = [
        {"event": "step", "step": step, "loss": 1 / step, "rows_per_s": 100.0 + step, "memory_mb": 900.0}
        for step in range(1, 41)
    ]
    records += [{"event": "evaluation", "step": step, "loss": 0.5, "accuracy": step / 47} for step in (10, 20, 30, 40)]
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report = {"labels": ["negative", "positive"], "confusion": [[33, 7], [5, 35]], "rows": 80, "steps": 40}
    report["data"] = {
        part: {"table": f"{part}.tsv", "read": n, "accepted": n} for part, n in (("train", 170), ("eval", 80))
    }
    names = [f"{start} to {start + 4}" for start in range(3, 40, 5)]
    counts = {"train": [2, 9, 31, 57, 44, 20, 6, 1], "eval": [1, 4, 14, 26, 21, 10, 3, 1]}
    report["lengths_by_table"] = {"names": names, "tables": counts, "rows": {"train": 170, "eval": 80}}
    pictures = draw_pictures(folder.path, report, "accuracy")
    folder.finish("done", report={**report, "pictures": pictures, "metric": "accuracy", "export": "export/1"})
    return write_page(folder.path)


def test_the_page_in_a_browser(drawn, browser):
    """All a reader looks for is there, in the order of interest; nothing outside is loaded."""
    from page_browser import NARROW
    from selenium.webdriver.common.by import By

    browser.open(drawn.as_uri())
    assert browser.addresses() == [drawn.as_uri()] and browser.complaints() == []
    titles = [title.text for title in browser.driver.find_elements(By.CSS_SELECTOR, "h2, h3")]
    wanted = ["Results", "Training", "Environment", "Limitations", "Slowest steps", "Use it"]
    assert [title for title in titles if title in wanted] == wanted
    pictures = {image.get_attribute("alt"): image for image in browser.driver.find_elements(By.TAG_NAME, "img")}
    assert list(pictures) == ["Learning curve", "Confusion matrix"]
    assert all(image.get_property("naturalWidth") > 400 and image.is_displayed() for image in pictures.values())
    text = " ".join(browser.driver.find_element(By.TAG_NAME, "body").text.split())
    for words in (
        "accuracy 0.8500",
        "learning_rate 0.0001",
        "Python 3.",
        "tensorflow 2.",
        "devices cpu",
        "1 101.0 84% 900",
    ):
        assert words in text
    assert "example.org" not in text
    browser.check_access("report")
    browser.open(drawn.as_uri())
    copies = browser.driver.find_elements(By.CSS_SELECTOR, ".code button")
    code = browser.driver.find_element(By.CSS_SELECTOR, ".code pre").text
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    copies[0].click()
    browser.wait(lambda _: copies[0].text == "Copied")
    assert browser.run("return window.copied") == code and code.startswith("easy_transfer_app predict ")
    browser.run("navigator.clipboard.writeText = async () => { throw Error('no clipboard'); }")
    copies[0].click()
    browser.wait(lambda _: copies[0].text == "Press Ctrl+C")
    assert browser.run("return getSelection().toString()").strip() == code
    browser.driver.find_element(By.TAG_NAME, "summary").click()
    settings = browser.driver.find_element(By.CSS_SELECTOR, "details pre").text
    assert '"train_table": "https://example.org/train.tsv"' in settings and "not for readers" not in settings
    browser.driver.find_element(By.LINK_TEXT, "Slowest steps").click()
    assert -1 < browser.run("return document.getElementById(location.hash.slice(1)).getBoundingClientRect().top") < 800
    for scheme in ("light", "dark"):
        browser.open(drawn.as_uri(), size=NARROW, scheme=scheme)
        assert not browser.overflows() and browser.faint() == []


def test_a_page_of_one_wide_table_in_a_browser(tmp_path, browser):
    """It scrolls by itself, and the keyboard reaches it where it does."""
    rows = [
        (f"{n:,}", f"a text of some words, number {n}", "x" * 90, "negative", f"{0.9 - n / 1e4:.4f}") for n in range(9)
    ]
    lines = ["# Wrong rows", "", "9 of 80 rows.", "", *table(("row", "text", "code", "predicted", "probability"), rows)]
    (tmp_path / "rows.html").write_text(html_page("Wrong rows", "\n".join(lines), pages=["report.html"]))
    browser.open((tmp_path / "rows.html").as_uri())
    browser.check_access("rows")
    browser.resize((390, 844))
    browser.wait(lambda _: browser.run("return document.querySelector('.scroll').tabIndex") == 0)
    assert browser.run("return document.querySelector('.scroll').ariaLabel") == "Table: Wrong rows"
