"""Samples of the accuracy predictor: chains of ever smaller networks, each cut from the one before and fine-tuned."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.dimension_pruning.feasible import check_rows
from appzoo.dimension_pruning.optimum import DIMENSIONS, Optimum, check_reachable, solve
from appzoo.dimension_pruning.predictor import Predictor, choose
from appzoo.image_app import ImageApp
from easytransfer.config.job import TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError
from easytransfer.image.size import height_width
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.log import say
from easytransfer.train import checkpoint
from easytransfer.train.trainer import Trainer
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.profile import profile
from modelzoo.cnn.pruning import Weights, block_names, removable_blocks, thin, thinned_config, without_blocks

SAMPLES, RESULT_FILE = "samples", "result.json"
# Candidates for the width that fills a budget.
_WIDTH_STEPS = 512


@dataclass
class Sample:
    """One trained network of a chain.

    Attributes:
        name: Such as `width-0.5`.
        config: The network.
        accuracy: On the rows held out for comparison.
        folder: Its training.
        weights: Where this process has them.
        identity: Hash of a network of another run.
    """

    name: str
    config: CnnConfig
    accuracy: float
    folder: Path
    weights: Weights | None = None
    identity: str = ""


class Collection:
    """Makes the plan of one pruning. Every worker runs it and comes to the same; finished samples are not repeated.

    Args:
        app: The application, prepared.
        train: The encoded training table; a share of each class is held out to compare samples on.
        run_dir: Run folder; samples are in `samples/`.
        workers: The workers of the job.
    """

    def __init__(self, app: ImageApp, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        self.app, self.run_dir, self.workers = app, Path(run_dir), workers
        self.settings = app.config.model
        self.rest, self.select = hold_out(train, self.settings.select_share)
        self.classes = app.target.num_outputs

    def run(self) -> tuple[dict[str, Any], tuple[CnnConfig, Weights]]:
        """Returns the plan (JSON) and the network with the weights it is fine-tuned from.

        Raises:
            ConfigError: The samples cannot tell, or do not reach the budget; before any is trained where that is known.
        """
        self._check()
        whole = self.whole()
        order = self._block_order(whole) if "depth" in self.settings.dimensions else []
        samples = [whole]
        predictor = optimum = None
        if len(self.settings.dimensions) > 1:
            for dimension in self.settings.dimensions:
                samples += self._chain(whole, dimension, order)
            points = np.array([self.point(sample.config, whole.config) for sample in samples])
            accuracies = np.array([sample.accuracy for sample in samples])
            predictor = choose(points, accuracies, len(self.select), self.settings.max_predictor_error)
            optimum = solve(predictor, self.settings.budget, points.min(axis=0))
        chosen = self._rounded(whole.config, order, optimum)
        removed = _missing(whole.config, chosen)
        weights = thin(*without_blocks(whole.config, self.weights(whole), removed), chosen)
        plan = self._plan(samples, order, predictor, optimum, chosen)
        after = plan["pruned"]
        say(
            f"pruned to depth {after['depth']:.3f}, width {after['width']:.3f}, resolution {after['resolution']:.3f}: "
            f"{after['macs']:,} of {plan['whole']['macs']:,} multiply-accumulates"
        )
        return plan, (chosen, weights)

    def _check(self) -> None:
        """Refuses what no training of samples can change."""
        settings, whole = self.settings, self.app.whole_network()
        order = _keeping_stages(whole, removable_blocks(whole)) if "depth" in settings.dimensions else []
        if len(settings.dimensions) == 1:
            self._rounded(whole, order, None)
            return
        check_rows(len(self.select), len(self.select) + len(self.rest), settings)
        levels = [config for name in settings.dimensions for _, config in self._levels(whole, name, order)]
        points = [self.point(config, whole) for config in (whole, *levels)]
        check_reachable(settings.budget, np.log(np.min(points, axis=0)), np.zeros(3))

    # Samples -------------------------------------------------------------------------------------------------

    def whole(self) -> Sample:
        """Returns the network before pruning, loaded or trained."""
        settings, config, base = self.settings, self.app.whole_network(), self.app.base
        if base is None:
            return self._train("base", config, None, settings.base_epochs, self.app.config.train.learning_rate)
        weights, path = base.app.model.network.export_weights(), Path(base.record["path"])
        trainer = Trainer(
            self._app(config, weights), self.app.config.train, self.app.config.runtime, workers=self.workers
        )
        accuracy = self._measure(trainer, self.select)["accuracy"]
        say(f"network to prune, {path}: accuracy {accuracy:.4f} on {len(self.select):,} rows of the training table")
        return Sample("base", config, accuracy, path, weights, base.record["sha256"])

    def _chain(self, whole: Sample, dimension: str, order: list[str]) -> Iterator[Sample]:
        """Yields the samples of one dimension, each cut from the one before."""
        settings, before = self.settings, whole
        for label, config in self._levels(whole.config, dimension, order):
            weights = self.weights(before)
            if dimension == "depth":
                weights = without_blocks(before.config, weights, _missing(before.config, config))[1]
            elif dimension == "width":
                weights = thin(before.config, weights, config)
            before = self._train(
                f"{dimension}-{label}", config, weights, settings.sample_epochs, settings.sample_learning_rate, before
            )
            yield before

    def _levels(self, whole: CnnConfig, dimension: str, order: list[str]) -> Iterator[tuple[str, CnnConfig]]:
        """Yields the networks of a chain with their labels; levels that round to the one before are left out."""
        settings, seen = self.settings, [whole]
        if dimension == "depth":
            most = len(order)
            counts = np.unique(np.linspace(0, most, 1 + min(settings.depth_samples, most)).round().astype(int))[1:]
            total = sum(whole.blocks)
            found = [(f"{total - n}-of-{total}", shallower(whole, order[:n])) for n in counts] if order else []
        elif dimension == "width":
            found = [(f"{x:g}", thinned_config(whole, x, settings.width_multiple)) for x in settings.width_levels]
        else:
            sizes = [self._size(whole, share) for share in settings.resolution_levels]
            found = [(size_label(size), whole.replace(image_size=size)) for size in sizes]
        for label, config in found:
            if config not in seen:
                seen.append(config)
                yield label, config

    def _size(self, whole: CnnConfig, share: float) -> tuple[int, int]:
        multiple = self.settings.resolution_multiple
        height, width = (
            min(side, max(multiple, round(share * side / multiple) * multiple))
            for side in height_width(whole.image_size)
        )
        return height, width

    def _train(
        self,
        name: str,
        config: CnnConfig,
        weights: Weights | None,
        epochs: float,
        rate: float,
        before: Sample | None = None,
    ) -> Sample:
        """Trains a network that was cut from `before`, or takes the result of an earlier start of the job."""
        app, job = self._app(config, weights), self.app.config
        update = {"num_epochs": epochs, "learning_rate": rate, "keep_checkpoint_max": 1}
        train = job.train.model_copy(update=update | {"early_stopping_patience": 0, "metric_for_best": None})
        folder = self.run_dir / SAMPLES / f"{name}-{self._key(config, train, before)}"
        known = self.workers.gather(_read(folder / RESULT_FILE))[0]
        if known is not None:
            return Sample(name, config, known["accuracy"], folder)
        trainer = Trainer(app, train, job.runtime, folder, workers=self.workers)
        shard = (self.workers.replica, self.workers.replicas)
        trainer.fit(Batches(self.rest, train.batch_size, shuffle=True, seed=job.runtime.seed, shard=shard))
        accuracy = self._measure(trainer, self.select)["accuracy"]
        cost = profile(config, self.classes)
        if self.workers.is_chief:
            write_json(folder / RESULT_FILE, {"accuracy": accuracy})
        say(f"{name}: accuracy {accuracy:.4f}, {cost.macs:,} multiply-accumulates, {cost.parameters:,} parameters")
        return Sample(name, config, accuracy, folder, app.model.network.export_weights())

    def _key(self, config: CnnConfig, train: TrainConfig, before: Sample | None) -> str:
        """Names what decides a sample, so that a folder of other settings is not taken for its."""
        job = self.app.config
        source = (before.identity or str(before.folder)) if before else None
        sections = [section.model_dump() for section in (job.data, job.augment, train)]
        facts = [config.to_dict(), *sections, source, self.settings.select_share, job.runtime.seed]
        return hashlib.sha256(json.dumps(plain(facts), sort_keys=True).encode()).hexdigest()[:8]

    def _app(self, config: CnnConfig, weights: Weights | None) -> ImageApp:
        """Returns an application of the same data whose model is this network."""
        app = copy.copy(self.app)
        app.start, app.model = (config, weights), None
        return app

    def weights(self, sample: Sample) -> Weights:
        """Returns the weights of a sample, read from its checkpoint when an earlier start of the job made it."""
        if sample.weights is None:
            app = self._app(sample.config, None)
            app.build_model()
            if self.workers.is_chief:
                # The others get theirs from the chief when the training that starts from them begins.
                checkpoint.load_weights(app.model, sample.folder)
            sample.weights = app.model.network.export_weights()
        return sample.weights

    def _measure(self, trainer: Trainer, rows: EncodedTable) -> dict[str, float]:
        """Returns the metrics on `rows`, of which every worker computes a share."""
        shard = (self.workers.replica, self.workers.replicas)
        batches = Batches(rows, self.app.config.train.eval_batch_size, shuffle=False, shard=shard)
        return trainer.evaluate(batches)[0]

    # Depth ---------------------------------------------------------------------------------------------------

    def _block_order(self, whole: Sample) -> list[str]:
        """Returns the blocks that may go, first the one that is missed least; one block of each stage stays.

        Each block is left out alone, without fine-tuning, and the loss measured on training rows.
        """
        rows = self.rest.take(np.arange(min(self.settings.calibration_rows, len(self.rest))))
        weights, losses = self.weights(whole), {}
        for block in removable_blocks(whole.config):
            if whole.config.blocks[_stage(block)] == 1:
                continue
            app = self._app(*without_blocks(whole.config, weights, [block]))
            trainer = Trainer(app, self.app.config.train, self.app.config.runtime, workers=self.workers)
            losses[block] = self._measure(trainer, rows)["loss"]
        return _keeping_stages(whole.config, sorted(losses, key=lambda block: (losses[block], block)))

    # Result --------------------------------------------------------------------------------------------------

    def point(self, config: CnnConfig, whole: CnnConfig) -> tuple[float, float, float]:
        """Returns depth, width and resolution as shares of the whole network's."""
        return (
            sum(config.blocks) / sum(whole.blocks),
            sum(config.stage_widths) / sum(whole.stage_widths),
            sum(a / b for a, b in zip(config.image_shape[:2], whole.image_shape[:2], strict=True)) / 2,
        )

    def _rounded(self, whole: CnnConfig, order: list[str], optimum: Optimum | None) -> CnnConfig:
        """Returns the network nearest to the optimum that keeps the budget.

        Blocks and image side are rounded; the finest of the dimensions that are cut then takes the largest value
        whose multiply-accumulates are within the budget.
        """
        most = self.settings.budget * profile(whole, self.classes).macs
        config, dimensions = whole, self.settings.dimensions
        finest = next(name for name in ("width", "resolution", "depth") if name in dimensions)
        if optimum is not None:
            depth, _, resolution = optimum.point
            removed = min(round((1 - depth) * sum(whole.blocks)), len(order))
            if finest != "depth":
                config = shallower(config, order[:removed])
            if finest == "width":
                config = config.replace(image_size=self._size(whole, resolution))
        for candidate in self._candidates(config, finest, order):
            if profile(candidate, self.classes).macs <= most:
                return candidate
        raise ConfigError(
            f"no {finest} is small enough for the budget",
            received=f"model.budget={self.settings.budget:g}",
            fix="raise model.budget, or name more model.dimensions",
        )

    def _candidates(self, config: CnnConfig, dimension: str, order: list[str]) -> Iterator[CnnConfig]:
        """Yields ever smaller networks of one dimension."""
        if dimension == "width":
            for step in range(_WIDTH_STEPS, 0, -1):
                yield thinned_config(config, step / _WIDTH_STEPS, self.settings.width_multiple)
        elif dimension == "resolution":
            multiple = self.settings.resolution_multiple
            height = config.image_shape[0]
            for side in range(height // multiple * multiple, 0, -multiple):
                yield config.replace(image_size=self._size(config, side / height))
        else:
            for count in range(len(order) + 1):
                yield shallower(config, order[:count])

    def _plan(
        self,
        samples: list[Sample],
        order: list[str],
        predictor: Predictor | None,
        optimum: Optimum | None,
        chosen: CnnConfig,
    ) -> dict[str, Any]:
        whole = samples[0].config

        def described(config: CnnConfig) -> dict[str, Any]:
            cost = profile(config, self.classes)
            point = dict(zip(DIMENSIONS, self.point(config, whole), strict=True))
            return {**point, "macs": cost.macs, "parameters": cost.parameters}

        plan: dict[str, Any] = {
            "budget": self.settings.budget,
            "dimensions": list(self.settings.dimensions),
            "whole": described(whole),
            "pruned": described(chosen),
            "rows_held_out": len(self.select),
            "block_order": order,
            "samples": [{"name": s.name, **described(s.config), "accuracy": s.accuracy} for s in samples],
        }
        if predictor is not None and optimum is not None:
            plan["predictor"] = {"coefficients": predictor.coefficients, "left_out_error": predictor.error}
            plan["optimum"] = {
                **dict(zip(DIMENSIONS, optimum.point, strict=True)),
                "accuracy": optimum.accuracy,
                "gains": dict(zip(DIMENSIONS, optimum.gains, strict=True)),
                "multiplier": optimum.multiplier,
                "bounds": dict(zip(DIMENSIONS, optimum.bounds, strict=True)),
            }
        return plain(plan)


def hold_out(train: EncodedTable, share: float) -> tuple[EncodedTable, EncodedTable]:
    """Splits a table into the rows to train on and `share` of every class, at least one row, to compare on.

    Raises:
        ConfigError: A class has a single row.
    """
    labels = train.columns["label_id"]
    random, chosen = np.random.default_rng(0), np.zeros(len(train), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise ConfigError("a class with a single row cannot be split", received=f"class {label}")
        chosen[random.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    return train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen))


def size_label(size: tuple[int, int]) -> str:
    """Returns what the sample of an image size is called: `24`, or `16x48`."""
    return "x".join(map(str, dict.fromkeys(size)))


def shallower(config: CnnConfig, removed: list[str]) -> CnnConfig:
    """Returns the network without these blocks."""
    return without_blocks(config, {}, removed)[0]


def _missing(before: CnnConfig, after: CnnConfig) -> list[str]:
    kept = set(block_names(after))
    return [name for name in block_names(before) if name not in kept]


def _keeping_stages(config: CnnConfig, blocks: Sequence[str]) -> list[str]:
    """Returns the first of `blocks` that can all go while one block of each stage stays."""
    found, left = [], list(config.blocks)
    for block in blocks:
        if left[_stage(block)] > 1:
            left[_stage(block)] -= 1
            found.append(block)
    return found


def _stage(block: str) -> int:
    """Returns the stage of a block, from 0, by the prefix of its layers."""
    return int(block.removeprefix("stage").split("_")[0]) - 1


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
