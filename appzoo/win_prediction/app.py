"""TSSTN: who wins a running game, and what gold, kills, towers and the like contribute to that prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.discovery import find_application
from appzoo.win_prediction.config import WinPredictionConfig
from appzoo.win_prediction.fidelity import measured_fidelity
from appzoo.win_prediction.inputs import GameInput
from appzoo.win_prediction.network import Scaling, SpatialStage, TemporalStage, WinNetwork
from appzoo.win_prediction.pages import write_game_pages
from appzoo.win_prediction.scaling import load_scaling, measured_scaling, save_scaling
from appzoo.win_prediction.streams import stream_signature, table_signature
from appzoo.win_prediction.target import WinTarget
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ModelError
from easytransfer.optim.base import NO_DECAY
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.stages import OptimizerPart, TrainingStage
from easytransfer.train.task import Recorded

_SPATIAL = "spatial networks"


class WinPrediction(App):
    """Odd networks score each group at one moment; a causal stage weighs the scores; contributions add up."""

    asset_files: ClassVar[tuple[str, ...]] = (Scaling.FILE,)
    config: WinPredictionConfig
    target: WinTarget
    model: WinNetwork
    scaling: Scaling
    _graph: tf.types.experimental.GenericFunction | None = None

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the games."""
        self.games = GameInput(str(self.config.data.first_sequence), self.config.model)
        return [self.games]

    def build_target(self, assets: Assets) -> WinTarget:
        """Returns the winner."""
        return WinTarget(self.config.data.label_name or "label", self.config.model)

    def open_frozen(self) -> dict[str, Recorded]:
        """Returns the run whose spatial networks are taken, where there is one.

        Raises:
            ModelError: It is not a run of this application with the same groups.
        """
        path = self.config.model.spatial_from
        if path is None:
            return {}
        found = Frozen.open(path, find_application, _SPATIAL, inputs=self.inputs)
        if not isinstance(getattr(found.app, "model", None), WinNetwork):
            raise ModelError(f"{found.place} is not usable", accepted="the folder of a run of win_prediction")
        return {"spatial": found}

    def on_train_table(self, train: EncodedTable) -> None:
        """Measures the scaling of columns; with the spatial networks of another run, theirs is taken."""
        super().on_train_table(train)
        taken = self.frozen.get("spatial")
        self.scaling = taken.app.scaling if taken else measured_scaling(train.columns["frames"], self.config.model)

    def save_assets(self, folder: Path) -> None:
        """Writes the scaling."""
        super().save_assets(folder)
        save_scaling(self.scaling, folder)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds both stages."""
        settings, groups = self.config.model, self.config.model.feature_groups
        if assets.folder is not None:
            self.scaling = load_scaling(assets.folder)
        bound, learned = settings.score_bound == "tanh", settings.scale == "learned"
        spatial = SpatialStage(groups, settings.spatial_units, bound, settings.hero_ids, settings.hero_units)
        temporal = TemporalStage(settings.temporal, len(groups), settings.temporal_units, len(settings.phases))
        network = WinNetwork(spatial, temporal, self.scaling, learned, settings.detach_scores)
        taken = self.frozen.get("spatial") if assets.folder is None else None
        if taken is not None:
            network(self._smallest_game())
            _copy_spatial(taken, network)
        return network

    def _smallest_game(self) -> dict[str, np.ndarray]:
        specs = self.games.specs()
        return {
            name: np.ones([size or 1 for size in spec.shape], spec.dtype.as_numpy_dtype) for name, spec in specs.items()
        }

    # Training ------------------------------------------------------------------------------------------------

    def stages(self) -> list[TrainingStage]:
        """Returns the spatial stage, the temporal stage on it, and one for both where it is wanted; or one for all."""
        settings, model = self.config.model, self.model
        spatial, temporal = model.spatial.trainable_variables, model.temporal_variables()
        if settings.training == "joint":
            return [TrainingStage("joint")]
        stages = []
        if "spatial" not in self.frozen:
            stages.append(TrainingStage("spatial", epochs=settings.spatial_epochs, trains=spatial))
        # Equal weights without a learnt scale leave nothing to train.
        stages += [TrainingStage("temporal", trains=temporal)] if temporal else []
        if settings.together_epochs:
            rate = {"learning_rate": settings.together_learning_rate}
            stages.append(TrainingStage("together", epochs=settings.together_epochs, settings=rate))
        return stages

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns one; the scale, whose rest is not at zero, is not decayed."""
        return {"default": OptimizerPart(self.model.trainable_variables, no_decay=(*NO_DECAY, "log_scale"))}

    # Results -------------------------------------------------------------------------------------------------

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Returns as `fidelity` whether the explanations hold; see `fidelity.measured_fidelity`."""
        size = self.config.train.eval_batch_size
        return {"fidelity": measured_fidelity(encoded, self.games.groups, self._outputs, size)}

    def _outputs(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._graph is None:
            self._graph = tf.function(self.predict_step, input_signature=[self.specs()])
        found = self._graph({name: tf.constant(value) for name, value in self.model_inputs(arrays).items()})
        return {name: value.numpy() for name, value in found.items()}

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes the commentator's view of some games, and accuracy by minute."""
        return write_game_pages(folder, encoded, outputs, self.target.groups)

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Also returns `step` for live streams, and `page` for a game typed as a table."""
        return {
            **super().signatures(folder),
            "step": stream_signature(self.games, self.target, self.model),
            "page": table_signature(self.games, self.target, self.predict_step),
        }


def _copy_spatial(taken: Recorded, network: WinNetwork) -> None:
    """Gives a network the spatial weights of a run.

    Raises:
        ModelError: The spatial networks there are others.
    """
    theirs, ours = taken.app.model.spatial.weights, network.spatial.weights
    if [weight.shape for weight in theirs] != [weight.shape for weight in ours]:
        raise ModelError(
            f"{taken.place} has other spatial networks",
            received=f"{sum(int(np.prod(w.shape)) for w in theirs)} parameters in {len(theirs)} weights",
            accepted=f"{sum(int(np.prod(w.shape)) for w in ours)} parameters in {len(ours)} weights",
            fix="give the spatial_units and heroes of that run",
        )
    for weight, value in zip(ours, theirs, strict=True):
        weight.assign(value)


VARIANTS = {"": WinPrediction}
