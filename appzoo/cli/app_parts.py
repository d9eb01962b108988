"""The words of which `new-app` makes an application: what differs by input and target, and the files themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputPart:
    """One kind of input of a new application.

    Attributes:
        text: What it is, for sentences and help.
        column: Its table column.
        imports: Lines of import.
        settings: Fields of the model section.
        build: Body of `build_inputs`.
        takes: Parameters of the network, with their types.
        gives: The arguments for them, in `build_network`.
        doc: What they are, for the docstring of the network.
        layers: Lines of its `__init__`.
        features: Lines of its `call`, which make `features` [batch, n].
        bad: A cell that is no such input, as JSON; empty where every cell is one.
    """

    text: str
    column: str
    imports: tuple[str, ...]
    settings: str
    build: str
    takes: str
    gives: str
    doc: str
    layers: str
    features: str
    bad: str = ""


@dataclass(frozen=True)
class TargetPart:
    """One kind of target of a new application.

    Attributes:
        text: What it is, for sentences and help.
        column: Its table column.
        imports: Lines of import; `$package` is that of the application.
        settings: Fields of the model section.
        defaults: Further defaults of the configuration.
        build: What `build_target` returns.
        outputs: How many numbers the network gives, in `build_network`.
        key: Name of the network's output.
        metric: The metric of the test.
        goal: What the sample reaches, as in `configs/smoke.yaml`.
        measured: The metric in NumPy, of `found` and `wanted`.
    """

    text: str
    column: str
    imports: tuple[str, ...]
    settings: str
    defaults: str
    build: str
    outputs: str
    key: str
    metric: str
    goal: str
    measured: str


INPUTS = {
    "text": InputPart(
        text="a text",
        column="text",
        imports=(
            "from easytransfer.app.inputs.words import WordsInput",
            "from easytransfer.text.words import WordVocabulary",
        ),
        settings="",
        build="""\
        data = self.config.data
        if assets.folder is None:
            self.vocabulary = WordVocabulary.build(assets.values(data.first_sequence))
        else:
            self.vocabulary = WordVocabulary.load(assets.folder)
        return [WordsInput(data.first_sequence, self.vocabulary, data.sequence_length)]""",
        takes="words: int",
        gives="len(self.vocabulary)",
        doc="words: Words of the vocabulary.",
        layers="        self.words = keras.layers.Embedding(words, hidden_size)",
        features="""\
        vectors = self.words(batch["input_ids"])
        real = tf.cast(batch["input_mask"], vectors.dtype)[..., None]
        features = tf.reduce_sum(vectors * real, axis=1) / tf.maximum(tf.reduce_sum(real, axis=1), 1)""",
    ),
    "image": InputPart(
        text="an image",
        column="image",
        imports=("from easytransfer.app.inputs.images import ImageInput",),
        settings="""\
    image_size: int = setting(8, "Height and width that images are brought to.", modes="T", ge=4)
    channels: Literal[1, 3] = setting(1, "1 for grey values, 3 for colours.", modes="T")
