"""Configuration of `ez_bert_feat`."""

from __future__ import annotations

from easytransfer.config.job import DataConfig, DistributionConfig, RuntimeConfig
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import ConfigError

# What can be written for every row, in the order of `all`.
VECTOR_COLUMNS = ("pool_output", "first_token_output", "mean_output", "all_hidden_outputs")
# What is written where nobody says it: the original's choice, and of two towers what they were trained to compare.
DEFAULT_COLUMNS = ("pool_output", "first_token_output", "all_hidden_outputs")
TOWER_COLUMNS = ("pool_output",)


class FeatureSettings(ConfigModel):
    """Which vectors, and how they are computed and written."""

    layers: str = setting(
        "-1",
        "Layers that all columns but pool_output are taken from, as a comma list: 0 is the embeddings, 1 the first "
        "layer, -1 the last; the values of several layers stand side by side.",
        modes="P",
    )
    float_precision: int | None = setting(
        None, "Digits behind the point in text tables; by default as many as each number has.", modes="P", ge=1, le=17
    )
    batch_size: int = setting(32, "Rows per model call.", modes="P", ge=1)


class FeatureConfig(ConfigModel):
    """Write vectors of a pre-trained or fine-tuned encoder for every row of a table."""

    model_name: str | None = setting(
        None,
        "ModelZoo name, model folder, TensorFlow checkpoint prefix, run folder or checkpoint of training, or an export "
        "made with exportType=ez_bert_feat.",
        modes="P",
        required="P",
        path="one",
    )
    features: FeatureSettings = FeatureSettings()
    data: DataConfig = DataConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    distribution: DistributionConfig = DistributionConfig()


def parse_layers(text: str) -> tuple[int, ...]:
    """Reads a comma list of layer numbers.

    Raises:
        ConfigError: It is none, or names a layer twice.
    """
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError:
        layers = ()
    if not layers or len(set(layers)) < len(layers):
        raise ConfigError("--layers is no comma list of layers", received=text, accepted="such as -1 or -1,-2,-3,-4")
    return layers
