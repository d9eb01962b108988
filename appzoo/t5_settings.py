"""Settings of applications on a T5."""

from __future__ import annotations

from easytransfer.config.job import ModelConfig
from easytransfer.config.schema import setting


class T5Settings(ModelConfig):
    """A pre-trained text-to-text network."""

    pretrain_model_name_or_path: str = setting(
        "google-t5/t5-small",
        "T5 to start from: a name of the ModelZoo, a folder, or a model of the Hugging Face hub.",
        advanced=True,
        modes="TS",
        path="one",
    )
    from_scratch: bool = setting(
        False, "Start from random weights instead of the pre-trained ones.", advanced=True, modes="T"
    )
    allow_missing: str | None = setting(
        None,
        "Regular expression of names of weights that may start from random values where the model has none.",
        advanced=True,
        modes="T",
    )
    dropout_rate: float | None = setting(
        None, "Dropout of the network; None takes that of the pre-trained one.", advanced=True, modes="T", ge=0, lt=1
    )
