"""Checks 4 and 5: every signature answers as the trained model, under both loaders and the official command."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...savedmodel.array_json import decode_array, take_rows
from ...savedmodel.calling import Arrays, Caller
from ...savedmodel.failure import CheckFailed
from ...savedmodel.rounding import ALLOWED, EPSILON, coarsest, scale_of, units

HARD_TEXTS = ("", "naïve café, Straße, 漢字かな 한국어 العربية 👩‍👩‍👧 \u0000\u200b\t", "long " * 3000)


class _Recorded:
    """What the model in memory answered to the samples of a signature.

    Args:
        name: The signature.
        samples: Its entry in the manifest.
        rows: Number of sample rows.
        float_type: The type whose rounding is the unit.

    Attributes:
        answers: Outputs by number of rows.
        undecided: Sample rows by output that are not compared: rounding alone decides them.
    """

    def __init__(self, name: str, samples: Mapping[str, Any], rows: int, float_type: str) -> None:
        self._name, self._rows, self._type = name, rows, float_type
        self._tolerance = samples.get("tolerance", {})
        self.answers: dict[int, Arrays] = {
            int(count): {key: decode_array(value) for key, value in outputs.items()}
            for count, outputs in samples["outputs"].items()
        }
        self.undecided = {key: set(found) for key, found in samples.get("undecided", {}).items()}
        every = list(self.answers.values())
        numbers = [key for key, value in every[0].items() if value.dtype.kind == "f"]
        self._scales = {key: scale_of(outputs[key] for outputs in every) for key in numbers}

    def compare(self, count: int, got: Arrays) -> float:
        """Returns the largest difference of the answer to a batch, as a share of what rounding explains.

        Raises:
            CheckFailed: Another output, shape, text or whole number, or a number beyond rounding.
        """
        place, expected = f"{self._name}, batch of {count}", self.answers[count]
        if set(got) != set(expected):
            raise CheckFailed(f"{place}: outputs {sorted(got)}, expected {sorted(expected)}")
        return max(self._compare(f"{place}: {key}", key, got[key], want) for key, want in expected.items())

    def _compare(self, place: str, key: str, have: np.ndarray, want: np.ndarray) -> float:
        decided = [row for row in range(len(want)) if row % self._rows not in self.undecided.get(key, ())]
        if not decided and len(have) == len(want):
            return 0.0
        if have.shape != want.shape:
            raise CheckFailed(f"{place} has shape {have.shape}, the model in memory {want.shape}")
        have, want = have[decided], want[decided]
        if key not in self._scales:
            if not np.array_equal(have, want):
                raise CheckFailed(f"{place} is {have.tolist()}, the model in memory gave {want.tolist()}")
            return 0.0
        if not np.isfinite(have).all():
            raise CheckFailed(f"{place} is not finite")
        found, allowed = self._units(key, have, want), self._allowed(key)
        if found > allowed:
            difference = np.max(np.abs(have.astype(np.float64) - want))
            raise CheckFailed(
                f"{place} differs from the model in memory by {difference:.3g} where its numbers reach "
                f"{self._scales[key]:.3g}: {found:,.0f} units of rounding, {allowed:,.0f} are allowed"
            )
        return found / allowed

    def check_rows_apart(self, answers: list[Arrays]) -> None:
        """The server joins rows of different requests, so the answer to the first row must not depend on the others."""
        for other in answers[1:]:
            for key in self._scales:
                alone, together = answers[0][key][:1], other[key][:1]
                # An axis whose length follows the longest row of the batch cannot be compared.
                if 0 in self.undecided.get(key, ()) or alone.shape != together.shape:
                    continue
                if self._units(key, together, alone) > self._allowed(key):
                    raise CheckFailed(f"{self._name}: {key} of a row depends on the other rows of its batch")

    def _allowed(self, key: str) -> float:
        share = self._tolerance.get(key)
        return ALLOWED[self._type] if share is None else share / EPSILON[self._type]

    def _units(self, key: str, have: np.ndarray, want: np.ndarray) -> float:
        return float(np.max(units(have, want, self._scales[key], self._type), initial=0.0))


def check_outputs(callers: Mapping[str, Caller], manifest: Mapping[str, Any], hard_texts: bool = True) -> str:
    """Runs every signature on its samples, on an empty batch and on hard texts.

    Returns:
        The largest difference from the model in memory as a share of what rounding explains, and the rows left out.

    Raises:
        CheckFailed: A signature fails, mixes rows, or differs from what the manifest recorded.
    """
    largest, undecided, float_type = 0.0, 0, coarsest(manifest["float_types"])
    for name, samples in manifest["samples"].items():
        inputs = {key: decode_array(value) for key, value in samples["inputs"].items()}
        recorded = _Recorded(name, samples, len(next(iter(inputs.values()))), float_type)
        answers = {}
        for rows in recorded.answers:
            answers[rows] = _call(f"{name}, batch of {rows}", callers[name], take_rows(inputs, rows))
            largest = max(largest, recorded.compare(rows, answers[rows]))
            _check_label_values(name, answers[rows], manifest["labels"])
        empty = _call(f"{name}, empty batch", callers[name], {key: value[:0] for key, value in inputs.items()})
        if any(value.shape[:1] != (0,) for value in empty.values()):
            shapes = {key: value.shape for key, value in empty.items()}
            raise CheckFailed(f"{name}: an empty batch gave {shapes}")
        recorded.check_rows_apart(list(answers.values()))
        if name == "labels":
            _check_all_names(name, callers[name], manifest["labels"])
        if hard_texts:
            _check_hard_texts(name, callers[name], manifest["signatures"][name])
        undecided += len(set().union(*recorded.undecided.values()))
    left_out = f"; {undecided} rows not compared, since rounding decides them" if undecided else ""
    return f"largest difference from the model in memory {largest:.2g} of what rounding explains{left_out}"


def check_command(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Runs what `saved_model_cli show` and `run` run, without paying for another start of TensorFlow.

    Raises:
        CheckFailed: Either fails.
    """
    from absl import flags
    from tensorflow.python.tools import saved_model_cli

    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()) as shown:
        flags.FLAGS(["saved_model_cli", f"--dir={folder}", "--tag_set=serve", "--signature_def=serving_default"])
        saved_model_cli.show()
        samples = manifest["samples"]["serving_default"]["inputs"]
        inputs = take_rows({key: decode_array(value) for key, value in samples.items()}, 1)
        saved_model_cli.run_saved_model_with_feed_dict(
            str(folder), "serve", "serving_default", inputs, scratch, overwrite_flag=True
        )
    for key in manifest["signatures"]["serving_default"]["inputs"]:
        if f"inputs['{key}']" not in shown.getvalue():
            raise CheckFailed(f"`saved_model_cli show` does not list the input {key}")
    return "show and run of serving_default"