""",
        build="""\
        model = self.config.model
        return [ImageInput(self.config.data.first_sequence, model.image_size, model.channels)]""",
        takes="",
        gives="",
        doc="",
        layers="""\
        self.filters = keras.layers.Conv2D(hidden_size, 3, strides=2, padding="same", activation="relu")
        self.flat = keras.layers.Flatten()""",
        features="""\
        image = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
        features = self.flat(self.filters(image))""",
        bad='"no image"',
    ),
    "numbers": InputPart(
        text="a row of numbers",
        column="numbers",
        imports=("from easytransfer.app.inputs.arrays import ArrayInput",),
        settings='    width: int = setting(4, "Numbers of a row.", modes="T", ge=1)\n',
        build="        return [ArrayInput(self.config.data.first_sequence, [self.config.model.width])]",
        takes="column: str",
        gives="self.config.data.first_sequence",
        doc="column: Name of the array.",
        layers="        self.column = column",
        features="        features = batch[self.column]",
        bad="[1.0]",
    ),
    "sequence": InputPart(
        text="a sequence of vectors, of any length",
        column="frames",
        imports=("from easytransfer.app.inputs.arrays import ArrayInput",),
        settings='    width: int = setting(3, "Numbers of a vector.", modes="T", ge=1)\n',
        build="        return [ArrayInput(self.config.data.first_sequence, [None, self.config.model.width])]",
        takes="column: str",
        gives="self.config.data.first_sequence",
        doc="column: Name of the array.",
        layers="""\
        self.column = column
        self.each = keras.layers.Dense(hidden_size, activation="tanh")""",
        features="""\
        vectors = self.each(batch[self.column])
        real = tf.cast(batch[f"{self.column}_mask"], vectors.dtype)[..., None]
        features = tf.reduce_sum(vectors * real, axis=1) / tf.maximum(tf.reduce_sum(real, axis=1), 1)""",
        bad="[1.0]",
    ),
}

TARGETS = {
    "class": TargetPart(
        text="one class",
        column="label",
        imports=("from easytransfer.app.targets.labels import label_target",),
        settings="",
        defaults=', "data.label_enumerate_values": "auto"',
        build="label_target(self.config, assets)",
        outputs="self.target.num_outputs",
        key="logits",
        metric="accuracy",
        goal=">= 0.90",
        measured='np.mean([row["predictions"] == label for row, label in zip(found, wanted, strict=True)])',
    ),
    "number": TargetPart(
        text="a number",
        column="score",
        imports=("from easytransfer.app.targets.labels import label_target",),
        settings="",
        defaults=', "data.label_enumerate_values": "none"',
        build="label_target(self.config, assets)",
        outputs="self.target.num_outputs",
        key="logits",
        metric="mae",
        goal="<= 0.25",
        measured='np.mean(np.abs(np.array([row["predictions"] for row in found]) - wanted))',
    ),
    "vector": TargetPart(
        text="several numbers at once",
        column="answer",
        imports=("from $package.target import VectorTarget",),
        settings='    outputs: int = setting(2, "Numbers that are predicted.", modes="T", ge=1)\n',
        defaults="",
        build="VectorTarget(str(self.config.data.label_name), self.config.model.outputs)",
        outputs="self.target.size",
        key="predictions",
        metric="mae",
        goal="<= 0.25",
        measured='np.mean(np.abs(np.array([row["predictions"] for row in found]) - wanted))',
    ),
}

CONFIG = '''\
"""Settings of $name; no TensorFlow here, so that help and mistakes are answered at once."""

from __future__ import annotations
$typing
from easytransfer.config.job import JobConfig, ModelConfig
from easytransfer.config.schema import setting


class ${title}Settings(ModelConfig):
    """Sizes of the network."""

    hidden_size: int = setting(16, "Units of the hidden layer.", modes="T", ge=1)
$settings

class ${title}Config(
    JobConfig,
    defaults={"data.first_sequence": "$input_column", "data.label_name": "$target_column"$defaults},
):
    """Predict $target_text from $input_text."""

    model: ${title}Settings = ${title}Settings()


VARIANTS = {"": ${title}Config}
'''

APP = '''\
"""$title: $target_text from $input_text."""

from __future__ import annotations

from collections.abc import Mapping

$imports


class $title(App):
    """What goes in, what comes out, and the network between; the rest of the contract has defaults."""

    config: ${title}Config

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the one input: $input_text."""
$build_inputs

    def build_target(self, assets: Assets) -> Target:
        """Returns $target_text."""
        return $build_target

    def build_network(self, assets: Assets) -> keras.Model:
        """Returns the network."""
        hidden_size, outputs = self.config.model.hidden_size, $outputs
        return ${title}Network($network_arguments)


class ${title}Network(keras.Model):
    """One hidden layer.

    Args:
$network_doc

    Call arguments:
        batch: The arrays of the input, rows first.

    Returns:
        `$key` float32 [batch, outputs].
    """

    def __init__(self, $network_takes) -> None:
        super().__init__(name="$name")
