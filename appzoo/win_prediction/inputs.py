"""Games as sequences of frames, in tables and in requests."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from appzoo.win_prediction.config import WinSettings
from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.encoded import Ragged
from easytransfer.data.table import RowChunk

# More frames are no game: at one a second it would last almost three hours.
MOST_FRAMES = 10_000
# A gap of more than so many frame lengths is a missing frame.
_GAP = 1.5
WRONG_NUMBERS, WRONG_LENGTH = "wrong numbers", "wrong number of values"
_SAMPLE_FRAMES = (5, 1, 9, 3)
# Of sample games: columns are differences of about this size.
_SAMPLE_SIZE = 3.0


class _Bad(ValueError):
    """Why a game cannot be used, and the column to blame."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


class _Game(NamedTuple):
    minutes: np.ndarray
    frames: np.ndarray
    phase: np.ndarray
    heroes: np.ndarray


class GameInput(Input):
    """A game a row: `frames` [batch, frames, features], `minutes` [batch, frames] and `frames_mask`.

    Cells hold the frames of one column end to end, team A minus team B; of a column with several numbers a frame, those
    of the first frame first. With a phase column there is `phase` int32 [batch, frames], with a line-up `heroes` int32
    [batch, 2, heroes]. Features are the columns of all groups in the order of the configuration.

    A request has a tensor for every group, `time` in minutes, and `num_frames`.

    Args:
        time_column: Column with the minutes.
        settings: Of the model.
    """

    preprocessable = False
    doc = "frames of games, team A minus team B, unscaled"
    masks = {"frames_mask": "frames"}

    def __init__(self, time_column: str, settings: WinSettings) -> None:
        self.time_column, self.settings = time_column, settings
        self.groups = settings.feature_groups
        self.columns = [column for group in self.groups for column in group.columns]
        self.line_up = next((group for group in self.groups if group.heroes), None)
        self.phases = settings.phases if settings.temporal == "phase" else []

    @property
    def width(self) -> int:
        """Features of a frame."""
        return sum(column.width for column in self.columns)

    def meaning(self) -> dict[str, Any]:
        """Returns the declarations of the groups."""
        return {"set of groups": list(self.settings.groups)}

    # Tables --------------------------------------------------------------------------------------------------

    def table_columns(self) -> list[str]:
        """Returns the columns of time, groups, line-ups, phases and the number of frames, as far as they are used."""
        settings = self.settings
        further = [settings.phase_column] if self.phases else []
        further += [settings.num_frames_column] if settings.num_frames_column else []
        heroes = list(self.line_up.heroes or ()) if self.line_up else []
        return [self.time_column, *(column.name for column in self.columns), *heroes, *further]

    def encode(self, chunk: RowChunk) -> Encoded:
        """Returns the games; those with broken frames are bad rows, with the minute where it can be told."""
        games = []
        for row in range(len(chunk.accepted)):
            try:
                games.append(self._game(chunk, row))
            except _Bad as error:
                chunk.reject(row, error.column, str(error))
                games.append(self._blank())
        columns: dict[str, Any] = {"frames": _ragged([game.frames for game in games])}
        columns["minutes"] = _ragged([game.minutes for game in games])
        if self.phases:
            columns["phase"] = _ragged([game.phase for game in games])
        if self.line_up:
            columns["heroes"] = np.stack([game.heroes for game in games])
        return Encoded(columns)

    def _blank(self) -> _Game:
        heroes = np.zeros([2, self.settings.heroes_per_team], np.int32)
        return _Game(np.zeros(1, np.float32), np.zeros([1, self.width], np.float32), np.zeros(1, np.int32), heroes)

    def _game(self, chunk: RowChunk, row: int) -> _Game:
        minutes = _numbers(chunk, row, self.time_column)
        count = self._frame_count(chunk, row, len(minutes))
        self._check_times(minutes[:count])
        frames = [self._column(chunk, row, column.name, column.width, len(minutes))[:count] for column in self.columns]
        return _Game(
            minutes[:count].astype(np.float32),
            np.concatenate(frames, axis=1),
            self._phase(chunk, row, len(minutes))[:count],
            self._heroes(chunk, row),
        )

    def _frame_count(self, chunk: RowChunk, row: int, held: int) -> int:
        name = self.settings.num_frames_column
        count = held if name is None else int(_numbers(chunk, row, name)[0])
        if not held:
            raise _Bad(self.time_column, "no frames: the game is empty")
        if not 1 <= count <= held:
            raise _Bad(str(name), f"wrong number of frames: {count}, and {self.time_column} has {held}")
        if count > MOST_FRAMES:
            raise _Bad(self.time_column, f"too many frames: {count}, more than {MOST_FRAMES}")
        return count

    def _check_times(self, minutes: np.ndarray) -> None:
        """Raises _Bad for times before the start, in the wrong order, or with a gap."""
        if minutes[0] < 0 or minutes.min() < 0:
            raise _Bad(self.time_column, f"negative time: minute {minutes.min():g}")
        steps = np.diff(minutes)
        if (steps <= 0).any():
            at = int(np.argmax(steps <= 0))
            raise _Bad(self.time_column, f"frames out of order: minute {minutes[at + 1]:g} comes after {minutes[at]:g}")
        usual = self.settings.frame_minutes
        if usual is not None and (steps > _GAP * usual).any():
            at = int(np.argmax(steps > _GAP * usual))
            raise _Bad(
                self.time_column,
                f"missing frames: minute {minutes[at + 1]:g} comes after {minutes[at]:g}, and frames are {usual:g} "
                "minutes apart",
            )

    def _column(self, chunk: RowChunk, row: int, name: str, width: int, frames: int) -> np.ndarray:
        values = _numbers(chunk, row, name)
        if len(values) != frames * width:
            raise _Bad(name, f"{WRONG_LENGTH}: {len(values)}, and {frames} frames of {width} make {frames * width}")
        with np.errstate(over="ignore"):
            found = values.reshape(frames, width).astype(np.float32)
        if not np.isfinite(found).all():
            raise _Bad(name, f"{WRONG_NUMBERS}: one is not a finite 32-bit number")
        return found

    def _phase(self, chunk: RowChunk, row: int, frames: int) -> np.ndarray:
        if not self.phases:
            return np.zeros(frames, np.int32)
        name = self.settings.phase_column
        tags = list(_cell(chunk.columns[name][row]))
        if len(tags) != frames:
            raise _Bad(name, f"{WRONG_LENGTH}: {len(tags)} phases, and {frames} frames")
        unknown = [tag for tag in tags if tag not in self.phases]
        if unknown:
            raise _Bad(name, f"unknown phase: {unknown[0]!r}; known: {', '.join(self.phases)}")
        return np.array([self.phases.index(tag) for tag in tags], np.int32)

    def _heroes(self, chunk: RowChunk, row: int) -> np.ndarray:
        count, teams = self.settings.heroes_per_team, []
        for name in self.line_up.heroes or () if self.line_up else ():
            ids = _numbers(chunk, row, name)
            if len(ids) != count:
                raise _Bad(name, f"{WRONG_LENGTH}: {len(ids)} heroes, and a team has {count}")
            if not ((ids >= 0) & (ids < self.settings.hero_ids) & (ids == np.floor(ids))).all():
                raise _Bad(name, f"unknown hero: numbers are whole and from 0 to {self.settings.hero_ids - 1}")
            teams.append(ids)
        return np.array(teams, np.int32) if teams else np.zeros([2, count], np.int32)

    # Requests ------------------------------------------------------------------------------------------------

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns frames, minutes, the mask of real frames, and phases and heroes where they are used."""
        return {
            "frames": tf.TensorSpec([None, None, self.width], tf.float32),
            "minutes": tf.TensorSpec([None, None], tf.float32),
            "frames_mask": tf.TensorSpec([None, None], tf.int32),
            **({"phase": tf.TensorSpec([None, None], tf.int32)} if self.phases else {}),
            **({"heroes": self._hero_spec()} if self.line_up else {}),
        }

    def _hero_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, 2, self.settings.heroes_per_team], tf.int32)

    def frame_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw tensors of one frame of a live stream: [batch, width] for each group, `time` [batch, 1]."""
        specs = {group.name: tf.TensorSpec([None, group.width], tf.float32) for group in self.groups if group.columns}
        specs["time"] = tf.TensorSpec([None, 1], tf.float32)
        if self.line_up:
            specs[self.line_up.name] = self._hero_spec()
        return specs | ({"phase": tf.TensorSpec([None, 1], tf.string)} if self.phases else {})

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw tensors of whole games: as of one frame, with an axis of frames, and `num_frames` [batch]."""
        line_up = self.line_up.name if self.line_up else None
        specs = {
            name: spec if name == line_up else tf.TensorSpec([None, None, *spec.shape[1:]], spec.dtype)
            for name, spec in self.frame_specs().items()
        }
        return {**specs, "num_frames": tf.TensorSpec([None], tf.int32)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns games of several lengths with random columns."""
        random, games, longest = np.random.default_rng(0), len(_SAMPLE_FRAMES), max(_SAMPLE_FRAMES)
        real = (np.arange(longest) < np.array(_SAMPLE_FRAMES)[:, None])[..., None]
        found: dict[str, np.ndarray] = {}
        for name, spec in self.serving_specs().items():
            shape = [games, longest, *spec.shape[2:]]
            if name == "num_frames":
                found[name] = np.array(_SAMPLE_FRAMES, np.int32)
            elif name == "time":
                found[name] = np.where(real, np.arange(longest)[:, None] / 2, 0).astype(np.float32)
            elif name == "phase":
                found[name] = np.array(self.phases, object)[random.integers(0, len(self.phases), shape)]
            elif spec.dtype == tf.int32:
                found[name] = random.integers(0, self.settings.hero_ids, [games, *spec.shape[1:]]).astype(np.int32)
            else:
                found[name] = np.where(real, random.normal(0, _SAMPLE_SIZE, shape), 0).astype(np.float32)
        return found

    def from_request(self, tensors: Tensors) -> Tensors:
        """Returns the arrays of whole games, and `num_frames`; frames from `num_frames` on are padding.

        A request whose `num_frames` are not from 1 to the frames it has is refused.
        """
        counts, held = tensors["num_frames"], tf.shape(tensors["time"])[1]
        message = "num_frames must be from 1 to the number of frames given"
        checks = [tf.debugging.assert_positive(counts, message), tf.debugging.assert_less_equal(counts, held, message)]
        with tf.control_dependencies([check for check in checks if check is not None]):
            mask = tf.sequence_mask(counts, held, dtype=tf.int32)
        return {**self.frame_arrays(tensors), "frames_mask": mask, "num_frames": counts}

    def frame_arrays(self, tensors: Tensors) -> Tensors:
        """Returns `frames`, `minutes`, `phase` and `heroes` of raw tensors, with or without an axis of frames."""
        arrays = {
            "frames": tf.concat([tensors[group.name] for group in self.groups if group.columns], axis=-1),
            "minutes": tensors["time"][..., 0],
        }
        if self.phases:
            same = tf.equal(tensors["phase"], tf.constant(self.phases))
            found = tf.argmax(tf.cast(same, tf.int32), axis=-1, output_type=tf.int32)
            arrays["phase"] = tf.where(tf.reduce_any(same, axis=-1), found, -1)
        return arrays | ({"heroes": tensors[self.line_up.name]} if self.line_up else {})


def _cell(value: Any) -> Any:
    return value if isinstance(value, list | tuple | np.ndarray) else [value]


def _numbers(chunk: RowChunk, row: int, name: str) -> np.ndarray:
    """Returns a cell as float64 [values].

    Raises:
        _Bad: It does not hold numbers.
    """
    try:
        values = np.asarray(_cell(chunk.columns[name][row]), np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise _Bad(name, f"{WRONG_NUMBERS}: {error}") from None
    if not np.isfinite(values).all():
        raise _Bad(name, f"{WRONG_NUMBERS}: one is not finite")
    return values


def _ragged(rows: list[np.ndarray]) -> Ragged:
    return Ragged(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
