"""What is said of the texts of a table: tokens per row, texts that were cut, tokens the model does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from easytransfer.data.bad_rows import RowCount
from easytransfer.run.log import say, warn

# Share of unknown tokens above which the tokenizer probably does not fit the language.
UNKNOWN_WARNING = 0.05


def counted_since(before: Mapping[str, int], now: Mapping[str, int]) -> Counter[str]:
    """Returns what was counted after `before`; zeros stay."""
    return Counter({name: count - before.get(name, 0) for name, count in now.items()})


def say_table(part: str, count: RowCount, counts: Counter[str]) -> None:
    """Says how many rows of a table were read and used, and how long their texts are.

    Args:
        part: Which table it is.
        count: Of its rows.
        counts: Of their texts.
    """
    text = f"{part}: {count.read:,} rows read, {count.accepted:,} used, {count.rejected:,} rejected"
    say(f"{text}; {_lengths(counts)}" if counts["rows"] else text)
    _warn_of_unknown(part, counts)


def say_texts(part: str, counts: Mapping[str, int]) -> None:
    """Says how long the texts of a table that was read piece by piece are, if there are any."""
    counts = Counter(counts)
    if counts["rows"]:
        say(f"{part}: {_lengths(counts)}")
    _warn_of_unknown(part, counts)


def _lengths(counts: Counter[str]) -> str:
    return f"{counts['tokens'] / counts['rows']:.1f} tokens a row, {counts['truncated']:,} truncated"


def _warn_of_unknown(part: str, counts: Counter[str]) -> None:
    unknown = counts["unknown"] / max(counts["tokens"], 1)
    if unknown > UNKNOWN_WARNING:
        warn(f"{unknown:.1%} of the tokens of the {part} table are unknown to the model; is it for this language?")
