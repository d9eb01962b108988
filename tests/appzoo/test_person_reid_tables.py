"""Tables of persons: the data sets by their file names, drawn persons, bad rows; and ranks of written vectors."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appzoo import discovery
from appzoo.cli.main import main
from appzoo.person_reid.config import PersonDataConfig, RetrievalSettings
from appzoo.person_reid.readers import PERSON_KEYS
from appzoo.person_reid.synthetic import crop
from appzoo.person_reid.target import PersonTarget
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.table import open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.image.files import decode_cell


@pytest.fixture(autouse=True)
def forms():
    discovery.applications()["person_reid"].register_forms()


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 4, 3), np.uint8)).save(path)


def rows_of(spec: str) -> list[dict]:
    table = open_table(spec, schema=None, bad_rows=BadRows("fail"))
    return [dict(zip(chunk.columns, row, strict=True)) for chunk in table.chunks() for row in
            zip(*chunk.columns.values(), strict=True)]  # fmt: skip


def labels_of(spec: str, policy: str = "fail", **data) -> tuple[dict[str, list], BadRows]:
    bad = BadRows(policy)
    target = PersonTarget(PersonDataConfig(**data), RetrievalSettings())
    table = open_table(spec, schema=None, bad_rows=bad)
    parts = []
    for chunk in table.chunks():
        columns = target.encode(chunk, ()).columns
        parts.append({name: values[chunk.accepted] for name, values in columns.items()})
    return {name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]}, bad


def test_market_1501(tmp_path):
    for file in ("bounding_box_test/-1_c1s1_000401_03.jpg", "bounding_box_test/0000_c3s2_000151_01.jpg",
                 "bounding_box_test/0002_c2s1_000301_01.jpg", "query/0002_c1s1_000451_03.jpg",
                 "bounding_box_train/0007_c6s3_077467_01.jpg"):  # fmt: skip
        picture(tmp_path / "Market" / file)
    (tmp_path / "Market" / "query" / "Thumbs.db").write_bytes(b"x")
    labels, _ = labels_of(f"{tmp_path}/Market/query,{tmp_path}/Market/bounding_box_test")
    assert labels["pid"] == [2, -1, 0, 2] and labels["camera"] == [1, 1, 3, 2] and labels["role"] == [1, 2, 2, 2]
    assert labels["clothes"] == [-1] * 4 and labels["order"] == [0, 1, 2, 3]
    train, _ = labels_of(f"{tmp_path}/Market/bounding_box_train/")
    assert train["pid"] == [7] and train["camera"] == [6] and train["role"] == [0]
    (row,) = rows_of(f"{tmp_path}/Market/bounding_box_train")
    assert (tmp_path / "Market" / row["image"]).is_file() and row["name"] == "0007_c6s3_077467_01.jpg"


def test_ltcc(tmp_path, monkeypatch):
    for file in ("train/012_1_c3_015833.png", "query/001_1_c1_000100.png", "test/001_2_c11_000101.png"):
        picture(tmp_path / file)
    monkeypatch.chdir(tmp_path)
    labels, _ = labels_of("query,test")
    assert (labels["pid"], labels["clothes"], labels["camera"]) == ([1, 1], [1, 2], [1, 11])
    assert labels["role"] == [1, 2] and labels_of("train")[0]["role"] == [0]


def test_prcc(tmp_path):
    for file in (
        "train/001/A_cropped_rgb001.jpg",
        "train/001/C_cropped_rgb002.jpg",
        "val/002/B_cropped_rgb001.jpg",
        "test/A/074/cropped_rgb001.jpg",
        "test/B/074/cropped_rgb002.jpg",
        "test/C/074/cropped_rgb003.jpg",
    ):
        picture(tmp_path / "rgb" / file)  # fmt: skip
    labels, _ = labels_of(f"{tmp_path}/rgb/test")
    assert labels["pid"] == [74] * 3 and labels["role"] == [2, 1, 1]
    assert (labels["camera"], labels["clothes"]) == ([1, 2, 3], [1, 1, 2])
    train, _ = labels_of(f"{tmp_path}/rgb/train,{tmp_path}/rgb/val")
    assert (train["pid"], train["camera"], train["clothes"]) == ([1, 1, 2], [1, 3, 2], [1, 2, 1])
    assert train["role"] == [0, 0, 0]
    row = rows_of(f"{tmp_path}/rgb/test")[0]
    assert (tmp_path / "rgb" / row["image"]).is_file()


def test_a_picture_whose_name_says_nothing_is_a_bad_row(tmp_path):
    for file in ("query/0002_c1s1_000451_03.jpg", "query/holiday.jpg"):
        picture(tmp_path / file)
    with pytest.raises(DataError, match="unreadable identity: 'holiday.jpg'"):
        labels_of(f"{tmp_path}/query")
    labels, bad = labels_of(f"{tmp_path}/query", "skip")
    assert labels["pid"] == [2] and bad.reasons == {"unreadable identity": 1}


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_table_of_ones_own(tmp_path):
    good = {"image": "a.png", "pid": 3, "camera": 1, "clothes": 2, "split": "query"}
    bad = [{"pid": "x"}, {"pid": -2}, {"camera": 1.5}, {"clothes": ""}, {"split": "dev"}, {"pid": 2**40}]
    path = write_rows(tmp_path / "t.jsonl", [good, *({**good, **each} for each in bad), {**good, "split": 3}])
    labels, account = labels_of(path, "skip")
    assert labels["pid"] == [3, -1] and labels["role"] == [1, 3] and labels["order"] == [0, 7]
    assert account.reasons == {"unreadable identity": 3, "unreadable number": 2, "unknown split": 1}
    (tmp_path / "u").mkdir()
    wrong = write_rows(tmp_path / "u" / "t.jsonl", [good] * 5 + [{**good, "split": "dev"}])
    with pytest.raises(
        DataError, match="t.jsonl:6: column 'split': unknown split: 'dev'; known: train, query, gallery"
    ):
        labels_of(wrong)


def test_two_tables_without_a_column_that_says_which(tmp_path):
    row = {"image": "a.png", "pid": 3}
    tables = [write_rows(tmp_path / name, [row]) for name in ("my_query.jsonl", "gallery.jsonl")]
    names = dict.fromkeys(("camera_name", "clothes_name", "split_name"), None)
    labels, _ = labels_of(",".join(tables), **names)
    assert labels["role"] == [1, 2] and labels["camera"] == labels["clothes"] == [-1, -1]


def settings(**changes) -> dict:
    return {**dict.fromkeys(PERSON_KEYS, 2), "first_pid": 5, "height": 32, "width": 16, "split": "train"} | changes


def test_drawn_persons(tmp_path):
    path = tmp_path / "p.persons"
    path.write_text(json.dumps(settings(identities=3, labelled=1)))
    rows = rows_of(str(path))
    assert len(rows) == 3 * 2 * 2 * 2 and [row["pid"] for row in rows[::8]] == ["5", "-1", "-1"]
    mask = decode_cell(rows[5]["mask"], "", lambda data: np.asarray(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(mask, crop(2, 5, 1, 0, 1, (32, 16))[1])
    path.write_text(json.dumps(settings(split="test")))
    labels, _ = labels_of(str(path))
    assert labels["role"] == [1, 1, 2, 2] * 4 and labels["camera"] == [0, 0, 1, 1] * 4


def test_what_is_drawn_depends_on_its_numbers_alone():
    one, mask = crop(1, 7, 0, 2, 0)
    again, same = crop(1, 7, 0, 2, 0)
    np.testing.assert_array_equal(one, again)
    other, dressed = crop(1, 7, 1, 2, 0)
    assert set(np.unique(mask)) == {0, 1, 2} and one.shape == (64, 32, 3)
    # Another outfit is another draw of the pose, too; the share of the garments stays.
    assert abs((mask > 0).mean() - (dressed > 0).mean()) < 0.05 and not np.array_equal(one[mask > 0], other[mask > 0])
    np.testing.assert_array_equal(mask, same)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is empty"), ("{", "is not JSON"), ("[]", "no description"), ('{"seed": 1}', "no description"),
        (json.dumps(settings(images=0)), "images is 0; accepted: a whole number from 1 to 100"),
        (json.dumps(settings(split="dev")), "split is 'dev'"),
        (json.dumps(settings(height=33)), "even numbers"),
        (json.dumps(settings(identities=10**5, images=100)), "at most 1,000,000 images"),
    ],
)  # fmt: skip
def test_wrong_descriptions_of_persons_are_one_message(tmp_path, text, error):
    (tmp_path / "p.persons").write_text(text)
    with pytest.raises(DataError, match=error):
        rows_of(str(tmp_path / "p.persons"))


def test_identities_of_a_run_are_read_strictly(tmp_path):
    target = PersonTarget(PersonDataConfig(), RetrievalSettings(), np.array([3, 8]))
    target.save_assets(tmp_path)
    loaded = PersonTarget.load(PersonDataConfig(), RetrievalSettings(), tmp_path)
    classes, known = loaded.class_ids(np.array([8, 3, 4, -1, 9], np.int32))
    assert (classes.numpy()[:2].tolist(), known.numpy().tolist()) == ([1, 0], [1, 1, 0, 0, 0])
    (tmp_path / PersonTarget.FILE).write_text('{"pids": ["3"]}')
    with pytest.raises(ModelError, match="does not list identities"):
        PersonTarget.load(PersonDataConfig(), RetrievalSettings(), tmp_path)


# rank ------------------------------------------------------------------------------------------------------------


def write_vectors(path: Path, names: list[str], vectors: np.ndarray) -> str:
    with open_writer(path, ["embedding", "name"]) as writer:
        writer.write({"embedding": list(vectors), "name": names})
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "tsv"])
def test_rank_writes_the_nearest_with_their_cosines(tmp_path, capfd, suffix):
    random = np.random.default_rng(0)
    queries, gallery = random.normal(size=(3, 5)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    gallery[6] = gallery[2]
    files = [
        write_vectors(tmp_path / f"{name}.{suffix}", [f"{name}{i}" for i in range(len(rows))], rows)
        for name, rows in (("q", queries), ("g", gallery))
    ]
    words = [f"--query={files[0]}", f"--gallery={files[1]}", "--topk=7", f"--outputTable={tmp_path}/out.jsonl"]
    schema = ["--inputSchema=embedding:float:5,name:str:1"] if suffix == "tsv" else []
    assert main(["rank", *words, *schema]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "queries": 3,
        "gallery": 7,
        "topk": 7,
        "output": f"{tmp_path}/out.jsonl",
    }
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 21 and [row["rank"] for row in rows[:7]] == [1, 2, 3, 4, 5, 6, 7]
    for row in rows:
        a, b = queries[int(row["query"][1:])].astype(float), gallery[int(row["gallery"][1:])].astype(float)
        assert row["score"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    for query in range(3):
        listed = [(-row["score"], row["gallery"]) for row in rows if row["query"] == f"q{query}"]
        assert listed == sorted(listed), "of equal scores the earlier row of the gallery first"
    # An output is not replaced unasked.
    assert main(["rank", *words, *schema]) == 2


def test_rank_refuses_what_it_cannot_compare(tmp_path, capfd):
    good = write_vectors(tmp_path / "g.jsonl", ["a", "b"], np.eye(2))
    zero = write_vectors(tmp_path / "z.jsonl", ["a", "b"], np.array([[1, 0], [0, 0]]))
    wide = write_vectors(tmp_path / "w.jsonl", ["a"], np.ones((1, 3)))
    for query, code, text in ((zero, 3, "z.jsonl:2: the vector has no direction"), (wide, 3, "3 numbers, those of the"),
                              (str(tmp_path / "no.jsonl"), 3, "does not exist")):  # fmt: skip
        assert main(["rank", f"--query={query}", f"--gallery={good}", f"--outputTable={tmp_path}/o.csv"]) == code
        assert text in capfd.readouterr().err
    assert main(["rank", f"--query={good}", f"--gallery={good}", f"--outputTable={tmp_path}/o.csv", "--id=nam"]) == 2
    assert "did you mean name" in capfd.readouterr().err
    assert main(["rank", "--query=a", "--topk=0"]) == 2
    with pytest.raises(ConfigError, match="unknown verb"):
        from appzoo.cli.main import run

        run(["rnak"])


def test_verbs_of_applications_are_listed_behind_the_others(capfd):
    main([])
    lines = capfd.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("  rank ")]
    assert line.endswith("Rank a gallery for each query by the vectors that `predict` has written.")
    with pytest.raises(SystemExit):
        discovery.commands()["rank"](["--help"])
    assert "--topk" in capfd.readouterr().out
