"""Whether explanations hold: what happens without a group, with the teams exchanged, and with another future."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from appzoo.win_prediction.groups import FeatureGroup
from appzoo.win_prediction.metrics import deletion_flips
from easytransfer.data.encoded import EncodedTable

Arrays = dict[str, np.ndarray]
Call = Callable[[Arrays], Arrays]
# Games that oddness and causality are looked at on.
_CHECKED_GAMES = 256
# Share of a game behind which the future is replaced.
_KNOWN_SHARE = 0.5
# Standard deviation of what replaces it, in those of the columns.
_NOISE = 3.0


def measured_fidelity(table: EncodedTable, groups: Sequence[FeatureGroup], call: Call, batch: int) -> dict[str, float]:
    """Returns flips by deletion over all frames, and the gaps of oddness and causality over the first games.

    Args:
        table: Encoded games.
        groups: Feature groups of the network.
        call: Takes arrays of games to the outputs of the network.
        batch: Games per call.

    Returns:
        `deletion_top`, `deletion_random` and `deletion_least` (shares of frames), `oddness_gap` and `causality_gap`
        (largest differences of the logit).
    """
    parts: list[tuple[np.ndarray, ...]] = []
    oddness = causality = 0.0
    for number, arrays in enumerate(_batches(table, batch)):
        real, outputs = arrays["frames_mask"] == 1, call(arrays)
        without = [call(without_group(arrays, groups, k))["logit"][real] for k in range(len(groups))]
        parts.append((outputs["logit"][real], outputs["contributions"][real], np.stack(without, axis=-1)))
        if number * batch < _CHECKED_GAMES:
            oddness = max(oddness, float(np.abs(outputs["logit"] + call(exchanged(arrays))["logit"])[real].max()))
            known, other = other_future(arrays)
            change = np.abs(outputs["logit"] - call(other)["logit"])
            causality = max(causality, float(change[real & known].max(initial=0.0)))
    logit, contributions, without = (np.concatenate(values) for values in zip(*parts, strict=True))
    flips = {f"deletion_{name}": value for name, value in deletion_flips(logit, contributions, without).items()}
    return {**flips, "oddness_gap": oddness, "causality_gap": causality}


def without_group(arrays: Arrays, groups: Sequence[FeatureGroup], number: int) -> Arrays:
    """Returns the arrays with the inputs of a group at zero; of a line-up, with team B's heroes those of team A."""
    start = sum(group.width for group in groups[:number])
    if groups[number].heroes:
        heroes = arrays["heroes"]
        return {**arrays, "heroes": np.stack([heroes[:, 0], heroes[:, 0]], axis=1)}
    frames = arrays["frames"].copy()
    frames[..., start : start + groups[number].width] = 0
    return {**arrays, "frames": frames}


def exchanged(arrays: Arrays) -> Arrays:
    """Returns the games from the view of the other team."""
    changed = {**arrays, "frames": -arrays["frames"]}
    return changed | ({"heroes": arrays["heroes"][:, ::-1]} if "heroes" in arrays else {})


def other_future(arrays: Arrays) -> tuple[np.ndarray, Arrays]:
    """Returns which frames are in the first half of a game, bool [games, frames], and games that go on otherwise."""
    mask, frames = arrays["frames_mask"], arrays["frames"]
    known = np.arange(mask.shape[1]) < np.maximum(mask.sum(axis=1, keepdims=True) * _KNOWN_SHARE, 1)
    noise = np.random.default_rng(0).normal(0, _NOISE * frames.std(axis=(0, 1)) + 1e-3, frames.shape)
    return known, {**arrays, "frames": np.where(known[..., None], frames, noise).astype(np.float32)}


def _batches(table: EncodedTable, size: int) -> Iterator[Arrays]:
    for start in range(0, len(table), size):
        rows = np.arange(start, min(start + size, len(table)))
        yield table.batch(rows)
