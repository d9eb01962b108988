"""The page in a headless Chromium: text in, bars and latency out; texts are never read as markup.

The screenshot is kept in the folder `EZ_ARTIFACTS` names.
"""

import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from running_server import SECONDS, RunningServer

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

MARKUP = "<img src=x onerror=document.title='broken'>"


@pytest.fixture
def browser():
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


def save_texts(folder: Path) -> None:
    """Saves a model whose label repeats its text, which a page must not read as markup."""

    def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label": text}

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
        scores = tf.tile([[0.25, 0.75]], [tf.shape(text)[0], 1])
        return {"classes": tf.stack([text, tf.fill(tf.shape(text), "other")], 1), "scores": scores}

    module, texts = tf.Module(), tf.TensorSpec([None], tf.string)
    signatures = {"serving_default": tf.function(answer).get_concrete_function(text=texts)}
    signatures["classify"] = tf.function(classify).get_concrete_function(inputs=texts)
    tf.saved_model.save(module, str(folder), signatures=signatures)


def test_a_text_is_classified(tmp_path, browser):
    save_texts(tmp_path / "texts" / "1")
    with RunningServer(tmp_path / "texts") as server:
        browser.get(server.server.addresses["rest"] + "/")
        wait = WebDriverWait(browser, SECONDS)
        box = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "textarea"))
        box.send_keys(MARKUP)
        browser.find_element(By.ID, "send").click()
        rows = wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#answer .row"))
        assert [row.text.split("\n") for row in rows] == [["other", "0.7500"], [MARKUP, "0.2500"]]
        bars = browser.find_elements(By.TAG_NAME, "progress")
        assert [float(bar.get_attribute("value")) for bar in bars] == [0.75, 0.25]
        assert "ms" in browser.find_element(By.ID, "latency").text and browser.title == "Try a model"
        folder = Path(os.environ.get("EZ_ARTIFACTS", tmp_path))
        assert browser.save_screenshot(str(folder / "page.png"))
        assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
