"""What a trained model offers to a server: one function per signature, with its inputs and sample rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# Both calls send serialized `tf.Example` messages in one input of this name.
EXAMPLES = "inputs"


@dataclass(frozen=True)
class Signature:
    """One way to call an exported model.

    Args:
        function: Takes the inputs as keyword arguments and returns named tensors; every input and output has the batch
            as its first axis. Python is gone after export, so it may use TensorFlow operators only.
        inputs: Shape and dtype of each input; the first dimension is None.
        samples: At least one row for each input, equally many for all. They become the warm-up requests and the rows
            on which the export must agree with the model in memory; texts should include non-ASCII, empty and
            over-long ones.
        doc: One sentence for the manifest.
        module: Owner of lookup tables and assets that `function` uses, where the exported module does not hold them.
    """

    function: Callable[..., Mapping[str, tf.Tensor]]
    inputs: Mapping[str, tf.TensorSpec]
    samples: Mapping[str, np.ndarray]
    doc: str = ""
    module: tf.Module | None = None
