"""An export for LiteRT: every row computed on its own, by interpreters of one thread. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import EasyTransferError, ModelError
from easytransfer.litert.model import ROWS, LiteRtModel
from easytransfer.savedmodel.array_json import decode_array, take_rows
from easytransfer.savedmodel.calling import Arrays, Caller
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.servable import DEFAULT_SIGNATURE, LoadedSignature, Servable, TensorFacts, facts_of

# Makes the function behind `serving_default`, which takes raw texts; None where an application has no such one.
RawCaller = Callable[[LiteRtModel], Caller | None]
ARRAYS_SIGNATURE, NAMES_SIGNATURE = "predict_ids", "labels"
# Names of the protocol for types of NumPy.
_PROTOCOL_TYPES = {"string": "DT_STRING", "float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF"}


class LiteRtServable(Servable):
    """A version of a LiteRT export: `predict_ids`, for texts `serving_default`, and where there are classes `labels`.

    A call computes its rows one after the other; calls of several threads take an interpreter each.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The version folder.
        raw: Makes what takes raw texts.

    Raises:
        ModelError: The export is damaged, or does not answer as it declares.
        ResourceError: LiteRT is not installed.
    """

    def __init__(self, name: str, version: int, folder: Path, raw: RawCaller) -> None:
        super().__init__(name, version)
        self._model = LiteRtModel(folder, 1)
        declared = self._model.manifest["signatures"]
        callers = {
            DEFAULT_SIGNATURE: raw(self._model), ARRAYS_SIGNATURE: self._of_arrays, NAMES_SIGNATURE: self._names
        }  # fmt: skip
        self.signatures = {
            key: LoadedSignature(
                key, *map(facts_of, (each["inputs"], each["outputs"])), _told(caller, each["outputs"]), by_row=True
            )
            for key, each in declared.items()
            if (caller := callers.get(key)) is not None
        }
        for signature in self.signatures.values():
            self._warm_up(signature)

    def described(self) -> dict[str, Any]:
        """Returns the signatures in the JSON form of `SignatureDef`."""
        return {
            name: {
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
                "method_name": "tensorflow/serving/predict",
                "defaults": {},
            }
            for name, signature in self.signatures.items()
        }

    def close(self) -> None:
        """Gives back its memory; nobody may ask it any more."""
        self._model.close()

    def _of_arrays(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Calls the model on arrays of a request, which may hold anything."""
        longest = int(self._model.manifest["max_length"])
        for facts in self._model.manifest[ROWS]["inputs"].values():
            # Rows are cut where their mask ends, which must be an end.
            if "mask" not in facts:
                continue
            mask = inputs[facts["mask"]]
            if not (np.isin(mask, (0, 1)).all() and (np.diff(mask, axis=1) <= 0).all() and mask[:, :1].all()):
                raise ModelError(f"{facts['mask']} must be ones and behind them zeros, at least one 1 a row")
            if (most := mask.sum(axis=1).max(initial=0)) > longest:
                raise ModelError(f"a row has {most} tokens", accepted=f"at most {longest}")
            counted = inputs[facts.get("counts", facts.get("array"))]
            if counted.shape[1] != mask.shape[1]:
                raise ModelError(f"{facts['mask']} and what it is of have unequally many columns")
        return self._model(inputs)

    def _names(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Returns the names of classes by their numbers."""
        ids, names = inputs["class_id"], self._model.manifest["labels"]
        if (wrong := ids[(ids < 0) | (ids >= len(names))]).size:
            raise ModelError(f"class_id {wrong[0]} is not in [0, {len(names)})")
        return {"label": np.array([*(name.encode() for name in names), None], object)[ids]}

    def _warm_up(self, signature: LoadedSignature) -> None:
        samples = self._model.manifest["samples"][signature.name]["inputs"]
        found = signature.call(take_rows({key: decode_array(value) for key, value in samples.items()}, 1))
        if found.keys() != signature.outputs.keys():
            raise ModelError(
                f"{signature.name} does not answer what the manifest declares",
                received=sorted(found),
                accepted=sorted(signature.outputs),
                fix="export again",
            )


def _told(caller: Caller, declared: Collection[str]) -> Caller:
    """Returns the function with what the model refuses as what is told to a client.

    Exports of earlier versions declare fewer outputs than applications answer now, and go on answering those alone.
    """

    def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
        try:
            return {name: value for name, value in caller(inputs).items() if name in declared}
        except EasyTransferError as error:
            raise ServingFailure("INVALID_ARGUMENT", str(error)) from error

    return call


def _tensors(side: Mapping[str, TensorFacts]) -> dict[str, Any]:
    found = {}
    for name, facts in side.items():
        axes = [{"size": str(-1 if size is None else size), "name": ""} for size in facts.shape or ()]
        found[name] = {
            "dtype": _PROTOCOL_TYPES.get(facts.dtype, f"DT_{facts.dtype.upper()}"),
            "tensor_shape": {"dim": axes, "unknown_rank": facts.shape is None},
            "name": name,
        }
    return found
