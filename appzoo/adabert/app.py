"""AdaBERT: a small network for a task is searched by gradients, with the help of a large one, and then trained."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.adabert.architecture import EDGES, OPERATIONS, Architecture, derive
from appzoo.adabert.config import AdaBertConfig
from appzoo.adabert.network import AdaBertModel
from appzoo.adabert.search import gumbel_choice, layer_table, layers_distance, network_cost, temperature
from appzoo.distilled_label import TEACHER_LOGITS
from appzoo.encoder import Encoder, token_batch
from appzoo.layer_probes import probed
from appzoo.taught_app import TaughtClassifier
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.run.log import say
from easytransfer.train.stages import OptimizerPart, TrainingStage
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch, Outputs

FACTS_FILE = "adabert.json"
PROBE_STAGE, SEARCH_STAGE, DERIVED_STAGE = "teacher_probes", "search", "derived"
# Column of the training table: rows of 0 train the weights of a search, those of 1 what decides the network.
STREAM = "search_stream"
# What probes say of the teacher's layers, and what the sampled network costs.
TEACHER_LAYERS, COST = "teacher_layer_logits", "cost"


class AdaBert(TaughtClassifier):
    """Cells of convolutions and pools over the tokens of one text or a pair, found by a search or given.

    Reference: Chen et al., AdaBERT, IJCAI 2020 (https://arxiv.org/abs/2001.04246).
    """

    purpose = "the search"

    config: AdaBertConfig
    model: AdaBertModel

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns one text, or a packed pair; the tokenizer is that of the pre-trained encoder."""
        self.encoder, self.is_new = Encoder(self.config, assets.folder), assets.folder is None
        return [self.encoder.tokens(self.config.data.first_sequence, self.config.data.second_sequence)]

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the teacher, where one is learnt from.

        Raises:
            ConfigError: None is given.
            ModelError: It is not usable, does not fit, or its layers cannot be seen.
        """
        found = super().open_frozen()
        if self.teacher is not None:
            config = self.teacher.model.backbone.config
            self.probes = config.num_hidden_layers + 1, config.hidden_size
        return found

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network of a search, or the one that `model.arch_path` describes.

        Raises:
            ConfigError: Architecture or start vectors are not usable.
        """
        if assets.folder is None:
            facts, folder = self._facts(), self.config.model.arch_path
        else:
            facts = RunFolder(assets.folder).read_json(FACTS_FILE)
            folder = None if facts["searches"] else assets.folder
        model, architecture = self.config.model, None if folder is None else Architecture.load(folder)
        pair, sizes = self.config.data.second_sequence is not None, tuple(facts["sizes"])
        fixed = (self.target.num_outputs, pair, model.dropout_rate, tuple(facts["teacher"]))
        network = AdaBertModel(sizes, model.max_cells, architecture, *fixed)
        network(token_batch())
        if assets.folder is None:
            for layer, values in zip((network.words, network.positions), self._start_vectors, strict=True):
                if values is not None:
                    layer.embeddings.assign(values[: layer.embeddings.shape[0]])
        return network

    @functools.cached_property
    def _start_vectors(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns vectors of tokens and of positions to start from, None for random ones."""
        model, words, positions = self.config.model, self.encoder.config.vocab_size, self.config.data.sequence_length
        if model.emb_pathes:
            found = [_vectors(path.strip()) for path in model.emb_pathes.split(",")]
            for given, needed, what in zip(found, (words, positions), ("token", "position"), strict=False):
                if len(given) < needed or given.shape[1] != found[0].shape[1]:
                    raise ConfigError(
                        f"model.emb_pathes: the {what} vectors do not fit",
                        received=list(given.shape),
                        accepted=f"at least {needed:,} rows of {found[0].shape[1]}",
                        fix="give those of the encoder that pretrain_model_name_or_path names",
                    )
            return found[0], found[1] if len(found) > 1 else None
        if model.from_scratch:
            return None, None
        return self.encoder.backbone(None, ONE_WORKER).input_embeddings.numpy(), None

    def _facts(self) -> dict[str, Any]:
        """Returns what a run stores of its network."""
        model, encoder, words = self.config.model, self.encoder.config, self._start_vectors[0]
        width = (model.embedding_size or encoder.hidden_size) if words is None else words.shape[1]
        sizes = encoder.vocab_size, self.config.data.sequence_length, width, model.hidden_size
        teacher = (0, 0) if self.teacher is None else self.probes
        return {"searches": model.arch_path is None, "sizes": list(map(int, sizes)), "teacher": list(teacher)}

    def save_assets(self, folder: Path) -> None:
        """Writes classes, encoder, and for a new run what its checkpoints hold and the architecture that is trained."""
        super().save_assets(folder)
        if not self.is_new:
            return
        write_json(folder / FACTS_FILE, self._facts())
        if self.config.model.arch_path is not None:
            Architecture.load(self.config.model.arch_path).save(folder)

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Deals the rows to the two streams of a search, half to each."""
        if self.config.model.arch_path is None:
            random = np.random.Generator(np.random.PCG64(self.config.runtime.seed % 2**63))
            train.columns[STREAM] = (random.permutation(len(train)) % 2).astype(np.int32)

    # Training ------------------------------------------------------------------------------------------------

    def stages(self) -> list[TrainingStage]:
        """Returns the training of the teacher's probes, where there is one, and the search or the training."""
        settings = self.config.distillation
        last = SEARCH_STAGE if self.model.search_weights is not None else DERIVED_STAGE
        if self.model.teacher_probes is None:
            return [TrainingStage(last)]
        probes, rate = self.model.teacher_probes.trainable_variables, {"learning_rate": settings.probe_learning_rate}
        ids = {id(variable) for variable in probes}
        others = [variable for variable in self.model.trainable_variables if id(variable) not in ids]
        first = TrainingStage(PROBE_STAGE, epochs=settings.probe_epochs, trains=probes, settings=rate)
        return [first, TrainingStage(last, trains=others)]

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns one optimizer for the weights, and in a search one for what decides the network."""
        search = self.model.search_weights
        if search is None:
            return super().optimizers()
        ids, model = {id(variable) for variable in search.trainable_variables}, self.config.model
        weights = [variable for variable in self.model.trainable_variables if id(variable) not in ids]
        own = {"learning_rate": model.arch_learning_rate, "weight_decay_ratio": model.arch_weight_decay}
        return {
            "default": OptimizerPart(weights),
            "architecture": OptimizerPart(search.trainable_variables, own, no_decay=()),
        }

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns `logits`; for labelled rows also those of cells and of the teacher, and the cost of the network."""
        if "label_id" not in batch:
            return {"logits": super().forward(batch, training)["logits"]}
        return self._network_outputs(batch, training, None) | self._teacher_outputs(batch)

    def _network_outputs(self, batch: Batch, training: bool, choices: tuple[tf.Tensor, tf.Tensor] | None) -> Outputs:
        searches = self.model.search_weights is not None
        if searches and choices is None:
            choices = self.model.strongest()
        found = self.model(batch, training=training, choices=choices)
        if searches:
            cost = network_cost(*choices, self.model.projection.units)
            found[COST] = tf.repeat(cost, tf.shape(found["logits"])[0])
        return found

    def _teacher_outputs(self, batch: Batch) -> Outputs:
        if self.teacher is None:
            return {}
        found = self.teacher.inside(batch, attentions=False)
        mask = self.teacher.arrays(batch)["input_mask"]
        logits = self.model.teacher_probes(probed(self.teacher.model.backbone, found["hidden_states"], mask))
        return {TEACHER_LOGITS: found["logits"], TEACHER_LAYERS: logits}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of labels and layers, in a search that of the cost; of probes theirs alone."""
        if step.stage == PROBE_STAGE:
            labels, rows = batch["label_id"], batch["example_weight"]
            each = tf.unstack(outputs[TEACHER_LAYERS], axis=1)
            total = tf.add_n([self.target.loss_sum(labels, logits, rows) for logits in each])
            return {"probe_loss": Loss(total, self.target.loss_weight(batch))}
        found, count = self._task_losses(batch, outputs)
        if COST in outputs:
            found["efficiency_loss"] = self._efficiency(batch, outputs, count)
        return found

    def _task_losses(self, batch: Batch, outputs: Outputs) -> tuple[Losses, tf.Tensor]:
        """Returns (1 - gamma) L_CE and gamma L_KD, and the number of rows."""
        share, rows = self.config.distillation.kd_weight, batch["example_weight"]
        weight = self.target.loss_weight(batch)
        count = weight if self.target.class_weights is None else tf.reduce_sum(rows)
        hard = self.target.loss_sum(batch["label_id"], outputs["logits"], rows)
        if self.teacher is None:
            return {"ce_loss": Loss(hard, weight)}, count
        table = layer_table(len(self.model.cells), self.probes[0] - 1)
        soft = layers_distance(outputs["layer_logits"], outputs[TEACHER_LAYERS], outputs["depth"], table)
        return {
            "ce_loss": Loss((1 - share) * hard, weight),
            "kd_loss": Loss(share * tf.reduce_sum(soft * rows), count),
        }, count

    def _efficiency(self, batch: Batch, outputs: Outputs, count: tf.Tensor) -> Loss:
        factor = self.config.model.efficiency_weight
        return Loss(factor * tf.reduce_sum(outputs[COST] * batch["example_weight"]), count)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Trains probes, or the network; in a search weights on one half of the rows, what decides it on the other."""
        if step.stage == PROBE_STAGE:
            with tf.GradientTape() as tape:
                losses = self.losses(batch, self._teacher_outputs(batch), step)
                objective = step.objective(losses)
            step.update(tape.gradient(objective, step.variables()))
            return losses
        if step.stage != SEARCH_STAGE:
            return super().train_step(step, batch)
        rows, stream = batch["example_weight"], tf.cast(batch[STREAM], tf.float32)
        halves = [{**batch, "example_weight": rows * part} for part in (1 - stream, stream)]
        taught = self._teacher_outputs(batch)
        with tf.GradientTape(persistent=True) as tape:
            outputs = self._network_outputs(batch, True, self._sample(step)) | taught
            losses, _ = self._task_losses(halves[0], outputs)
            deciding, count = self._task_losses(halves[1], outputs)
            deciding["efficiency_loss"] = self._efficiency(halves[1], outputs, count)
            objective, decision = step.objective(losses), step.objective(deciding, "architecture")
        step.update(tape.gradient(objective, step.variables()))
        step.update(tape.gradient(decision, step.variables("architecture")), "architecture")
        return {**losses, "efficiency_loss": deciding["efficiency_loss"]}

    def _sample(self, step: TrainingStep) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns choices of operations and of a number of cells, the same on all workers."""
        search, heat = self.model.search_weights, temperature(step.stage_number, self.config.model.temp_decay_steps)
        edges = gumbel_choice(search.edges, step.draws.shared(len(EDGES), len(OPERATIONS)), heat)
        return edges, gumbel_choice(search.depth, step.draws.shared(self.config.model.max_cells), heat)

    # The result ----------------------------------------------------------------------------------------------

    def architecture(self) -> Architecture:
        """Returns the network that a search stands at."""
        search = self.model.search_weights
        return derive(search.edges.numpy(), search.depth.numpy())

    def write_pages(self, folder: Path, table: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes `arch.json` at the end of a search."""
        if self.model.search_weights is not None:
            found = self.architecture()
            found.save(folder)
            used = sum(name != "identity" for *_, name in found.edges)
            say(f"found {found.cells} cells with {used} operations each: train them with model.arch_path={folder}")
        return super().write_pages(folder, table, outputs)


def _vectors(path: str) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.emb_pathes: cannot read {path}: {error}", fix="give a .npy file of numbers") from None
    if found.ndim != 2 or found.dtype.kind != "f":
        raise ConfigError(
            f"model.emb_pathes: {path} is no table of vectors",
            received=f"{found.dtype} {list(found.shape)}",
            accepted="floating-point numbers [rows, width]",
        )
    return found


VARIANTS: dict[str, Any] = {"": AdaBert}
