"""How far an export is from the model in memory: by rounding alone, and with faults, in the units of the check.

    python benchmarks/export_rounding.py RUN_FOLDER ... --networks resnet8_cifar resnet110_cifar ... --log FILE
    python benchmarks/export_rounding.py --log FILE

The second form prints the table of a log. Every run is exported without its checks. For every signature, batch size and
(for arrays) length the largest difference of `rounding.units` counts: the loaded export and a session of it beside the
model in memory, and a row of the batch beside the same row alone. Then each fault is put into the model in memory and
the answers are compared with those of the sound one. Networks are built from random weights, normalised with the
statistics of a batch, and called in a graph and step by step, for what depth does.
`easytransfer/savedmodel/rounding.py` allows what lies between.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.cli.reader import JobReader
from appzoo.jobs.export import in_float32
from appzoo.jobs.trained import open_trained
from easytransfer import keras
from easytransfer.export.samples import answer, sensitivity
from easytransfer.export.saved_model import write_servable
from easytransfer.layers.dropout import Dropout
from easytransfer.savedmodel.array_json import take_rows
from easytransfer.savedmodel.calling import eager_callers, session_callers
from easytransfer.savedmodel.rounding import EPSILON, scale_of, units
from easytransfer.savedmodel.signature import Signature
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

Arrays = dict[str, np.ndarray]


def main() -> None:
    """Measures what is named and prints the table of the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--networks", nargs="*", default=[])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3, 8, 32])
    parser.add_argument("--lengths", type=int, nargs="*", default=[33, 128])
    parser.add_argument("--log", type=Path, required=True, help="a JSON line is added for each measurement")
    options = parser.parse_args()
    lines = (line for run in options.runs for line in measured(run, options.batches, options.lengths))
    for line in itertools.chain(lines, map(deep, options.networks)):
        with options.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print_table([json.loads(line) for line in options.log.read_text().splitlines()])


def print_table(found: list[dict]) -> None:
    """Prints the largest difference by rounding and the smallest by a fault, of every run, network and fault."""
    runs: dict[str, list[dict]] = {}
    for line in found:
        # A fault that changes nothing is none of this network: it has no padding, or that epsilon already.
        if line.get("units") or "fault" not in line:
            runs.setdefault(f"{line['application']} ({line['run']})", []).append(line)
    print(f"{'':<52}{'measured':>9}{'rounding':>10}{'allowed':>9}{'smallest fault':>16}")
    for name, lines in runs.items():
        sound = [line["units"] for line in lines if "units" in line and "fault" not in line]
        allowed = max((line["allowed"] for line in lines if "allowed" in line), default=0)
        least = min((line for line in lines if "fault" in line), key=lambda line: line["units"], default=None)
        shown = f"{least['units']:>16,.0f}  {least['fault']}" if least else ""
        print(f"{name:<52}{len(sound):>9}{max(sound, default=0):>10,.1f}{allowed:>9,.0f}{shown}")
    print()
    faults = sorted({line["fault"] for line in found if "fault" in line})
    for fault in faults:
        values = [line["units"] for line in found if line.get("fault") == fault and line["units"]]
        print(f"{fault:<52}{len(values):>9} runs, {min(values):,.0f} to {max(values):,.0f} units")


