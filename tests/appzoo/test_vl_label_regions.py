"""Classes of a table for regions: what is written, the share of wrong ones, and what is refused."""

import json

import numpy as np
import pytest

from appzoo.cli.main import main
from appzoo.vl_pretraining.commands import label_regions
from easytransfer.data.region_files import RegionFiles
from easytransfer.data.regions import ImageRegions, write_region_records
from easytransfer.errors import DataError

HEAD = "image,region,predictions,probabilities,truth\n"
# Of the five with a true class two are wrong (0.4); of the four with 0.3 or more one is (0.25).
ROWS = [
    'b,1,bag,"0.1,0.9",bag',
    'b,0,coat,"0.75,0.25",coat',
    'a,0,bag,"0.5,0.5",coat',
    "a,1,coat,0.25,bag",
    'a,2,coat,"0.6,0.4",coat',
    'c,0,bag,"0,1",',
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_regions")
    random = np.random.default_rng(0)
    boxes = np.float32([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]])
    images = {
        name: ImageRegions(random.normal(size=[count, 4]).astype(np.float16), boxes[:count], size=(20, 20))
        for name, count in (("a", 3), ("b", 2), ("c", 1))
    }
    write_region_records(folder / "regions.tfrecord", images.items())
    (folder / "objects.txt").write_text("coat,jacket\nbag\n")
    return folder


def flags(folder, rows=ROWS, *more):
    (folder / "table.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return [
        f"--regions={folder / 'regions.tfrecord'}",
        f"--inputTable={folder / 'table.csv'}",
        f"--objectNames={folder / 'objects.txt'}",
        f"--output={folder / 'labelled.tfrecord'}",
        *more,
    ]


def test_regions_get_classes_and_scores_and_the_noise_rate_is_told(folder, capfd):
    assert main(["label_regions", *flags(folder, ROWS, "--trueColumn=truth")]) == 0
    told = json.loads(capfd.readouterr().out)
    assert {name: told[name] for name in ("images", "regions", "checked", "confident")} == {
        "images": 3, "regions": 6, "checked": 5, "confident": 4,
    }  # fmt: skip
    assert told["noise_rate"] == 2 / 5 and told["noise_rate_of_confident"] == 1 / 4
    before, after = RegionFiles(str(folder / "regions.tfrecord")), RegionFiles(str(folder / "labelled.tfrecord"))
    wanted = {"a": ([1, 0, 0], [0.5, 0.25, 0.6]), "b": ([0, 1], [0.75, 0.9]), "c": ([1], [1])}
    for image, (classes, scores) in wanted.items():
        old, new = before.find(image), after.find(image)
        np.testing.assert_array_equal(new.features, old.features)
        np.testing.assert_array_equal(new.boxes, old.boxes)
        assert new.object_id.tolist() == classes
        np.testing.assert_array_equal(new.object_conf, np.float32(scores))


def test_a_column_without_scores_is_certain_and_without_truth_there_is_no_rate(folder):
    told = label_regions(flags(folder, ROWS, "--labelColumn=predictions", "--scoreColumn=none"))
    assert told == {"images": 3, "regions": 6}
    assert RegionFiles(str(folder / "labelled.tfrecord")).find("a").object_conf.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:-1], "rows of 2 images"),
        (ROWS[1:], "one for each of its 2 regions"),
        ([*ROWS, ROWS[0]], "do not stand together"),
        ([*ROWS[:-1], "d,0,bag,1,"], "'d' is in no record"),
        ([*ROWS[:-1], "c,0,shoe,1,"], "no name in --objectNames"),
        ([*ROWS[:-1], "c,0,bag,1.5,"], "is no score"),
        ([*ROWS[:-1], 'c,0,bag,"0.5,nan",'], "is no score"),
        ([*ROWS[:-1], "c,first,bag,1,"], "no number of a region"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, rows, message):
    (folder / "labelled.tfrecord").unlink(missing_ok=True)
    with pytest.raises(DataError, match=message):
        label_regions(flags(folder, rows))
    assert not (folder / "labelled.tfrecord").exists()
