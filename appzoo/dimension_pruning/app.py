"""Pruning in three dimensions as a training job: samples, predictor, optimum, cut, fine-tuning.

Wang et al., "Accelerate CNNs from Three Dimensions: A Comprehensive Pruning Framework", ICML 2021, arXiv 2010.04879.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from appzoo.dimension_pruning.collect import Collection
from appzoo.dimension_pruning.config import DimensionPruningConfig
from appzoo.dimension_pruning.picture import draw
from appzoo.image_app import ImageApp, ImageModel
from appzoo.image_source import open_source
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pruning import Weights, check_prunable

PLAN_FILE, PICTURE_FILE = "pruning.json", "pruning.png"
ROLE = "network to prune"


class DimensionPruning(ImageApp):
    """A trained network, cut to a budget where it costs the least accuracy, and trained on."""

    asset_files: ClassVar[tuple[str, ...]] = (*ImageApp.asset_files, PLAN_FILE)

    takes_numbers: ClassVar[bool] = False
    config: DimensionPruningConfig
    # The network to build and its first weights; None = those of a run folder, or random ones.
    start: tuple[CnnConfig, Weights | None] | None = None
    plan: dict[str, Any] | None = None
    # The trained network of `base_path`.
    base: Frozen | None = None

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes.

        Raises:
            ConfigError: The task has none.
        """
        target = super().build_target(assets)
        target.require_classes("pruning")
        return target

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the network to prune, whose statistics are those of the run.

        Raises:
            ModelError: It has other classes, or takes images of another size.
        """
        if self.config.model.base_path is None:
            return {}
        self.base = open_source(self.config.model.base_path, ROLE, self.labels or [], self.config.model)
        if not isinstance(self.base.app.model, ImageModel):
            raise ModelError(f"{self.base.place} is several networks", accepted="a run with one network")
        self.statistics = self.base.app.statistics
        return {ROLE: self.base}

    def whole_network(self) -> CnnConfig:
        """Returns the network that is pruned.

        Raises:
            ModelError: Its filters and blocks cannot be removed.
        """
        config = super().network_config() if self.base is None else self.base.app.model.network.config
        check_prunable(config)
        return config

    def network_config(self, folder: Path | None = None) -> CnnConfig:
        """Returns the pruned network, or the one stored in `folder`."""
        if folder is not None:
            return super().network_config(folder)
        return self.start[0] if self.start else self.whole_network()

    def start_network(self, name: str, shape: CnnConfig, seed: int) -> CnnBackbone:
        """Returns the whole network with the weights it is named after, if any; a smaller one gets others later."""
        if self.base is None and shape == self.whole_network():
            return super().start_network(name, shape, seed)
        return CnnBackbone(shape, self.target.num_outputs, seed)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the pruned network with the weights that were left of the whole one."""
        model = super().build_network(assets)
        if assets.folder is None and self.start is not None and self.start[1] is not None:
            model.network.import_weights(self.start[1], "the network before")
        return model

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Trains the samples, fits the predictor, finds the optimum and cuts the network to it."""
        self.plan, self.start = Collection(self, train, run_dir, workers).run()

    def save_assets(self, folder: Path) -> None:
        """Also writes `pruning.json`: samples, predictor, optimum, and the costs before and after."""
        super().save_assets(folder)
        if self.plan is not None:
            write_json(folder / PLAN_FILE, self.plan)

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Also draws the samples, the fitted curves and the accuracy along the budget."""
        pages = super().write_pages(folder, encoded, outputs)
        drawn = draw(RunFolder(folder).read_json(PLAN_FILE), folder / PICTURE_FILE)
        return [*pages, PICTURE_FILE] if drawn else pages


VARIANTS = {"": DimensionPruning}
