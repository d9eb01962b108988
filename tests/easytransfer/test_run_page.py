"""The HTML report of a run shows its card and pictures, and nothing that is not the run's own."""

import base64
import json

from easytransfer.run.folder import RunFolder
from easytransfer.run.page import PAGE_FILE, write_page

PICTURE = b"\x89PNG\r\n\x1a\nnot really"


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
    assert "<strong>accuracy</strong></td>\n<td>0.9100</td>" in text and "<h2>Training</h2>" in text
    slowest = text.split("<h2>Slowest steps</h2>")[1]
    assert slowest.index("<td>20</td>\n<td>25.0</td>\n<td>25%</td>") < slowest.index("<td>10</td>")


def test_text_of_others_stays_text(tmp_path):
    hostile = ["<script>alert(1)</script>", "![x](https://example.org/a.png)", "`` [y](javascript:alert(1)) ``"]
    text = run_with(tmp_path / "run", hostile, rates=(1.0,)).read_text()
    assert "<script" not in text and "<a " not in text and 'src="http' not in text
    assert "alert(1)" in text and "Slowest steps" not in text
    assert "default-src 'none'" in text
