"""Export of a trained application for LiteRT, and how far its answers are from the network's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.jobs.inference import Call
from easytransfer.app.contract import App
from easytransfer.app.inputs.base import Input
from easytransfer.errors import ConfigError
from easytransfer.export.litert import export_litert
from easytransfer.export.saved_model import ExportReport
from easytransfer.run.log import say
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.lean_encoder import lean


def export_app_litert(app: App, folder: Path, *, int8: bool, **options: Any) -> ExportReport:
    """Publishes the next version of an application whose model is in memory.

    Args:
        app: Application with trained weights.
        folder: Run folder with its assets.
        int8: Whether matrices are multiplied in eight bits.
        options: As `export_litert` has them.

    Raises:
        ConfigError: The network is none that LiteRT can compute.
    """
    specs, inputs = row_inputs(app.inputs)
    function = of_rows(app.predict_step, inputs, getattr(app.model, "backbone", None), int8=int8)
    say("converting the network for LiteRT and checking it")
    rows = {"inputs": inputs, "padding": dict(getattr(app.model, "padding", {}))}
    signatures = {name: each for name, each in app.signatures(folder).items() if name in _SIGNATURES}
    report = export_litert(function, specs, rows, int8=int8, signatures=signatures, module=app.model, **options)
    say(f"exported {report.path}")
    return report


# What a LiteRT export says of itself: raw input, arrays, and names of classes.
_SIGNATURES = ("serving_default", "predict_ids", "labels")


def of_rows(
    predict: Callable[[dict[str, tf.Tensor]], Mapping[str, Any]],
    inputs: Mapping[str, Mapping[str, Any]],
    backbone: Any,
    *,
    int8: bool,
) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns a function of one row, whose encoder is computed in its lean form.

    Args:
        predict: Takes the arrays of a batch to named outputs.
        inputs: Of the row, as `row_inputs` returns them.
        backbone: The encoder that `predict` calls; what is none like BERT is left as it is.
        int8: Whether its tables become whole numbers, see `LeanEncoder`.
    """

    def function(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        with lean(backbone, int8=int8) if isinstance(backbone, EncoderBackbone) else nullcontext() as tell:
            arrays = {}
            for name, facts in inputs.items():
                if not facts.get("positions"):
                    arrays[facts["array"]] = tensors[name]
                    continue
                # A tensor of ones without an operator that makes one of a shape, which XNNPACK does not have.
                arrays[facts["mask"]] = tf.minimum(tensors[name] + 1, 1)
                if tell is not None:
                    tell(tensors[facts["counts"]], tensors[name])
            return {name: value for name, value in predict(arrays).items() if tf.is_tensor(value)}

    return function


def row_inputs(parts: Sequence[Input]) -> tuple[dict[str, tf.TensorSpec], dict[str, dict[str, Any]]]:
    """Returns the inputs of one row, and how arrays of a batch become them; see `easytransfer.litert.model.ROWS`.

    Args:
        parts: The inputs of an application.

    Raises:
        ConfigError: An array has several axes of any length.
    """
    specs: dict[str, tf.TensorSpec] = {}
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        lengths = {**{source: mask for mask, source in part.masks.items()}, **part.lengths}
        for name, spec in part.specs().items():
            if spec.shape.rank is None or None in spec.shape[2:]:
                raise ConfigError(
                    f"the input {name} has several axes of any length, which LiteRT exports do not hold",
                    fix="leave litert and litert-int8 out of exportVariants",
                )
            facts: dict[str, Any] = {"array": name}
            if name in part.masks:
                facts = {"mask": name, "positions": True, "counts": part.masks[name]}
                name = f"positions_of_{part.masks[name]}"
            elif name in lengths:
                facts["mask"] = lengths[name]
            elif spec.shape.rank > 1 and spec.shape[1] is None:
                facts["trimmed"] = True
            specs[name], found[name] = tf.TensorSpec([1, *spec.shape[1:]], spec.dtype), facts
    return specs, found


class Compared:
    """A model that is called beside the network it was made from, and counts where they differ.

    Args:
        call: Of the model.
        network: Of the network.

    Attributes:
        rows: Rows that were compared.
        flips: Rows whose choice differs: the largest of the numbers of an output's last axis.
        largest: Largest difference of a number.
    """

    def __init__(self, call: Call, network: Call) -> None:
        self._call, self._network = call, network
        self.rows, self.flips, self.largest = 0, 0, 0.0

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the answers of the model."""
        found, wanted = self._call(batch), self._network(batch)
        flipped = np.zeros(len(batch["example_weight"]), bool)
        for name in found.keys() & wanted.keys():
            one, other = np.asarray(found[name]), np.asarray(wanted[name])
            if one.shape != other.shape or other.dtype.kind != "f":
                continue
            # Behind the end of shorter rows there is nothing to compare, nor where minus infinity masks.
            real = self._real(batch, other) & (np.abs(other) < 1e8)
            self.largest = max(self.largest, float(np.max(np.abs(one - other), initial=0.0, where=real)))
            if other.ndim > 1 and other.shape[-1] > 1:
                chosen = (one.argmax(-1) != other.argmax(-1)) & real.any(-1)
                flipped |= chosen.reshape(len(flipped), -1).any(axis=1)
        self.rows += len(flipped)
        self.flips += int(flipped.sum())
        return found

    def facts(self) -> dict[str, Any]:
        """Returns what the table of variants shows."""
        return {"rows": self.rows, "flips": self.flips, "largest_difference": self.largest}

    @staticmethod
    def _real(batch: dict[str, np.ndarray], value: np.ndarray) -> np.ndarray:
        """Returns which numbers of an output belong to tokens; all where its second axis is none of tokens."""
        for name, mask in batch.items():
            if name.startswith("input_mask") and value.ndim > 1 and value.shape[1] == mask.shape[1]:
                return np.broadcast_to(mask.astype(bool).reshape(*mask.shape, *[1] * (value.ndim - 2)), value.shape)
        return np.ones(value.shape, bool)