$layers
        self.hidden = keras.layers.Dense(hidden_size, activation="relu")
        self.head = keras.layers.Dense(outputs, dtype="float32")

    def call(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"$key": [batch, outputs]}`."""
$features
        return {"$key": self.head(self.hidden(features))}


VARIANTS = {"": $title}
'''

TARGET = '''\
"""Several numbers for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
$gap
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.metrics.evaluator import Evaluator, MeanEvaluator
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs


class VectorTarget(Target):
    """A list of numbers a row, `answer` [batch, size], which the network's `predictions` [batch, size] come near.

    The loss is the squared error of a row, summed over its numbers; the metric `mae` the mean absolute error.

    Args:
        column: Table column.
        size: Numbers of a row.
    """

    encoded_columns = ("answer",)

    def __init__(self, column: str, size: int) -> None:
        self.column, self.size = column, size

    def table_columns(self) -> list[str]:
        """Returns the one column."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the numbers; a cell that does not hold `size` of them is a bad row."""
        answers = np.zeros([len(chunk), self.size], np.float32)
        for row, cell in enumerate(chunk.columns[self.column]):
            try:
                numbers = np.asarray(cell, np.float32)
            except (TypeError, ValueError):
                numbers = np.zeros(0, np.float32)
            if numbers.shape == (self.size,) and np.isfinite(numbers).all():
                answers[row] = numbers
            else:
                chunk.reject(row, self.column, f"wrong answer: not {self.size} finite numbers")
        return Encoded({"answer": answers})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the squared error, by rows."""
        each = tf.reduce_sum(tf.square(outputs["predictions"] - batch["answer"]), axis=-1)
        weight = batch["example_weight"]
        return {"loss": Loss(tf.reduce_sum(each * weight), tf.reduce_sum(weight))}

    def evaluator(self) -> Evaluator:
        """Returns the mean absolute error."""
        return MeanEvaluator("mae", lambda batch, outputs: np.abs(outputs["predictions"] - batch["answer"]))

    def output_columns(self) -> tuple[str, ...]:
        """Returns the one output column."""
        return ("predictions",)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the numbers of each row."""
        return {"predictions": list(outputs["predictions"])}
'''

SMOKE = """\
# The sample that `new-app` wrote, a few epochs: the check that training, evaluation, prediction and export work.
# Reaches: $metric $goal
model_name: $name
checkpoint_dir: runs/${name}_smoke

data:
  train_table: $sample/train.jsonl
  eval_table: $sample/dev.jsonl

train:
  num_epochs: 40
  batch_size: 16
  optimizer_type: adam
  learning_rate: 1.0e-2
  log_step_count_steps: 60
"""

TEST = '''\
"""$title: the sample is learnt, every row gets an answer, and an export gives the same ones."""

import json
from pathlib import Path

$imports_of_test

ROOT = Path(__file__).resolve().parents[$up]
SAMPLE, SMOKE = ROOT / "$sample", ROOT / "$folder" / "configs" / "smoke.yaml"


def test_the_sample_is_learnt_and_every_row_gets_an_answer(tmp_path):
    model = easytransfer.train(
        config=SMOKE,
        checkpointDir=tmp_path / "run",
        trainTable=SAMPLE / "train.jsonl",
        evalTable=SAMPLE / "dev.jsonl",
    )
    assert model.result["metrics"]["$metric"] $goal
    rows = [json.loads(line) for line in (SAMPLE / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = [row["$target_column"] for row in rows]
    inputs = [{"$input_column": row["$input_column"]} for row in rows]
    found = model(inputs)
    assert len(found) == len(rows)
    # What the metric says, computed from the answers.
    measured = $measured
    assert abs(model.evaluate(SAMPLE / "dev.jsonl")["$metric"] - measured) < 1e-5
    exported = easytransfer.load(model.result["export"])(inputs)
    one, other = ([row["$key"] for row in answers] for answers in (found, exported))
    np.testing.assert_allclose(one, other, atol=2e-5)
$bad'''

BAD = """\
    with pytest.raises(DataError):
        model([{"$input_column": $cell}])
"""

README = """\
# $title

`$name` predicts $target_text from $input_text.
Its network has one hidden layer: a start, written by `easy_transfer_app new-app`.

| column | what it holds |
| --- | --- |
| `$input_column` | $input_text; another column is named with `--firstSequence` |
| `$target_column` | $target_text; another column is named with `--labelName` |

`$sample` holds 96 rows for training and 32 for evaluation, drawn by `new-app` from two numbers for each row.

## Commands
$install
```bash
easy_transfer_app train --config $folder/configs/smoke.yaml
easy_transfer_app evaluate --checkpointPath runs/${name}_smoke --inputTable $sample/dev.jsonl
easy_transfer_app predict --checkpointPath runs/${name}_smoke --inputTable $sample/dev.jsonl \\
    --outputTable predictions.jsonl
python -m pytest $test
```

## Results

Nothing is measured yet; a training that is gets a row.

| config | seeds | hardware | time | reported | measured | log |
| --- | --- | --- | --- | --- | --- | --- |

## Where things are

- `app.py`: what goes in, what comes out, and the network between.
- `config.py`: settings, each with a sentence, a default and bounds.
  `easy_transfer_app train --help --modelName $name` lists them.$target_line
- `configs/smoke.yaml`: the training above, and what it reaches.
"""

INSTALL = """
In this folder, once:

```bash
pip install --no-deps --no-build-isolation -e .
```
"""

PROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "EasyTransfer application: $target_text from $input_text"
requires-python = ">=3.10"
dependencies = ["easytransfer-tf2"]

# How `easy_transfer_app` finds it: a name for `--modelName`, and the package with app.py and config.py.
[project.entry-points."easytransfer.apps"]
$name = "$name"

[tool.setuptools]
packages = ["$name"]

[tool.setuptools.package-data]
$name = ["configs/*.yaml"]
"""
