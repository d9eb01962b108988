"""Settings that all applications on a text and regions of an image share. Imports no TensorFlow."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings
from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.config.schema import setting

# Where regions come from: numbers of the table, an .npz file an image, records found by the id of the image, and
# pictures that a network reads, cell by cell or in the boxes of a column.
Source = Literal["table", "npz", "records", "grid", "boxes"]
PICTURES = ("grid", "boxes")


class VisionLanguageDataConfig(DataConfig):
    """Tables of texts and images, and their columns."""

    first_sequence: str | None = setting("text", "Column with the text.", modes="TEPS")
    image_column: str = setting(
        "image_feature",
        "Column with the image, as model.region_source says: numbers, the path of an .npz file, an id, or a picture.",
        modes="TEP",
    )
    box_column: str | None = setting(
        None,
        "Column with 4 numbers for each region: x1, y1, x2, y2 divided by width and height of the image.",
        modes="TEP",
    )
    region_file: str | None = setting(
        None,
        "File of regions, or several: bottom-up attention .tsv, or .tfrecord; for model.region_source=records.",
        modes="TEP",
        path="list",
    )
    region_cache: str | None = setting(
        None,
        "Folder that keeps what a network has computed of pictures, for later jobs.",
        advanced=True,
        modes="TEP",
        path="one",
    )


class VisionLanguageSettings(EncoderSettings):
    """A network on words and regions, and where regions come from."""

    pretrain_model_name_or_path: str = setting(
        "minilm-l6-en",
        "Network to start from: an ImageBERT, VideoBERT or LXMERT by its ModelZoo name or folder; or a BERT, which "
        "becomes an ImageBERT whose weights of regions are random.",
        advanced=True,
        modes="T",
        path="one",
    )
    region_source: Source = setting(
        "table",
        "Where regions come from: table: numbers in image_column; npz: a file for each image; records: region_file, by "
        "the id in image_column; grid and boxes: computed by region_network of pictures, in cells or in box_column.",
        advanced=True,
        modes="T",
    )
    max_regions: int | None = setting(
        None,
        "Most regions of an image; more make a bad row; None: as many as the network to start from has.",
        advanced=True,
        modes="T",
        ge=1,
    )
    feature_size: int | None = setting(
        None,
        "Numbers of a region; None: those that the network to start from reads, or that region_network gives.",
        advanced=True,
        modes="T",
        ge=1,
    )
    read_boxes: bool | None = setting(
        None,
        "Whether an ImageBERT reads the boxes of regions; None: as the network to start from does, a BERT where there "
        "are boxes.",
        advanced=True,
        modes="T",
    )
    region_positions: bool | None = setting(
        None,
        "Whether the order of regions means something to an ImageBERT; None: as for the network to start from, to a "
        "BERT where it reads no boxes.",
        advanced=True,
        modes="T",
    )
    region_network: str | None = setting(
        None,
        "Image network with weights that computes regions of pictures: a ModelZoo name or a folder. It is not trained.",
        advanced=True,
        modes="T",
        path="one",
    )
    region_grid: int = setting(
        8, "Cells in a row and in a column of a picture, for region_source=grid.", advanced=True, modes="T", ge=1
    )
    region_image_size: int = setting(
        256, "Height and width that pictures are brought to for region_network.", advanced=True, modes="T", ge=8
    )


class VisionLanguageConfig(JobConfig):
    """A text and regions of an image."""

    data: VisionLanguageDataConfig = VisionLanguageDataConfig()
    model: VisionLanguageSettings = VisionLanguageSettings()

    @model_validator(mode="after")
    def _check_regions(self) -> VisionLanguageConfig:
        source, data, model = self.model.region_source, self.data, self.model
        if data.second_sequence is not None:
            raise ValueError("data.second_sequence does not apply: a row has one text and an image; remove it")
        if data.box_column is not None and source not in ("table", "boxes"):
            raise ValueError(f"data.box_column is not read with model.region_source={source}; remove it")
        if source == "boxes" and data.box_column is None:
            raise ValueError("model.region_source=boxes needs data.box_column, the column of the boxes")
        if data.region_file is not None and source != "records":
            raise ValueError(f"data.region_file is not read with model.region_source={source}: set it to records")
        if (model.region_network is not None) != (source in PICTURES):
            raise ValueError(
                "model.region_network computes regions of pictures: it goes with model.region_source=grid or boxes, "
                f"which is {source}"
            )
        if source == "grid" and model.max_regions not in (None, model.region_grid**2):
            raise ValueError(
                f"model.max_regions={model.max_regions}, and model.region_grid={model.region_grid} makes "
                f"{model.region_grid**2} regions; leave model.max_regions out"
            )
        return self
