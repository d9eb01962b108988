"""What every variant needs to know about a table of pairs."""

from __future__ import annotations

from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.config.schema import setting
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError


class PairDataConfig(DataConfig):
    """Tables whose rows hold two texts."""

    second_sequence: str | None = setting(
        None, "Column with the second text of a pair.", modes="TEPS", required="TS", unless="tables hold token ids"
    )


def require_pair(config: JobConfig) -> None:
    """Checks that the configuration names both text columns, unless the table holds token ids in their place.

    Raises:
        ConfigError: `secondSequence` is missing, or both names are the same column.
    """
    data = config.data
    if data.input_schema and is_id_table(parse_schema(data.input_schema)):
        return
    if not data.second_sequence:
        raise ConfigError(
            f"{config.model_name} compares two texts and secondSequence is not given",
            fix="name the column of the second text: --secondSequence=<column> (data.second_sequence in a file)",
        )
    if data.first_sequence == data.second_sequence:
        raise ConfigError(
            "firstSequence and secondSequence are the same column",
            received=data.second_sequence,
            fix="name two columns",
        )
