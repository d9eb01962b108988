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
from appzoo.image_app import ImageApp
from appzoo.image_source import source_network
from easytransfer import keras
from easytransfer.app.contract import Values, no_values
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.train import checkpoint
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pruning import Weights, check_prunable

PLAN_FILE, PICTURE_FILE = "pruning.json", "pruning.png"


class DimensionPruning(ImageApp):
    """A trained network, cut to a budget where it costs the least accuracy, and trained on."""

    asset_files: ClassVar[tuple[str, ...]] = (*ImageApp.asset_files, PLAN_FILE)

    takes_numbers: ClassVar[bool] = False
    config: DimensionPruningConfig
    # The network to build and its first weights; None = those of a run folder, or random ones.
    start: tuple[CnnConfig, Weights | None] | None = None
    plan: dict[str, Any] | None = None

    def load_assets(self, folder: Path | None, values: Values = no_values) -> None:
        """Reads labels and statistics; those of a new run must be those of the network to prune.

        Raises:
            ConfigError: The task has no classes.
            ModelError: The network to prune has other classes, or takes images of another size.
        """
        super().load_assets(folder, values)
        self.target.require_classes("pruning")
        if folder is None and self.config.model.base_path is not None:
            base = checkpoint.resolve(self.config.model.base_path).parent
            source_network(base, "the network to prune", self.labels or [], self.config.model)
            self.statistics = ChannelStatistics.load(base)

    def whole_network(self) -> CnnConfig:
        """Returns the network that is pruned.

        Raises:
            ModelError: Its filters and blocks cannot be removed.
        """
        base = self.config.model.base_path
        config = super().network_config(checkpoint.resolve(base).parent if base else None)
        check_prunable(config)
        return config

    def network_config(self, folder: Path | None = None) -> CnnConfig:
        """Returns the pruned network, or the one stored in `folder`."""
        if folder is not None:
            return super().network_config(folder)
        return self.start[0] if self.start else self.whole_network()

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds the pruned network with the weights that were left of the whole one."""
        super().build_model(folder)
        if folder is None and self.start is not None and self.start[1] is not None:
            self.model.network.import_weights(self.start[1], "the network before")
        return self.model

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