def _call(place: str, call: Caller, inputs: Mapping[str, np.ndarray]) -> Arrays:
    try:
        return call(inputs)
    except tf.errors.OpError as error:
        lines = [line for line in error.message.splitlines() if line.strip()]
        raise CheckFailed(f"{place}: {type(error).__name__}: {' '.join(lines)[:1000]}") from error


def _check_label_values(name: str, outputs: Arrays, labels: list[str] | None) -> None:
    if not labels:
        return
    known = {label.encode() for label in labels}
    if "classes" in outputs and any([row.tolist() != [x.encode() for x in labels] for row in outputs["classes"]]):
        raise CheckFailed(f"{name}: classes are {outputs['classes'].tolist()}, the labels {labels}")
    # Several labels are joined by commas; a label may itself hold a comma.
    for value in outputs["label"].ravel() if {"label", "probabilities"} <= set(outputs) else ():
        if value not in known and not all(part in known for part in value.split(b",") if part):
            raise CheckFailed(f"{name}: answered the label {value!r}, which is none of {labels}")
    for value in outputs["top5"].ravel() if "top5" in outputs else ():
        if value not in known:
            raise CheckFailed(f"{name}: answered the name {value!r}, which is none of {labels}")


def _check_all_names(name: str, call: Caller, labels: list[str] | None) -> None:
    found = _call(f"{name}, all classes", call, {"class_id": np.arange(len(labels or ()), dtype=np.int32)[None]})
    if found["label"].tolist() != [[label.encode() for label in labels or ()]]:
        raise CheckFailed(f"{name}: the names are {found['label'].tolist()}, the labels {labels}")


def _check_hard_texts(name: str, call: Caller, signature: Mapping[str, Any]) -> None:
    specs = signature["inputs"]
    if name in ("classify", "regress") or any(s["dtype"] != "string" or len(s["shape"]) != 1 for s in specs.values()):
        return
    if any(key.endswith("_bytes") for key in specs):
        return
    texts = np.array([text.encode() for text in HARD_TEXTS] + [b"\xff\xfe broken"], object)
    for key, value in _call(f"{name}, hard texts", call, dict.fromkeys(specs, texts)).items():
        if value.shape[0] != len(texts) or (value.dtype.kind == "f" and not np.isfinite(value).all()):
            raise CheckFailed(f"{name}: {key} is wrong or not finite on empty, non-ASCII or over-long text")
