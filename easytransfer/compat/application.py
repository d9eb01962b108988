"""`base_model`: what a user-defined application inherits."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.compat.command_line import command_line_config
from easytransfer.compat.config import Config, ModeKeys, label_folder
from easytransfer.compat.datasets import BatchWriter, TableReader
from easytransfer.compat.exporting import export_application
from easytransfer.compat.hook_task import HookTask
from easytransfer.compat.hooks import Hooks
from easytransfer.compat.model_zoo import set_model_root
from easytransfer.compat.preprocessors import Settings, TextPreprocessor, fixed_arrays
from easytransfer.compat.running import report_error, run_mode
from easytransfer.config.job import NO_CLASSES, JobConfig
from easytransfer.data.batches import Batches, prefetch
from easytransfer.data.encoded import EncodedTable, device_arrays
from easytransfer.data.files import real_path
from easytransfer.data.labels import LabelMap, count_classes
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.presets import resolve
from easytransfer.run.environment import environment_record, input_records
from easytransfer.run.folder import RunFolder
from easytransfer.run.log import print_result, say, setup_logging
from easytransfer.run.report import RunReporter
from easytransfer.train import checkpoint
from easytransfer.train.inference import Inference
from easytransfer.train.precision import pad_multiple
from easytransfer.train.trainer import FitResult, Trainer


class base_model(Hooks):  # noqa: N801 - the original's name
    """An application defined by its model function, loss, metrics and predictions.

    Every key of the configuration is an attribute, such as `self.train_input_fp` and `self.num_labels`. Setting the
    attribute `tvars` to a list of variables, in `build_logits` or before, limits training to them.

    Args:
        user_defined_config: A `Config`, or the content of a JSON configuration; default: what `--config` and `--mode`
            of the running script say.
        mode: One of `easytransfer.compat.config.MODES` for a configuration given as a dict.
        **kwargs: Further attributes.

    Raises:
        ConfigError: There is no configuration, or it is not valid.
    """

    def __init__(
        self, user_defined_config: Config | dict[str, Any] | None = None, *, mode: str | None = None, **kwargs: Any
    ) -> None:
        if user_defined_config is None:
            sys.excepthook = report_error
            self.config = command_line_config()
        elif isinstance(user_defined_config, Config):
            self.config = user_defined_config
        else:
            self.config = Config(mode or "train_and_evaluate", user_defined_config)
        for name, value in {**vars(self.config), **kwargs}.items():
            if hasattr(base_model, name):
                raise ConfigError(f"the configuration key {name} is the name of a method", fix="rename the key")
            setattr(self, name, value)
        self.job: JobConfig = self.config.job
        setup_logging(self.job.runtime.log_format)
        set_model_root(self.job.runtime.model_zoo_base_path)
        TableReader.default_data, BatchWriter.default_overwrite = self.job.data, self.job.runtime.overwrite
        TextPreprocessor.default_settings = self._settings(None)

    # Running -------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Does what the mode says with the tables of the configuration and prints the result as one JSON line."""
        result = {"mode": self.config.mode, **run_mode(self)}
        print_result(result)
        return result

    def run_train(self, reader: TableReader) -> dict[str, float]:
        """Trains on the rows of `reader` and returns `steps`."""
        return self.run_train_and_evaluate(reader, None)

    def run_train_and_evaluate(self, train_reader: TableReader, eval_reader: TableReader | None) -> dict[str, float]:
        """Trains on one reader, evaluates on the other, and returns the best metrics and `steps`.

        Raises:
            ConfigError: `model_dir` is missing, or holds a run with another configuration.
            DataError: A table cannot be used.
        """
        if not self.job.checkpoint_dir:
            raise ConfigError("train_config.model_dir is missing", fix="name the folder for checkpoints")
        runtime = self.job.runtime
        readers = {"training": train_reader, "evaluation": eval_reader}
        inputs = input_records({name: map(real_path, r.table.files) for name, r in readers.items() if r is not None})
        folder = RunFolder.create(
            self.job.checkpoint_dir,
            self._record(),
            resume=runtime.resume,
            overwrite=runtime.overwrite,
            defaults=type(self.job)().model_dump(mode="json"),
            inputs=inputs,
        )
        with folder:
            folder.write_run(environment_record(seed=runtime.seed, inputs=inputs))
            fit = self._fit(folder, train_reader, eval_reader)
            folder.finish("done", report=_outcome(fit))
        return {**fit.best_metrics, "steps": fit.steps}

    def run_evaluate(self, reader: TableReader, checkpoint_path: str | None = None) -> dict[str, float]:
        """Returns the metrics of a checkpoint on the rows of `reader`.

        Args:
            reader: Rows.
            checkpoint_path: Run folder or checkpoint; default: `eval_checkpoint_path`.
        """
        task = self._new_task(reader, (ModeKeys.EVAL,))
        encoded = self._encode(task, reader)
        self._restore(task, checkpoint_path)
        batches = Batches(encoded, reader.batch_size, shuffle=False, pad_multiple=pad_multiple(self.job.runtime))
        metrics = Inference(task).evaluate(islice(batches.epoch(0), self.job.train.num_eval_steps))[0]
        task.warn_of(metrics)
        return metrics

    def run_predict(
        self,
        reader: TableReader,
        writer: BatchWriter | None = None,
        checkpoint_path: str | None = None,
        yield_single_examples: bool = False,
    ) -> Iterator[dict[str, Any]] | None:
        """Predicts the rows of `reader` with a checkpoint.

        Args:
            reader: Rows.
            writer: Gets the predictions and the input columns its schema names; None returns a generator.
            checkpoint_path: Run folder or checkpoint; default: `predict_checkpoint_path`.
            yield_single_examples: Yield one dict per row instead of one per batch.
        """
        task = self._new_task(reader, (ModeKeys.PREDICT,))
        return _written(self._results(task, reader, checkpoint_path), writer, yield_single_examples)

    def run_preprocess(self, reader: TableReader, writer: BatchWriter) -> None:
        """Writes what `build_predictions` makes of every row, without a checkpoint; ids have `sequence_length`."""
        task = self._new_task(reader, (ModeKeys.PREDICT,))
        _written(self._results(task, reader, None, self.job.data.sequence_length), writer, False)

    def export_model(self) -> str:
        """Exports the model of `checkpoint_path` below `export_dir_base` and returns the version folder.

        `receiver_tensors_schema` declares the inputs of the signature `serving_default`; without it they are the texts
        of the input table, or its columns where they are not text.

        Raises:
            ConfigError: `export_dir_base` is missing, or no input is known.
            ModelError: The checkpoint is missing or does not fit, or the export fails its checks.
        """
        return str(export_application(self, self._settings(None), self._restore))

    # Inside --------------------------------------------------------------------------------------------------

    def _record(self) -> dict[str, Any]:
        """Configuration as stored in the run folder; two runs with equal ones are the same training."""
        own = {"application": type(self).__name__, "append_feature_columns": self.append_feature_columns}
        return {**self.job.model_dump(mode="json"), "model": self.config.model_config, "user_defined": own}

    def _settings(self, reader: TableReader | None) -> Settings:
        """Returns what preprocessors need, for the table of `reader` or the declared one."""
        declared = parse_schema(self.job.data.input_schema) if self.job.data.input_schema else ()
        return Settings(
            data=self.job.data,
            labels=self._labels(reader) if self.config.on_the_fly else None,
            append=self.config.append_columns,
            columns=tuple(declared if reader is None else reader.columns),
            encoded=not self.config.on_the_fly,
            seed=self.job.runtime.seed,
        )

    def _labels(self, reader: TableReader | None) -> LabelMap | None:
        """Class names in id order: those of the checkpoint, or what the configuration says; None is a regression."""
        spec, column = self.job.data.label_enumerate_values, self.job.data.label_name
        given = LabelMap.parse(spec, Counter) if spec not in (None, "", "auto", NO_CLASSES) else None
        folder = label_folder(self.job.checkpoint_path)
        if folder is not None:
            stored = LabelMap.load(folder)
            if given is not None and given.names != stored.names:
                raise ConfigError(
                    "label_enumerate_values are not those of the checkpoint", received=spec, accepted=stored.names
                )
            return stored
        if spec == "auto" and reader is not None:
            several, skip = bool(self.config.model_config.get("multi_label")), self.job.data.bad_rows != "fail"
            found = LabelMap.parse(spec, lambda: count_classes(reader.cells(column), several=several, skip=skip))
            say(f"labels: {found.describe_counts()}")
            return found
        return given

    def _new_task(self, reader: TableReader, modes: tuple[str, ...]) -> HookTask:
        self._take_texts(reader)
        settings = self._settings(reader)
        reader.table.schema.require(settings.append, where="append_feature_columns")
        TextPreprocessor.default_settings = settings
        return HookTask(self, modes, settings)

    def _take_texts(self, reader: TableReader) -> None:
        """Lets a preprocessor find text where the table has numbers or bytes."""
        data = self.job.data
        if self.config.on_the_fly:
            reader.table.take_text({name: "none" for name in (data.first_sequence, data.second_sequence) if name})

    def _encoded(
        self, task: HookTask, reader: TableReader, size: int = 4096
    ) -> Iterator[tuple[RowChunk, EncodedTable]]:
        """Yields chunks with their encoding, in table order, made in a background thread.

        Raises:
            DataError: No row can be used.
        """
        self._take_texts(reader)
        chunks = reader.chunks(size)
        first = next(chunks, None)
        if first is None:
            raise _unusable(reader)
        if task.model is None:
            task.build(first)
        # Encoded where it is read: a row may be rejected in either, and both keep the same account.
        yield from prefetch(((chunk, task.encode(chunk)) for chunk in chain([first], chunks)), depth=2)
        reader.table.bad_rows.close()
        if not reader.table.count.accepted:
            raise _unusable(reader)

    def _encode(self, task: HookTask, reader: TableReader) -> EncodedTable:
        table = EncodedTable.concat([encoded for _, encoded in self._encoded(task, reader)])
        count = reader.table.count
        say(f"{', '.join(reader.table.files)}: {count.read:,} rows read, {count.rejected:,} rejected")
        return table

    def _fit(self, folder: RunFolder, train_reader: TableReader, eval_reader: TableReader | None) -> FitResult:
        runtime = self.job.runtime
        task = self._new_task(train_reader, (ModeKeys.TRAIN, *([] if eval_reader is None else [ModeKeys.EVAL])))
        if task.settings.labels is not None:
            task.settings.labels.save(folder.path)
        multiple, held_out = pad_multiple(runtime), None
        rows = self._encode(task, train_reader)
        train = Batches(rows, train_reader.batch_size, shuffle=True, seed=runtime.seed, pad_multiple=multiple)
        if eval_reader is not None:
            rows = self._encode(task, eval_reader)
            held_out = Batches(rows, eval_reader.batch_size, shuffle=False, pad_multiple=multiple)
        reporter = _Reporter(self, folder.path, log_format=runtime.log_format)
        fit = Trainer(task, self.job.train, runtime, folder.path, reporter).fit(train, held_out)
        task.warn_of(fit.best_metrics)
        return fit

    def _restore(self, task: HookTask, path: str | None = None) -> str:
        """Loads the weights of a checkpoint and returns where they are from."""
        path = path or self.job.checkpoint_path
        if path:
            try:
                return str(checkpoint.load_weights(task.model, path))
            except ModelError:
                if not self._is_pretrained(path):
                    raise
        if new := task.model.new_variables():
            raise ModelError(
                "no checkpoint has the weights of this model's own layers",
                received=path,
                accepted="a run folder or one of its checkpoints",
                fix=f"{new[0].name} and {len(new) - 1} more would be random; train first, or name the checkpoint",
            )
        return "the pre-trained model"

    def _is_pretrained(self, path: str) -> bool:
        """Whether a path is the model of the ModelZoo whose weights `get_pretrained_model` loads anyway."""
        root = self.job.runtime.model_zoo_base_path
        try:
            return resolve(path, root).folder == resolve(self.pretrain_model_name_or_path, root).folder
        except (ModelError, AttributeError):
            return False

    def _results(
        self, task: HookTask, reader: TableReader, path: str | None, width: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yields input columns and predictions batch by batch, in table order; `width` is that of id tables."""
        predict, restored = tf.function(task.predictions, reduce_retracing=True), width is not None
        for chunk, encoded in self._encoded(task, reader, reader.batch_size):
            if not restored:
                self._restore(task, path)
                restored = True
            if not len(encoded):
                continue
            batch = encoded.batch(np.arange(len(encoded))) if width is None else fixed_arrays(encoded, width)
            found = predict({name: tf.constant(value) for name, value in device_arrays(batch).items()})
            yield {**chunk.compact().columns, **{name: value.numpy() for name, value in found.items()}}


class _Reporter(RunReporter):
    """Also tells the application."""

    def __init__(self, app: base_model, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self._app = app

    def step(self, step: int, metrics: Any) -> None:
        super().step(step, metrics)
        self._app.on_step_end(step, dict(metrics))

    def evaluation(self, step: int, metrics: Any) -> None:
        super().evaluation(step, metrics)
        self._app.on_eval_end(step, dict(metrics))

    def saved(self, step: int, path: Any) -> None:
        super().saved(step, path)
        self._app.on_save(step, os.fspath(path))


def _written(
    results: Iterator[dict[str, Any]], writer: BatchWriter | None, single: bool
) -> Iterator[dict[str, Any]] | None:
    if writer is None:
        return _single(results) if single else results
    try:
        for result in results:
            writer.process(result)
    except BaseException:
        writer.abort()
        raise
    writer.close()
    return None


def _single(results: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for row in zip(*result.values(), strict=True):
            yield dict(zip(result, row, strict=True))


def _outcome(fit: FitResult) -> dict[str, Any]:
    """Returns `report.json`: the metrics of the best checkpoint, its step, and all steps of the training."""
    return {"checkpoint_step": fit.best_step, "steps": fit.steps, "metrics": fit.best_metrics}


def _unusable(reader: TableReader) -> DataError:
    return reader.table.count.nothing_usable(", ".join(reader.table.files), reader.table.bad_rows.summary())
