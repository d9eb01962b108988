"""The HTML report of a run shows its card and pictures, and nothing that is not the run's own."""

import base64
import json
import re

import pytest

from easytransfer.run.environment import environment_record
from easytransfer.run.folder import RunFolder
from easytransfer.run.page import PAGE_FILE, write_page
from easytransfer.run.pictures import draw_pictures

PICTURE = b"\x89PNG\r\n\x1a\nnot really"


CONFIG = {
    "model_name": "text_classify_bert",
    "data": {"train_table": "https://user:pass@example.org/train.tsv"},
    "train": {"learning_rate": 1e-4, "num_epochs": 3},
    "serving": {"token": "not for readers"},
}


def run_with(path, labels, rates=(100.0, 25.0, 110.0)):
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
    assert "<strong>accuracy</strong></td>\n<td>0.9100</td>" in text and ">Training</h2>" in text
    slowest = text.split(">Slowest steps</h2>")[1]
    assert slowest.index("<td>20</td>\n<td>25.0</td>\n<td>25%</td>") < slowest.index("<td>10</td>")


def test_text_of_others_stays_text(tmp_path):
    hostile = ["<script>alert(1)</script>", "![x](https://example.org/a.png)", "`` [y](javascript:alert(1)) ``"]
    text = run_with(tmp_path / "run", hostile, rates=(1.0,)).read_text()
    assert "<script" not in text and 'src="http' not in text
    assert all(target.startswith("#section-") for target in re.findall(r'<a [^>]*href="([^"]*)"', text))
    assert "alert(1)" in text and "Slowest steps" not in text
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
    report = {"labels": ["negative", "positive"], "confusion": [[33, 7], [5, 35]], "rows": 80}
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
    browser.keep("report")
    assert "example.org" not in text
    browser.driver.find_element(By.TAG_NAME, "summary").click()
    settings = browser.driver.find_element(By.CSS_SELECTOR, "details pre").text
    assert '"train_table": "https://example.org/train.tsv"' in settings and "not for readers" not in settings
    browser.driver.find_element(By.LINK_TEXT, "Slowest steps").click()
    assert -1 < browser.run("return document.getElementById(location.hash.slice(1)).getBoundingClientRect().top") < 800
    for scheme in ("light", "dark"):
        browser.open(drawn.as_uri(), size=NARROW, scheme=scheme)
        assert not browser.overflows() and browser.faint() == []
        browser.keep(f"report-narrow-{scheme}")
