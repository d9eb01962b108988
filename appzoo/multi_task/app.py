"""Several tasks on texts or pairs of texts, learnt together by one encoder with a head for each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder, EncoderTokens, token_batch
from appzoo.multi_task.config import MultiTaskConfig
from appzoo.multi_task.inputs import TaskTokens
from appzoo.multi_task.network import MultiTaskModel
from appzoo.multi_task.sampler import TaskSampler, mixing_rates
from appzoo.multi_task.target import TaskLabels
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.serving import Served, arrays_signature, labels_signature, request_signature
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError, DataError
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.task import Outputs


class MultiTask(App):
    """An encoder with a dense layer on its pooled first token for each task.

    Every update is of one task, as in Algorithm 1 of MT-DNN (Liu et al. 2019, arXiv 1901.11504).
    """

    splits: ClassVar[tuple[str, ...]] = ()

    config: MultiTaskConfig
    encoder: Encoder
    target: TaskLabels
    model: MultiTaskModel

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the texts of the tasks; the tokenizer comes from the ModelZoo or from a trained run.

        Raises:
            ConfigError: There are no tasks, a table has token ids, or a training has one task alone.
        """
        data = self.config.data
        if not data.tasks:
            raise ConfigError("multi_task needs data.tasks", fix="see its README for the form")
        if data.task and assets.folder is None:
            raise ConfigError("data.task is for evaluate and predict: a training is of all tasks", received=data.task)
        for schema in (data.input_schema, *(task.input_schema for task in data.tasks.values())):
            if schema and is_id_table(parse_schema(schema)):
                raise ConfigError("multi_task reads texts, and a table has token ids", fix="give tables of texts")
        self.encoder = Encoder(self.config, assets.folder)
        return [TaskTokens(self.encoder)]

    def build_target(self, assets: Assets) -> TaskLabels:
        """Returns the labels of the tasks."""
        return TaskLabels(self.config, assets.folder)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and heads; from the ModelZoo, or the shape stored in a run."""
        backbone = self.encoder.backbone(assets.folder, self.workers)
        outputs = {name: target.num_outputs for name, target in self.target.targets.items()}
        network = MultiTaskModel(backbone, outputs, self.config.model.dropout_rate)
        network(token_batch())
        return network

    def sampler(self, train: EncodedTable) -> TaskSampler:
        """Returns what decides which task each update is of.

        Raises:
            DataError: A task has no row.
        """
        of, sampling = np.asarray(train.columns["task_id"]), self.config.sampling
        rows = [np.flatnonzero(of == number) for number in range(len(self.target.targets))]
        for name, mine in zip(self.target.targets, rows, strict=True):
            if not len(mine):
                raise DataError(
                    f"the training table of the task {name} has no usable row", fix="check it and its bad-row report"
                )
        rates = mixing_rates([len(each) for each in rows], sampling.temperature, sampling.limit)
        shown = ", ".join(f"{name} {rate:.3f}" for name, rate in zip(self.target.targets, rates, strict=True))
        say(f"share of the updates by task: {shown}")
        seed, accumulated = self.config.runtime.seed, self.config.train.num_accumulated_batches
        return TaskSampler(rows, rates, train.lengths, seed, accumulated)

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns a signature for each task, by its name, `predict_ids`, and `serving_default` of several heads.

        The last one reads one text where a task does, else a pair, and has `<task>_label` and the like of all tasks
        that read the same. `<task>_labels` gives names of classes for their numbers.

        Args:
            folder: Where `save_assets` has written.
        """
        texts = self.inputs[0].texts
        served = {part.raw: Served([part], folder, self.predict_step) for part in self._kinds()}
        found = {
            name: request_signature(served[part.raw], partial(self.target.answer_of, name))
            for name, part in texts.items()
        }
        main = self.inputs[0].raw
        alike = [name for name, part in texts.items() if part.raw == main]

        def answers(outputs: Outputs) -> dict[str, tf.Tensor]:
            return {
                f"{name}_{key}": value for name in alike for key, value in self.target.answer_of(name, outputs).items()
            }

        every = request_signature(served[main], answers)
        found |= {
            f"{name}_labels": labels_signature(target.names)
            for name, target in self.target.targets.items()
            if name in texts and target.names is not None
        }
        return {"serving_default": every, "predict_ids": arrays_signature(served[main]), **found}

    def _kinds(self) -> list[EncoderTokens]:
        """Returns what reads one text, and what reads a pair, where there are tasks that do."""
        return list({part.raw: part for part in self.inputs[0].texts.values()}.values())


VARIANTS: dict[str, Any] = {"": MultiTask}