def deep(name: str) -> dict:
    """Returns the difference between a graph and single steps of a network with random weights."""
    config = named(name).replace(image_size=16)
    model = CnnBackbone(config, 10, seed=0)
    images = np.random.default_rng(0).standard_normal([8, 16, 16, config.channels]).astype(np.float32)
    norms = [layer for layer in model.network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    expected = model(images)["logits"].numpy()
    got = tf.function(lambda images: model(images)["logits"])(tf.constant(images)).numpy()
    found = units(got, expected, scale_of([expected]), "float32").max()
    signature = Signature(
        lambda image: {"logits": model(image)["logits"]}, {"image": tf.TensorSpec([None, *images.shape[1:]])},
        {"image": images},
    )  # fmt: skip
    facts = {"run": "random weights", "application": name, "way": "graph"}
    return {**facts, "units": round(float(found), 2), "allowed": allowed_units(signature, model)}


def measured(run: Path, sizes: list[int], lengths: list[int]) -> Iterator[dict]:
    """Yields the measurements of one run."""
    config = JobReader("export", [f"--checkpointPath={run}", "--exportDirBase=unused"], []).read().config
    app = open_trained(in_float32(config, str(run))).app
    facts = {"run": run.name, "application": config.model_name}
    signatures = app.signatures(run)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(session):
        export = Path(folder) / "1"
        write_servable(export, signatures, module=app.model, name="m", assets={}, manifest={}, max_batch_size=1)
        ways = {"loaded": eager_callers(export), "session": session_callers(session, export)}
        for name, signature in signatures.items():
            yield {**facts, "signature": name, "allowed": allowed_units(signature, app.model)}
            for batch in batches(signature, sizes, lengths):
                yield from ({**facts, "signature": name, **line} for line in differences(signature, batch, name, ways))
    yield from ({**facts, **line} for line in faulty(app.model, signatures))


def allowed_units(signature: Signature, model: keras.Model) -> float:
    """Returns the most units that any output of a signature may differ by."""
    tolerance = sensitivity(signature, answer(signature, signature.samples), model.variables, "float32")[0]
    return round(max(tolerance.values(), default=0.0) / EPSILON["float32"], 1)


def batches(signature: Signature, sizes: list[int], lengths: list[int]) -> Iterator[Arrays]:
    """Yields inputs of all batch sizes, and of all lengths where the second axis of all inputs is free."""
    rows = len(next(iter(signature.samples.values())))
    for count in sorted({*sizes, rows}):
        yield take_rows(signature.samples, count)
    if all(spec.shape.rank == 2 and spec.shape[1] is None for spec in signature.inputs.values()):
        for length in lengths:
            yield {name: value[:, np.arange(length) % value.shape[1]] for name, value in signature.samples.items()}


def differences(signature: Signature, batch: Arrays, name: str, ways: Mapping[str, Mapping]) -> Iterator[dict]:
    """Yields the largest difference of each way from the model in memory, and of the first row from itself alone."""
    expected = numbers(answer(signature, batch))
    rows, shape = len(next(iter(batch.values()))), next(iter(batch.values())).shape
    # The scale is that of all samples, also for a batch of one.
    known = numbers(answer(signature, signature.samples))
    scales = {key: scale_of([known[key], value]) for key, value in expected.items()}
    facts = {"rows": rows, "length": shape[1] if len(shape) == 2 else None}
    for way, callers in ways.items():
        got = callers[name](batch)
        yield {**facts, "way": way, "units": most(got, expected, scales)}
    alone = numbers(answer(signature, take_rows(batch, 1)))
    first = {key: value[:1] for key, value in expected.items() if value[:1].shape == alone[key].shape}
    yield {**facts, "way": "row alone", "units": most(alone, first, scales)}


def numbers(outputs: Arrays) -> Arrays:
    """Returns the outputs that are floating-point numbers."""
    return {key: value for key, value in outputs.items() if value.dtype.kind == "f"}


def most(got: Arrays, expected: Arrays, scales: Mapping[str, float]) -> float:
    """Returns the largest difference of all outputs, in units."""
    found = [np.max(units(got[key], value, scales[key], "float32"), initial=0.0) for key, value in expected.items()]
    return round(float(max(found, default=0.0)), 2)


# Faults ------------------------------------------------------------------------------------------------------


def faulty(model: keras.Model, signatures: Mapping[str, Signature]) -> Iterator[dict]:
    """Yields for each fault the largest difference of any signature's answers from the sound model's."""
    sound = {name: numbers(answer(signature, signature.samples)) for name, signature in signatures.items()}
    for fault, make in FAULTS.items():
        with make(model) as made:
            if not made:
                continue
            found = []
            for name, signature in signatures.items():
                got = answer(signature, signature.samples)
                scales = {key: scale_of([value]) for key, value in sound[name].items()}
                found.append(most(got, sound[name], scales))
        yield {"fault": fault, "units": max(found)}


@contextlib.contextmanager
def changed(pairs: list[tuple[object, str, object]]) -> Iterator[bool]:
    """Context in which attributes of objects have other values; yields whether there are any."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in pairs]
    for owner, name, value in pairs:
        setattr(owner, name, value)
    try:
        yield bool(pairs)
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def weights(change: Callable[[np.ndarray], np.ndarray], which: str = "largest") -> Callable:
    """Returns the fault of one changed weight: the largest one, or all."""

    @contextlib.contextmanager
    def fault(model: keras.Model) -> Iterator[bool]:
        found = [v for v in model.trainable_variables if v.shape.rank > 1]
        chosen = sorted(found, key=lambda v: int(np.prod(v.shape)))[-1:] if which == "largest" else found
        before = [v.numpy() for v in chosen]
        for variable, value in zip(chosen, before, strict=True):
            variable.assign(change(value))
        yield True
        for variable, value in zip(chosen, before, strict=True):
            variable.assign(value)

    return fault


def layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns all layers below a model."""
    return [part for part in model.submodules if isinstance(part, keras.layers.Layer)]


def normalisation(factor: float) -> Callable:
    """Returns the fault of another epsilon in all normalisations."""
    kinds = (keras.layers.LayerNormalization, keras.layers.BatchNormalization)

    def fault(model: keras.Model) -> contextlib.AbstractContextManager[bool]:
        return changed([(x, "epsilon", factor) for x in layers(model) if isinstance(x, kinds)])

    return fault


def other_gelu(model: keras.Model) -> contextlib.AbstractContextManager[bool]:
    """The exact gelu in place of its approximation, or the other way round."""
    pairs = []
    for layer in layers(model):
        for name in ("activation", "_intermediate_activation_layer"):
            act = getattr(layer, name, None)
            inner = getattr(act, "activation", act)
            if getattr(inner, "__name__", "") in ("gelu", "gelu_tanh"):
                exact = inner.__name__ == "gelu"
                new = lambda x, exact=exact: keras.activations.gelu(x, approximate=exact)  # noqa: E731
                pairs.append((act, "activation", new) if inner is not act else (layer, name, new))
    return changed(pairs)


def with_dropout(model: keras.Model) -> contextlib.AbstractContextManager[bool]:
    """Dropout on."""
    kinds = (Dropout, keras.layers.Dropout)
    found = [layer for layer in layers(model) if isinstance(layer, kinds) and layer.rate]
    return changed([(x, "call", lambda inputs, training=None, x=x: type(x).call(x, inputs, True)) for x in found])


@contextlib.contextmanager
def unmasked(model: keras.Model) -> Iterator[bool]:
    """Padding taken for text."""
    plain = model.call

    def call(inputs, training=False):
        if not isinstance(inputs, Mapping):
            return plain(inputs, training=training)
        masks = {key: tf.ones_like(value) for key, value in inputs.items() if key.startswith("input_mask")}
        return plain({**inputs, **masks}, training=training)

    model.call = call
    try:
        yield True
    finally:
        del model.call


FAULTS: dict[str, Callable] = {
    "one weight times 1.001": weights(lambda value: value * np.float32(1.001)),
    "all weights times 1.001": weights(lambda value: value * np.float32(1.001), "all"),
    "all weights in float16": weights(lambda value: value.astype(np.float16).astype(np.float32), "all"),
    "epsilon 1e-3 in normalisations": normalisation(1e-3),
    "epsilon 1e-5 in normalisations": normalisation(1e-5),
    "the other form of gelu": other_gelu,
    "dropout on": with_dropout,
    "padding taken for text": unmasked,
}

if __name__ == "__main__":
    main()
