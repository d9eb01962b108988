"""A trained network that another training uses and never changes: a teacher, a generator, or what it starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from easytransfer.app.inputs.base import Input
from easytransfer.config.job import JobConfig
from easytransfer.config.stored import inherited, load_run_config
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError, ModelError
from easytransfer.run.atomic import sha256
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.graph import load_needed_operators, read_saved_model
from easytransfer.savedmodel.loading import find_exported, is_exported
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.train import checkpoint
from easytransfer.train.task import Batch, Outputs

if TYPE_CHECKING:
    from easytransfer.app.contract import App

# Takes a model name to the types of its configuration and its application: `appzoo.discovery.find_application`.
Find = Callable[[str], "tuple[type[JobConfig], type[App]]"]
# Arrays of the frozen network for a batch of the training.
Rule = Callable[[Batch], Batch]
# Of a SavedModel, what decides its answers.
_DECIDING = ("saved_model.pb", "variables/*", "assets/*", MANIFEST)
_SIGNATURE = "predict_ids"


class Frozen:
    """Calls a network that is loaded once and never trained: no model, optimizer or checkpoint has its variables.

    Put it into `App.frozen` under its role: its identity is then part of the run record and of every checkpoint, a run
    is only continued with the same network, and workers make sure that they all have it.

    Args:
        role: What it is called: teacher, generator.
        call: Takes arrays by name to outputs by name, inside a graph.
        specs: Shape and dtype of the arrays it takes.
        record: What identifies it: `path`, `sha256`, and more for people.
        arrays: Makes its arrays of a batch of the training; None takes those of the same names.
        exact: Whether dtypes must be those of `specs`: a signature does not convert, a model does.
        app: Its application with the trained `model`; of an export the model is only in `call`; None for others.

    Example:
        >>> self.frozen["teacher"] = Frozen.open(path, find_application, "teacher", inputs=self.inputs)
        >>> logits = self.frozen["teacher"](batch)["logits"]
    """

    def __init__(
        self,
        role: str,
        call: Callable[[Batch], Mapping[str, Any]],
        specs: Mapping[str, tf.TensorSpec],
        record: dict[str, str],
        arrays: Rule | None = None,
        *,
        exact: bool = False,
        app: App | None = None,
    ) -> None:
        self.role, self.specs, self.record, self.app = role, dict(specs), record, app
        self._call, self._arrays, self._exact = call, arrays, exact

    @classmethod
    def open(
        cls,
        path: str | Path,
        find: Find,
        role: str,
        *,
        inputs: Sequence[Input] | None = None,
        arrays: Rule | None = None,
    ) -> Frozen:
        """Opens a run or an export of any application.

        Args:
            path: Run folder (its best checkpoint), one of its checkpoints, or an export.
            find: Finds an application by its model name.
            role: What messages call it.
            inputs: Those of the training: the network must take the same, of one vocabulary. None where there is a
                rule, or where the caller has made sure.
            arrays: The rule where it takes others: makes its arrays of a batch of the training.

        Raises:
            ModelError: Nothing usable is there, or it takes other inputs.
            ConfigError: Its application is not installed.
        """
        path = Path(path)
        if not (path / CONFIG_FILE).is_file() and is_exported(path):
            frozen = _of_export(cls, path, find, role, arrays)
        else:
            found = resolved(path, role)
            settings, app = _application(found.parent, find, role)
            frozen = cls.of_run(app, found, role, settings, arrays)
        if inputs is not None and arrays is None:
            frozen.require_inputs(inputs)
        return frozen

    @classmethod
    def of_run(
        cls,
        app: App,
        found: Path,
        role: str,
        settings: Mapping[str, Any] = MappingProxyType({}),
        arrays: Rule | None = None,
    ) -> Frozen:
        """Gives an application the weights of a checkpoint.

        Args:
            app: Of the run, unprepared.
            found: Folder of the checkpoint.
            role: What messages call it.
            settings: What else identifies the network.
            arrays: See `open`.

        Raises:
            ModelError: Assets or weights are missing, or do not fit the application.
        """
        folder = found.parent
        app.load_assets(folder)
        app.build_model(folder)
        stored = checkpoint.load(found, weights_only=True)
        try:
            checkpoint.assign(app.model, stored)
        except ModelError as error:
            files = " and ".join(app.asset_files) or CONFIG_FILE
            # Further lines would be the table of all weights.
            reason = str(error).splitlines()[0]
            raise ModelError(f"the weights of the {role} are not those of its {files}: {reason}") from None
        app.model.trainable = False
        weights = stored.state["files"][checkpoint.WEIGHTS]
        assets = {name: sha256(folder / name) for name in app.exported_files if (folder / name).is_file()}
        digest = _digest({"weights": weights, "assets": assets, "settings": dict(settings)})
        record = {"path": str(found), "kind": "run", "model_name": str(app.config.model_name), "weights": weights}
        return cls(role, app.forward, app.specs(), {**record, "sha256": digest}, arrays, app=app)

    def __call__(self, batch: Batch) -> Outputs:
        """Returns its outputs for a batch: float32, without gradients or dropout, with moving statistics.

        Args:
            batch: Arrays [batch, ...] by name; those it does not take are left out.

        Raises:
            ConfigError: An array is missing, or has another shape (of an export: or dtype) than the network takes.
        """
        given = batch if self._arrays is None else self._arrays(batch)
        self._check_arrays(given)
        outputs = self._call({name: given[name] for name in self.specs})
        return {name: _constant(value) for name, value in outputs.items() if tf.is_tensor(value)}

    @property
    def place(self) -> str:
        """What messages call it: its role and where it was read from."""
        return f"the {self.role} {self.record['path']}"

    def _check_arrays(self, given: Batch) -> None:
        missing = [name for name in self.specs if name not in given]
        if missing:
            raise ConfigError(
                f"{self.place} takes {', '.join(self.specs)}, and the batch has no {', '.join(missing)}",
                received=", ".join(given),
                fix="give a rule that makes its arrays of the batch (`arrays`), or take another network",
            )
        for name, spec in self.specs.items():
            value = given[name]
            if not spec.shape.is_compatible_with(value.shape) or (self._exact and value.dtype != spec.dtype):
                raise ConfigError(
                    f"{self.place} takes {name} as {_shown(spec)}",
                    received=_shown(value),
                    fix="give a rule that makes its arrays of the batch (`arrays`), or take another network",
                )

    def require_inputs(self, inputs: Sequence[Input]) -> None:
        """Refuses a network whose inputs have the names of the training's, and mean something else.

        Args:
            inputs: Those of the training.

        Raises:
            ModelError: An array, its shape, or what its values mean differs.
        """
        theirs = {name: (part, spec) for part in self.app.inputs for name, spec in part.specs().items()}
        ours = {name: (part, spec) for part in inputs for name, spec in part.specs().items()}
        for name, (part, spec) in theirs.items():
            if name not in ours:
                raise ModelError(
                    f"{self.place} reads {', '.join(theirs)}, and this run has {', '.join(ours)}",
                    fix="take a network of the same inputs",
                )
            own_part, own = ours[name]
            if spec.dtype != own.dtype or not spec.shape.is_compatible_with(own.shape):
                raise ModelError(
                    f"{self.place} takes {name} as {_shown(spec)}, and this run has {_shown(own)}",
                    fix="take a network of the same inputs, or change those of this run",
                )
            mine, its = own_part.meaning(), part.meaning()
            for what in (key for key in {**its, **mine} if its.get(key) != mine.get(key)):
                if what == "vocabulary":
                    raise ModelError(
                        f"{self.place} reads {name} with another vocabulary than this run: equal ids are other words",
                        fix="take a network of the same vocabulary, or start this run from that network's",
                    )
                raise ModelError(
                    f"{self.place} reads {name} with another {what} than this run",
                    fix="take a network that reads the same, or change the settings of this run",
                )


def resolved(path: str | Path, role: str) -> Path:
    """Returns the checkpoint of a run that a role is given to, see `checkpoint.resolve`.

    Raises:
        ModelError: There is none.
    """
    try:
        return checkpoint.resolve(path)
    except ModelError as error:
        raise ModelError(f"no {role}: {error}") from None


def _of_export(cls: type[Frozen], path: Path, find: Find, role: str, arrays: Rule | None) -> Frozen:
    folder = find_exported(path)
    if not (folder / MANIFEST).is_file():
        raise ModelError(
            f"the {role} {folder} is a SavedModel without {MANIFEST}", accepted="an export, or the folder of a run"
        )
    try:
        load_needed_operators(read_saved_model(folder))
        loaded = tf.saved_model.load(str(folder))
    except (CheckFailed, tf.errors.OpError, OSError, ValueError) as error:
        raise ModelError(f"the {role} {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    if _SIGNATURE not in loaded.signatures:
        raise ModelError(f"the {role} {folder} has no signature {_SIGNATURE}", received=", ".join(loaded.signatures))
    _, app = _application(folder, find, role)
    app.load_assets(folder / "assets")
    signature = loaded.signatures[_SIGNATURE]
    specs = signature.structured_input_signature[1]

    def call(batch: Batch) -> Mapping[str, Any]:
        # Closes over `loaded`: signatures alone do not keep its variables alive.
        assert loaded is not None
        return signature(**batch)

    record = {"path": str(folder), "kind": "export", "model_name": str(app.config.model_name)}
    return cls(role, call, specs, {**record, "sha256": saved_model_digest(folder)}, arrays, exact=True, app=app)


def _application(folder: Path, find: Find, role: str) -> tuple[dict[str, Any], App]:
    """Returns what decides the model of the settings stored in a run or an export, and its unprepared application."""
    stored = inherited(load_run_config(folder))
    config_class, app_class = find(str(stored.get("model_name")))
    try:
        return stored, app_class(config_class.model_validate(stored))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        reason = f"{setting}: {first['msg']}"
        raise ModelError(f"the stored settings of the {role} {folder} are not usable: {reason}") from None


def saved_model_digest(folder: Path) -> str:
    """Returns the SHA-256 of what decides the answers of a SavedModel: graph, variables, assets, manifest."""
    files = sorted(file for pattern in _DECIDING for file in folder.glob(pattern) if file.is_file())
    return _digest({file.relative_to(folder).as_posix(): sha256(file) for file in files})


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _constant(value: tf.Tensor) -> tf.Tensor:
    low = value.dtype in (tf.float16, tf.bfloat16)
    return tf.stop_gradient(tf.cast(value, tf.float32) if low else value)


def _shown(value: tf.Tensor | tf.TensorSpec) -> str:
    shape = "any shape" if value.shape.rank is None else [size or "any" for size in value.shape.as_list()]
    return f"{value.dtype.name} {shape}".replace("'", "")
