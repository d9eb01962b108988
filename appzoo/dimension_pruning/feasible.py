"""What can be known to fail before the first sample is trained: too few rows to tell samples apart."""

from __future__ import annotations

import math

from appzoo.dimension_pruning.config import PruningSettings
from easytransfer.errors import ConfigError
from easytransfer.run.log import warn

# Accuracy of a usual network, for what chance adds to a measured one.
_USUAL_ACCURACY = 0.9


def check_rows(select: int, train: int, settings: PruningSettings) -> None:
    """Checks that accuracy on the rows held out has steps as small as the predictor's error may be.

    One of n rows is 1 / n of accuracy: with fewer than 1 / max_predictor_error rows, two samples differ by more than
    that error or not at all.

    Args:
        select: Rows held out to compare samples on.
        train: Rows of the training table.
        settings: Share held out, and error accepted.

    Raises:
        ConfigError: There are too few; the number needed is in the message.
    """
    error = settings.max_predictor_error
    needed = math.ceil(round(1 / error, 9))
    if select < needed:
        share = needed / train
        larger = f"set model.select_share={math.ceil(100 * share) / 100:g}, or " if share <= 0.5 else ""
        raise ConfigError(
            f"too few rows to compare samples on: one of {select} rows is {100 / select:.1f} points of accuracy, and "
            f"the predictor must see steps of {100 * error:g}",
            received=f"{select} of {train} training rows (model.select_share={settings.select_share:g})",
            accepted=f"{needed} rows or more (1 / model.max_predictor_error)",
            fix=f"{larger}give at least {math.ceil(needed / settings.select_share):,} training rows, or cut one "
            "dimension (model.dimensions), which needs no samples",
        )
    chance = math.sqrt(_USUAL_ACCURACY * (1 - _USUAL_ACCURACY) / select)
    if chance > error:
        enough = math.ceil(_USUAL_ACCURACY * (1 - _USUAL_ACCURACY) / error**2)
        warn(
            f"samples are compared on {select} rows, where chance moves an accuracy of {_USUAL_ACCURACY:.0%} by "
            f"{100 * chance:.1f} points, and the predictor may err by {100 * error:g}: it may be refused after all "
            f"samples are trained; {enough:,} rows would do (model.select_share, or more training rows)"
        )
