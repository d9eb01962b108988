"""The base of applications on a text and regions of an image: tokens, regions, and the network that reads both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from appzoo.encoder import Encoder, token_batch
from appzoo.region_pictures import PictureRegions, RegionNetwork
from appzoo.vision_language_settings import PICTURES, VisionLanguageConfig
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input, Tensors
from easytransfer.app.inputs.region_labels import LabelMaker
from easytransfer.app.inputs.regions import NpzRegions, RecordRegions, Regions, TableRegions
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError
from modelzoo.imagebert.config import ImageBertConfig
from modelzoo.vision_language import config as networks
from modelzoo.vision_language.backbone import VisionLanguageBackbone


class VisionLanguageEncoder(Encoder):
    """Tokenizer and configuration of a network on words and regions.

    Args:
        job: Configuration whose model section has `VisionLanguageSettings`.
        folder: A run folder or the assets of an export; None takes the ModelZoo.
        changes: Changed values of the network's configuration, such as `label_slots`.

    Attributes:
        config: Sizes of the network.
        count: Most regions of an image.
        region_network: Computes regions of pictures; None where they come from elsewhere.

    Raises:
        ConfigError: Settings and network do not fit together.
        ModelError: The model is not found.
    """

    config: networks.VisionLanguageConfig

    def __init__(self, job: VisionLanguageConfig, folder: Path | None, **changes: Any) -> None:
        super().__init__(job, folder)
        schema = job.data.input_schema
        if schema and is_id_table(parse_schema(schema)):
            raise ConfigError(
                f"{job.model_name} reads texts, and the table holds token ids", received=schema,
                fix="name the column of the texts and leave the ids out of inputSchema",
            )  # fmt: skip
        self.region_network: RegionNetwork | None = None
        if job.model.region_source in PICTURES:
            self.region_network = RegionNetwork.of_job(job, folder)
        self.changes: dict[str, Any] = {}
        if folder is None:
            self.changes = self._settings() | changes
            self.config = self._started().replace(**self.changes)
        self.count = self._count()
        self._check()

    def _count(self) -> int:
        """Returns how many regions an image has at most: no more than the network has positions for."""
        model, most = self.job.model, self.config.max_regions
        wanted = model.region_grid**2 if model.region_source == "grid" else model.max_regions or most
        positions = getattr(self.config, "region_positions", False)
        if positions and wanted > most:
            raise ConfigError(
                "an image may have more regions than the network has positions for",
                received=f"model.max_regions={wanted}",
                accepted=f"up to {most}",
            )
        return wanted

    def _started(self) -> networks.VisionLanguageConfig:
        """Returns the configuration that the network starts with; of a BERT that of an ImageBERT."""
        if isinstance(self.config, networks.VisionLanguageConfig):
            return self.config
        data = self.config.to_dict("ez")
        data.pop("architectures", None)
        return ImageBertConfig.from_dict({**data, "model_type": "imagebert"}, source="the model to start from")

    def _settings(self) -> dict[str, Any]:
        """Returns the values of the network's configuration that the settings change."""
        model, from_text = self.job.model, not isinstance(self.config, networks.VisionLanguageConfig)
        found: dict[str, Any] = {"feature_size": model.feature_size}
        if from_text or model.from_scratch:
            # Of other networks the positions are there already, and an image may have fewer.
            found["max_regions"] = model.region_grid**2 if model.region_source == "grid" else model.max_regions
        if self.region_network is not None:
            found["feature_size"] = found["feature_size"] or self.region_network.width
        boxes = self.has_boxes if from_text and model.read_boxes is None else model.read_boxes
        found["box_size"] = None if boxes is None else networks.BOX_NUMBERS * boxes
        positions = model.region_positions
        found["region_positions"] = not boxes if from_text and positions is None else positions
        return {name: value for name, value in found.items() if value is not None}

    @property
    def has_boxes(self) -> bool:
        """Whether the source of regions has boxes."""
        return self.job.model.region_source != "table" or self.job.data.box_column is not None

    def _check(self) -> None:
        if self.config.box_size and not self.has_boxes:
            raise ConfigError(
                "the network reads boxes, and the table has none",
                fix="name their column in data.box_column, or take another model.region_source",
            )
        if self.region_network is not None and self.region_network.width != self.config.feature_size:
            raise ConfigError(
                "the network reads regions of another size than model.region_network gives",
                received=f"model.feature_size={self.config.feature_size}",
                accepted=str(self.region_network.width),
            )

    def regions(
        self,
        column: str | None = None,
        *,
        box_column: str | None = None,
        needs_boxes: bool = False,
        classes: bool = False,
        labels: LabelMaker | None = None,
        suffix: str = "",
        raw_prefix: str = "",
    ) -> Regions:
        """Returns the input for the regions of an image.

        Args:
            column: Table column of the image; `data.image_column` when None.
            box_column: Table column of the boxes; `data.box_column` when None.
            needs_boxes: Whether boxes are needed even where the network does not read them.
            classes: Whether the classes of a detector are read, see `Regions`.
            labels: Makes labels of these classes.
            suffix: Behind the names of the arrays.
            raw_prefix: Before the names of the raw tensors of a request.
        """
        data, source = self.job.data, self.job.model.region_source
        column, box_column = column or data.image_column, box_column or data.box_column
        size = (self.count, self.config.feature_size)
        names: dict[str, Any] = {"classes": classes, "labels": labels, "suffix": suffix, "raw_prefix": raw_prefix}
        if self.region_network is not None:
            names |= {"box_column": box_column, "cache": data.region_cache}
            return PictureRegions(column, self.region_network, size[0], **names)
        if source == "table":
            return TableRegions(column, *size, box_column=box_column, **names)
        # Boxes that nobody reads may be absent.
        names["has_boxes"] = needs_boxes or self.config.box_size > 0
        if source == "npz":
            return NpzRegions(column, *size, **names)
        return RecordRegions(column, data.region_file, *size, **names)

    def backbone(self, folder: Path | None, workers: Any = None) -> VisionLanguageBackbone:
        """Builds the network with its start values, or with the shape stored in `folder` and random ones.

        Args:
            folder: A run folder or the assets of an export; None takes the ModelZoo.
            workers: Those of the job; the network is split over none of them.
        """
        model = self.job.model
        return VisionLanguageBackbone.from_preset(
            model.pretrain_model_name_or_path if folder is None else folder,
            zoo=self.job.runtime.model_zoo_base_path,
            weights=folder is None and not model.from_scratch,
            seed=self.job.runtime.seed,
            allow_missing=model.allow_missing if folder is None else None,
            **self.changes,
        )


class VisionLanguageApp(App):
    """A text and an image in, whatever a subclass learns of them out."""

    config: VisionLanguageConfig
    encoder: VisionLanguageEncoder

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the text and the regions of the image; tokenizer and sizes are of the ModelZoo or a trained run."""
        self.encoder = VisionLanguageEncoder(self.config, assets.folder)
        return [self.encoder.tokens(str(self.config.data.first_sequence)), self.encoder.regions()]

    def smallest_batch(self) -> Tensors:
        """Returns the smallest batch that builds the variables of a network."""
        found = token_batch()
        for part in self.inputs[1:]:
            for name, spec in part.specs().items():
                found[name] = tf.ones([1, *spec.shape[1:]], spec.dtype)
        return found
