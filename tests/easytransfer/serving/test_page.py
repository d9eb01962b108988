"""The page in Chromium: texts, pairs and images in, bars and latency out; nothing leaves the server.

Pictures of it are kept, see `page_browser`.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from running_server import RunningServer
from toy_models import save_toy

from easytransfer.savedmodel.array_json import encode_array
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.serving.page import model_facts
from easytransfer.serving.settings import TOKEN_VARIABLE

pytest.importorskip("selenium")
from page_browser import NARROW, WIDE, Browser
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

MARKUP = "<img src=x onerror=document.title='broken'>"
TOKEN = "a token of sixteen bytes or more"


def save_classifier(folder: Path, names: tuple[str, ...], function: Callable[..., tuple[tf.Tensor, tf.Tensor]]) -> None:
    """Saves a model as the exports are: strings in, `classify` on Examples beside the default signature."""
    texts = tf.TensorSpec([None], tf.string)
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}

    def answer(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        classes, scores = function(*(given[name] for name in names))
        return {"label": classes[:, 0], "probabilities": scores}

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(
            zip(("classes", "scores"), function(*map(tf.io.parse_example(inputs, features).get, names)), strict=True)
        )

    signatures = {
        "serving_default": tf.function(answer).get_concrete_function(**{name: texts for name in names}),
        "classify": tf.function(classify).get_concrete_function(inputs=texts),
    }
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


def two_classes(first: tf.Tensor, second: str, score: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.stack([first, tf.fill(tf.shape(first), second)], 1), tf.stack([score, 1 - score], 1)


def echo(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The text itself is the name of a class."""
    return two_classes(text, "other", tf.fill(tf.shape(text), 0.25))


