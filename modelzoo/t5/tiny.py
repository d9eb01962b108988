"""A seeded T5 with two small layers on either side, for tests and first steps without a download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelzoo.t5 import formats
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import initial_value, weight_table


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> T5Config:
    """Writes the model as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Not for SentencePiece.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ModelError: The folder exists.
    """
    config = T5Config(
        vocab_size=512, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=2,
        scale_decoder_outputs=True,
    )  # fmt: skip
    values = {row.name: initial_value(row, seed) for row in weight_table(config)}
    facts = {"name": Path(target).name, "type": "t5", "language": "en", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    formats.write_folder(target, "hf", config, values, facts=facts, overwrite=overwrite)
    return config