def same(text_a: tf.Tensor, text_b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    score = tf.where(text_a == text_b, 0.9, 0.2)
    return two_classes(tf.fill(tf.shape(text_a), "same"), "different", score)


def save_tagger(folder: Path) -> None:
    """Saves a model as sequence labeling is exported: a tag for each word in a string, and more."""

    def tag(text: tf.Tensor) -> dict[str, tf.Tensor]:
        tags = tf.strings.regex_replace(tf.strings.regex_replace(text, r"[A-Z]\w+", "B-PER"), r"\b[a-z]\w*", "O")
        return {"tags": tags, "probabilities": tf.fill([tf.size(text), 2], 1 / 3)}

    traced = tf.function(tag).get_concrete_function(text=tf.TensorSpec([None], tf.string))
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": traced})


def brightness(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The share of white, of an image that is really decoded."""

    def share(data: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.cast(tf.io.decode_png(data, 1), tf.float32)) / 255

    score = tf.map_fn(share, image_bytes, fn_output_signature=tf.float32)
    return two_classes(tf.fill(tf.shape(image_bytes), "bright"), "dark", score)


def save_lanes(folder: Path) -> None:
    """Saves a model as lane detection is exported: a lane that goes straight down, one aslant, and one that is not."""

    def lanes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.size(image_bytes)
        x = tf.constant([[[20.0, 20, 20], [40, 60, 80], [-2, 50, -2]]])
        return {
            "lane_x": tf.tile(x, [count, 1, 1]),
            "rows": tf.tile([[10, 20, 30]], [count, 1]),
            "image_size": tf.tile([[40, 100]], [count, 1]),
        }

    traced = tf.function(lanes).get_concrete_function(image_bytes=tf.TensorSpec([None], tf.string))
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": traced})


def save_pictures(folder: Path) -> None:
    """Saves a model that answers with two files: a picture of 48 x 32 pixels, and one that is none."""

    def pictures(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        picture = tf.io.encode_png(tf.fill([32, 48, 3], tf.constant(200, tf.uint8)))
        return {name: tf.fill(tf.shape(image_bytes), x) for name, x in (("map_bytes", picture), ("other_bytes", "no"))}

    traced = tf.function(pictures).get_concrete_function(image_bytes=tf.TensorSpec([None], tf.string))
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": traced})


def many(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A hundred classes, the later the likelier."""
    classes, scores = tf.constant([[f"class {i}" for i in range(100)]]), tf.range(100.0)[None] / 4950
    return tf.repeat(classes, tf.size(text), 0), tf.repeat(scores, tf.size(text), 0)


def save_curves(folder: Path) -> None:
    """Saves a model with a signature for people beside the one for programs: curves for a text of words, one each."""

    def curves(table: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.split(table)
        count = tf.cast(words.row_lengths(), tf.int32)
        steps = tf.range(tf.reduce_max(count) + 1)  # one more than there are, as padding
        x = tf.repeat(tf.cast(steps, tf.float32)[None] / 2, tf.size(table), 0)
        return {
            "problem": tf.where(count > 0, "", "no word"),
            "win_prob_curve": 1 / (1 + x),
            "contributions_curve": tf.stack([1 + x, -0.5 - 0 * x, 0.25 * x], -1),
            "curve_x": x,
            "curve_names": tf.tile([["gold", "towers", "<b>kills</b>"]], [tf.size(table), 1]),
            "curve_length": count,
        }

    def plain(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x}

    signatures = {
        "serving_default": tf.function(plain).get_concrete_function(x=tf.TensorSpec([None], tf.float32)),
        "page": tf.function(curves).get_concrete_function(table=tf.TensorSpec([None], tf.string)),
    }
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


def save_facts(folder: Path) -> None:
    """Puts what an export says of itself beside a tagger with two probabilities."""
    texts = np.array(["", "we met Anna", 'it\'s 5 > 4 & "so"\n'], object)
    facts = {
        "config": {"model_name": "sequence_labeling_bert", "checkpoint_dir": "runs/<b>mine"},
        "created": "2026-11-30T18:15:42+00:00",
        "labels": ["O", "B-PER"],
        "samples": {"serving_default": {"inputs": {"text": encode_array(texts)}}},
    }
    (folder / MANIFEST).parent.mkdir()
    (folder / MANIFEST).write_text(json.dumps(facts))


def three_quarters() -> bytes:
    """Returns a PNG file of 16 x 16 pixels, a quarter of them black."""
    parts = [tf.fill([16, 12, 1], tf.constant(255, tf.uint8)), tf.zeros([16, 4, 1], tf.uint8)]
    return tf.io.encode_png(tf.concat(parts, 1)).numpy()


def save_picture_facts(folder: Path) -> None:
    """Puts rows of pictures beside a model: what begins as a JPEG file does, and a PNG file."""
    rows = {"image_bytes": encode_array(np.array([b"\xff\xd8\xff\xe0", three_quarters()], object))}
    facts = {"config": {"checkpoint_dir": "runs/photos"}, "samples": {"serving_default": {"inputs": rows}}}
    (folder / MANIFEST).parent.mkdir()
    (folder / MANIFEST).write_text(json.dumps(facts))


class Page:
    """The page of a server in a window."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, model: str, **look: object) -> None:
        self.browser.open(self.address, **look)
        self.browser.wait(lambda page: page.find_elements(By.CSS_SELECTOR, "#model option"))
        self.choose(model)

    def choose(self, model: str) -> None:
        Select(self.find("#model")).select_by_visible_text(model)
        self.browser.wait(lambda page: self.find("#version").text or self.find("#answer").text)

    def find(self, selector: str) -> WebElement:
        return self.browser.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Returns the text of an element as soon as it has some."""
        return self.browser.wait(lambda page: self.find(selector).text)

    def rows(self) -> list[list[str]]:
        """Returns label and percentage of every bar of the answer."""
        self.text("#latency")
        return [row.text.split("\n") for row in self.browser.driver.find_elements(By.CSS_SELECTOR, "#answer .row")]

    def repeat(self, folder: Path, **variables: str) -> None:
        """Runs the command and the program that the page shows; both print what it was answered."""
        self.browser.run("document.getElementById('raw').open = true")
        answer = json.loads(self.text("#json"))
        # All that a user has of the page is its text.
        environment = {"PATH": os.environ["PATH"], **variables}
        run = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 60, "check": True}
        program = subprocess.run([sys.executable, "-I", "-c", self.find("#python").text], **run)
        assert ast.literal_eval(program.stdout) == answer
        if shutil.which("curl"):
            assert json.loads(subprocess.run(["sh", "-c", self.find("#curl").text], **run).stdout) == answer

    def check(self) -> None:
        """Nothing outside was asked for, nothing complained, all is readable and inside the window."""
        asked = self.browser.addresses()
        assert asked and all(address.startswith(self.address) for address in asked), asked
        assert self.browser.complaints() == []
        assert self.browser.faint() == [] and not self.browser.overflows()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("page")
    save_classifier(base / "texts" / "3", ("text",), echo)
    save_classifier(base / "pairs" / "1", ("text_a", "text_b"), same)
    save_classifier(base / "images" / "1", ("image_bytes",), brightness)
    save_classifier(base / "hundred" / "1", ("text",), many)
    save_tagger(base / "tags" / "1")
    save_curves(base / "curves" / "1")
    save_classifier(base / "photos" / "1", ("image_bytes",), brightness)
    save_picture_facts(base / "photos" / "1")
    save_tagger(base / "told" / "1")
    save_facts(base / "told" / "1")
    save_lanes(base / "lanes" / "1")
    save_pictures(base / "pictures" / "1")
    save_toy(base / "numbers" / "1", 1.0, only="serving_default")
    return base


@pytest.fixture(scope="module")
def server(models) -> Iterator[RunningServer]:
    with RunningServer(models) as running:
        yield running


@pytest.fixture
def page(browser, server) -> Page:
    return Page(browser, server.server.addresses["rest"] + "/")


def test_a_text_is_classified_and_never_read_as_markup(page):
    page.open("texts")
    assert page.text("#version") == "Version 3" and page.find("label[for=input-text]").text == "Text"
    page.find("#input-text").send_keys(MARKUP)
    page.find("#send").click()
    assert page.rows() == [["other", "75.0 %"], [MARKUP, "25.0 %"]]
    bars = page.browser.driver.find_elements(By.TAG_NAME, "progress")
    assert [float(bar.get_attribute("value")) for bar in bars] == [0.75, 0.25]
    assert bars[0].size["width"] > 200 and bars[0].get_attribute("aria-label") == "other"
    assert float(page.text("#latency").split(" ms")[0]) > 0 and page.browser.driver.title == "Try a model"
    assert page.find("#example").is_displayed() is False and page.find("#title").text == "Try a model"
    page.check()
    page.browser.keep("page-text")


def test_a_pair_is_classified_with_the_keyboard_alone(page):
    page.open("pairs")
    page.browser.run("document.getElementById('model').focus()")
    labels = [label.text for label in page.browser.driver.find_elements(By.CSS_SELECTOR, "#fields label")]
    assert labels == ["Text a", "Text b"]
    keys = page.browser.driver.switch_to
    for text in ("Is it open?", "Is it open?"):
        keys.active_element.send_keys(Keys.TAB)
        keys.active_element.send_keys(text)
    keys.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    assert page.rows() == [["same", "90.0 %"], ["different", "10.0 %"]]
    keys.active_element.send_keys(Keys.TAB)
    assert keys.active_element.get_attribute("id") == "send"
    assert page.browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.check()
    page.browser.keep("page-pair")


def test_an_image_is_uploaded_seen_and_classified(page, tmp_path):
    half = tf.concat([tf.fill([16, 8, 1], 255), tf.fill([16, 8, 1], 0)], 1)
    tf.io.write_file(str(tmp_path / "half.png"), tf.io.encode_png(tf.cast(half, tf.uint8)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    page.open("images")
    page.find("#send").click()  # the browser asks for a file itself
    assert page.browser.run("return document.querySelector('#input-image_bytes:invalid') !== null")
    page.find("#input-image_bytes").send_keys(str(tmp_path / "half.png"))
    page.find("#send").click()
    assert page.rows() == [["bright", "50.0 %"], ["dark", "50.0 %"]]
    page.repeat(tmp_path)
    assert (
        page.browser.wait(lambda _: page.browser.run("return document.querySelector('#fields img').naturalWidth")) == 16
    )
    page.check()
    page.browser.keep("page-image")
    page.find("#input-image_bytes").send_keys(str(tmp_path / "broken.png"))
    page.find("#send").click()
    message = page.text("#answer .error")
    assert "PNG" in message and page.text("#answer") == message and not page.find("#latency").text
    assert page.browser.faint() == [] and not page.find("#fields img").is_displayed()
    assert all("status of 400" in line for line in page.browser.complaints())
    page.browser.keep("page-error")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_narrow_screen(page, scheme):
    page.open("texts", size=NARROW, scheme=scheme)
    page.find("#input-text").send_keys("a word of a length that no line of a telephone holds: " + "x" * 80)
    page.find("#send").click()
    assert len(page.rows()) == 2
    page.check()
    assert page.find("#send").size["height"] >= 36 and page.find("#answer progress").size["width"] > 150
    page.browser.keep(f"page-narrow-{scheme}")


def test_the_likeliest_of_many_classes(page):
    page.open("hundred", size=WIDE, scheme="dark")
    page.find("#input-text").send_keys("x")
    page.find("#send").click()
    rows = page.rows()
    assert (
        len(rows) == 20 and rows[0] == ["class 99", "2.0 %"] and page.text("#answer .quiet") == "and 80 classes below"
    )
    page.check()
    page.browser.keep("page-many-dark")


def test_tags_stand_below_their_words(page):
    page.open("tags", scheme="dark")
    page.find("#input-text").send_keys("we  met Anna\nthere")
    page.find("#send").click()
    assert page.text("#answer").split("\n") == (
        ["Probabilities", "[ 0.333333, 0.333333 ]", "Tags", "we", "O", "met", "O", "Anna", "B-PER", "there", "O"]
    )
    page.check()
    page.browser.keep("page-tags-dark")


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_curves_are_drawn_with_their_parts_stacked(page, size, scheme):
    page.open("curves", size=size, scheme=scheme)
    page.find("#input-table").send_keys("one two three")
    page.find("#send").click()
    page.text("#latency")
    charts = page.browser.driver.find_elements(By.CSS_SELECTOR, "#answer > svg")
    assert [chart.get_attribute("aria-label") for chart in charts] == ["Win prob curve", "Contributions curve"]
    assert all(chart.size["width"] > 200 for chart in charts)
    points = [chart.find_element(By.TAG_NAME, "polyline").get_attribute("points").split() for chart in charts]
    # Three of four points; the sum of the parts rises by 0.625 a step.
    assert [len(line) for line in points] == [3, 3]
    heights = [float(point.split(",")[1]) for point in points[1]]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2) and heights[0] > heights[1]
    bars = [
        {name: float(bar.get_attribute(name)) for name in ("x", "y", "width", "height")}
        for bar in charts[1].find_elements(By.TAG_NAME, "rect")
    ]
    assert len(bars) == 9
    # The last frame: 2 upwards, 0.5 on top of it, 0.5 downwards from 0, where the first bar begins.
    first, down, top = bars[6:]
    assert first["height"] == pytest.approx(4 * down["height"], rel=0.01)
    assert top["y"] + top["height"] == pytest.approx(first["y"], abs=0.01)
    assert down["y"] == pytest.approx(first["y"] + first["height"], abs=0.01)
    assert page.text("#answer .legend").split() == ["gold", "2", "towers", "-0.5", "<b>kills</b>", "0.25"]
    page.check()
    page.browser.keep(f"page-curves-{scheme}")
    page.find("#input-table").send_keys(Keys.CONTROL, "a")
    page.find("#input-table").send_keys(Keys.SPACE)
    page.find("#send").click()
    assert page.text("#answer .error") == "no word"


def test_lanes_are_drawn_over_the_image(page, tmp_path):
    """The image is twice as large as that whose pixels the lanes are in."""
    tf.io.write_file(str(tmp_path / "road.png"), tf.io.encode_png(tf.fill([80, 200, 3], tf.constant(90, tf.uint8))))
    page.open("lanes")
    page.find("#input-image_bytes").send_keys(str(tmp_path / "road.png"))
    page.browser.wait(lambda _: page.browser.run("return document.querySelector('#fields img').naturalWidth"))
    page.find("#send").click()
    page.text("#latency")
    assert page.find("#answer canvas").get_attribute("aria-label") == "2 lanes over the chosen image"
    colours = page.browser.run(
        "const pixels = document.querySelector('#answer canvas').getContext('2d').getImageData(0, 0, 200, 80).data;"
        "return [[41, 41], [121, 41], [101, 31], [121, 70], [190, 41]]"
        ".map(([x, y]) => [...pixels.slice(4 * (200 * y + x), 4 * (200 * y + x) + 3)]);"
    )
    red, orange, grey = [230, 70, 60], [250, 170, 40], [90, 90, 90]
    for found, expected in zip(colours, [red, orange, orange, grey, grey], strict=True):
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 40, colours  # borders are smoothed
    page.check()
    page.browser.keep("page-lanes")


def test_pictures_of_an_answer_are_shown(page, tmp_path):
    tf.io.write_file(str(tmp_path / "left.png"), tf.io.encode_png(tf.fill([8, 8, 3], tf.constant(90, tf.uint8))))
    page.open("pictures")
    page.find("#input-image_bytes").send_keys(str(tmp_path / "left.png"))
    page.find("#send").click()
    page.text("#latency")
    page.browser.wait(lambda _: page.browser.run("return document.querySelector('#answer img').naturalWidth") == 48)
    assert page.browser.run("return document.querySelectorAll('#answer img').length") == 1
    assert page.browser.run("return [...document.querySelectorAll('#answer h3')].map((x) => x.textContent)") == [
        "Map",
        "Other",
    ]
    page.check()
    page.browser.keep("page-pictures")


def test_models_that_take_no_text_and_a_server_that_is_gone(browser, models):
    with RunningServer(models) as server:
        page = Page(browser, server.server.addresses["rest"] + "/")
        page.open("numbers")
        assert "arrays of numbers" in page.text("#answer .error") and not page.find("#send").is_enabled()
        page.choose("texts")
        assert not page.find("#result").is_displayed()
        page.find("#input-text").send_keys("anybody there?")
    page.find("#send").click()
    assert page.text("#answer .error") == "The server does not answer."
    browser.wait(lambda _: page.find("#send").is_enabled())


def test_a_token_is_asked_for_and_sent(browser, models, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with RunningServer(models / "texts", TOKEN, token_file=str(file)) as server:
        page = Page(browser, server.server.addresses["rest"] + "/")
        browser.open(page.address)
        for token in ("wrong", TOKEN):
            browser.wait(lambda _: page.find("#token").is_displayed())
            assert "token" in page.text("#answer .error").lower()
            page.find("#token").clear()
            page.find("#token").send_keys(token + Keys.ENTER)
        assert page.text("#version") == "Version 3" and not page.find("#token").is_displayed()
        page.find("#input-text").send_keys("it's")
        page.find("#send").click()
        assert TOKEN not in page.text("#curl") + page.text("#python")
        page.rows()
        page.repeat(tmp_path, **{TOKEN_VARIABLE: TOKEN})
        assert TOKEN not in json.dumps(browser.addresses())


def test_an_export_says_what_it_is_and_an_example_is_asked(page, tmp_path):
    page.open("told")
    assert page.browser.driver.title == "<b>mine: try it" and page.find("#title").text == "<b>mine"
    assert page.find("#about").text == "sequence_labeling_bert, exported on 2026-11-30"
    assert page.find("#input-text").get_property("value") == "we met Anna" and page.find("#example").is_displayed()
    page.find("#send").click()
    # Two classes have a third each.
    assert page.rows() == [["O", "33.3 %"], ["B-PER", "33.3 %"]]
    assert "B-PER" in page.text("#answer .word:nth-child(3) small")
    page.repeat(tmp_path)
    page.check()
    page.browser.check_access("page-example")
    page.find("#clear").click()
    focus = page.browser.driver.switch_to.active_element
    assert focus.get_attribute("id") == "input-text" and not focus.get_property("value")
    assert not page.find("#example").is_displayed()
    focus.send_keys("a \\ 'quoted' \"text\" $HOME `ls` %s ü 质 \n")
    page.find("#send").click()
    page.browser.wait(lambda _: "quoted" in page.find("#answer").text)
    page.repeat(tmp_path)
    page.browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    for name in ("curl", "python", "json"):
        button = page.find(f"[data-of={name}]")
        button.click()
        page.browser.wait(lambda _, button=button: button.text == "Copied")
        assert page.browser.run("return window.copied") == page.find(f"#{name}").get_property("textContent")


def test_an_image_that_an_export_was_checked_with_is_asked_by_one_click(page, models, tmp_path):
    page.open("photos")
    assert page.find("#example").is_displayed() and page.find("#clear").is_displayed()
    assert not page.find("#hint").is_displayed()
    page.find("#send").click()
    assert page.rows() == [["bright", "75.0 %"], ["dark", "25.0 %"]]
    assert page.browser.run("return document.querySelector('#fields img').naturalWidth") == 16
    page.check()
    # The command and the program read the file where the reader has saved it.
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    save = page.find("#fields a")
    save.click()
    page.browser.wait(lambda _: (tmp_path / "image.png").is_file())
    assert (tmp_path / "image.png").read_bytes() == three_quarters()
    page.repeat(tmp_path)
    page.browser.check_access("page-image-example")
    tf.io.write_file(str(tmp_path / "own.png"), tf.io.encode_png(tf.fill([8, 8, 1], tf.constant(0, tf.uint8))))
    page.find("#input-image_bytes").send_keys(str(tmp_path / "own.png"))
    assert not save.is_displayed()
    page.find("#send").click()
    page.browser.wait(lambda _: page.rows()[0] == ["dark", "100.0 %"])
    page.find("#clear").click()
    assert not page.find("#input-image_bytes").get_property("value") and not page.find("#example").is_displayed()
    assert not page.find("#fields img").is_displayed()


def test_facts_of_exports(models, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    assert model_facts(tmp_path) == model_facts(models / "texts" / "3") == {}
    path = tmp_path / MANIFEST
    inputs = {"text_a": encode_array(np.array(["a", "b", "c"])), "text_b": encode_array(np.array([" ", "", "d"]))}
    for manifest, found in (
        ("{", {}),
        ('{"samples": {"classify": {"inputs": {"inputs": 3}}}, "config": 3, "created": null}', {}),
        (json.dumps({"samples": {"one": {"inputs": inputs}}}), {"examples": {"one": {"text_a": "c", "text_b": "d"}}}),
        (
            json.dumps({"samples": {"one": {"inputs": {"x": encode_array(np.zeros(2))}}}, "labels": ["a"]}),
            {"labels": ["a"]},
        ),
        (json.dumps({"samples": {"one": {"inputs": {"x_bytes": encode_array(np.array([b"\xff"], object))}}}}), {}),
    ):
        path.write_text(manifest)
        assert model_facts(tmp_path) == found


def test_facts_are_guarded_and_those_of_unknown_models_are_refused(models, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with RunningServer(models / "texts", TOKEN, token_file=str(tmp_path / "token")) as server:
        assert server.client.http.get("/page/models/texts").json() == {}
        assert server.client.http.get("/page/models/absent").status_code == 404
        assert server.client.http.get("/page/models/texts", headers={"Authorization": ""}).status_code == 401
