"""Further signatures: one frame of a live stream with its state, and a game typed as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from appzoo.win_prediction.inputs import GameInput
from appzoo.win_prediction.network import WinNetwork
from appzoo.win_prediction.target import WinTarget
from easytransfer.savedmodel.signature import Signature

Tensors = dict[str, tf.Tensor]
_NUMBER = r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*"
# Beyond this, differences of games are typing errors; squares of them are still finite.
_LARGEST = 1e9


def stream_signature(games: GameInput, target: WinTarget, model: WinNetwork) -> Signature:
    """Returns `step`: one frame of each game and its `state` (zeros at the start) to the answer and the next state.

    Frame by frame it answers what `serving_default` does for the frames so far.

    Args:
        games: Makes arrays of raw tensors.
        target: Makes the answer.
        model: Computes a frame.
    """
    specs, width = games.frame_specs(), model.temporal.state_width
    whole = games.samples()
    samples = {
        name: value if name == _line_up(games) else value[:, 0] for name, value in whole.items() if name in specs
    }
    rows = len(next(iter(samples.values())))
    samples["state"] = np.tanh(np.random.default_rng(1).normal(size=(rows, width))).astype(np.float32)

    def step(**raw: tf.Tensor) -> Mapping[str, tf.Tensor]:
        frame = {name: raw[name] for name in specs}
        return target.frame_answer(model.step(_of_one_frame(games.frame_arrays(frame)), raw["state"]))

    inputs = {**specs, "state": tf.TensorSpec([None, width], tf.float32)}
    return Signature(step, inputs, samples, "one frame of each game, and what the one before left")


def _line_up(games: GameInput) -> str | None:
    return games.line_up.name if games.line_up else None


def _of_one_frame(arrays: Tensors) -> Tensors:
    """Returns arrays without the axis of frames; the phase of a raw frame has it."""
    return arrays | ({"phase": tf.reshape(arrays["phase"], [-1])} if "phase" in arrays else {})


def table_signature(games: GameInput, target: WinTarget, predict: Callable[[Tensors], Tensors]) -> Signature:
    """Returns `page`: games as text, for people who type or paste them, to curves that a page draws.

    The text is a table with a header and a line for each frame, cells separated by commas, semicolons or tabs: `time`
    in minutes, the columns of the groups (`tower_1`, `tower_2`, ... where a column has several numbers a frame),
    `phase`, and the columns of heroes with numbers between blanks, of which the first line counts. The order of the
    columns is free, further ones are left out.

    Returns curves over `curve_x` [batch, frames] (minutes): `win_prob_curve` [batch, frames] and
    `contributions_curve` [batch, frames, groups] with the names `curve_names`; `curve_length` [batch] of each game;
    `win_prob` at its end; and `problem`, which is empty where the table could be read.
    """
    parser = TableParser(games)

    def page(table: tf.Tensor) -> Mapping[str, tf.Tensor]:
        arrays, counts, problem = parser(table)
        outputs = predict({name: arrays[name] for name in games.specs()})
        answer = target.answer({**outputs, "num_frames": counts})
        good = tf.cast(problem == "", tf.float32)
        real = tf.cast(arrays["frames_mask"], tf.float32) * good[:, None]
        return {
            "problem": problem,
            "win_prob": answer["win_prob"] * good,
            "win_prob_curve": answer["win_prob_curve"] * real,
            "contributions_curve": outputs["contributions"] * real[..., None],
            "curve_x": arrays["minutes"] * real,
            "curve_names": answer["group_names"],
            "curve_length": tf.where(problem == "", counts, 0),
        }

    samples = {"table": np.array(parser.samples(), object)}
    return Signature(page, {"table": tf.TensorSpec([None], tf.string)}, samples, "games as tables with a header")


class TableParser:
    """Reads tables of frames inside a graph; what cannot be read gets a problem and no exception.

    Args:
        games: Whose arrays it makes.
    """

    def __init__(self, games: GameInput) -> None:
        self.games = games
        self.numbers = ["time", *(name for column in games.columns for name in _cells_of(column.name, column.width))]
        self.texts = ["phase"] if games.phases else []
        self.texts += list(games.line_up.heroes or ()) if games.line_up else []

    def __call__(self, table: tf.Tensor) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
        """Returns the arrays of games, their frames int32 [batch] (at least 1), and problems [batch]."""
        cells, counts = _cells(table)
        wanted = tf.constant([*self.numbers, *self.texts])
        same = tf.equal(cells[:, :1], wanted[:, None])
        missing = ~tf.reduce_any(same, axis=2)
        place = tf.argmax(tf.cast(same, tf.int32), axis=2, output_type=tf.int32)
        picked = tf.gather(cells[:, 1:], place, axis=2, batch_dims=1)
        mask = tf.sequence_mask(counts, tf.shape(picked)[1])
        values, unreadable = _numbers(picked[..., : len(self.numbers)], mask)
        problem = _first_problem(
            (tf.reduce_any(missing, axis=1), _named("no column called ", wanted, missing)),
            (counts < 1, "no frame below the header"),
            (
                tf.reduce_any(unreadable, axis=[1, 2]),
                _named("not a number in column ", wanted, tf.reduce_any(unreadable, 1)),
            ),
            (_out_of_order(values[..., 0], mask), "the times are negative or not in order"),
        )
        counts = tf.maximum(counts, 1)
        raw = self._raw(values, picked[..., len(self.numbers) :])
        arrays = self.games.frame_arrays(raw)
        arrays["frames_mask"] = tf.sequence_mask(counts, tf.shape(picked)[1], dtype=tf.int32)
        return arrays, counts, problem

    def _raw(self, values: tf.Tensor, texts: tf.Tensor) -> Tensors:
        """Returns raw tensors as a request has them."""
        raw, start = {"time": values[..., :1]}, 1
        for group in self.games.groups:
            if group.columns:
                raw[group.name] = values[..., start : start + group.width]
                start += group.width
        if self.games.phases:
            raw["phase"] = texts[..., :1]
        if self.games.line_up:
            raw[self.games.line_up.name] = self._heroes(texts[:, 0, -2:])
        return raw

    def _heroes(self, texts: tf.Tensor) -> tf.Tensor:
        """Returns heroes [batch, 2, heroes] of texts [batch, 2]; hero 0 stands for what is no number of a hero."""
        count = self.games.settings.heroes_per_team
        words = tf.strings.split(texts).to_tensor("0", shape=[None, 2, count])
        readable = tf.strings.regex_full_match(words, "[0-9]{1,6}")
        ids = tf.strings.to_number(tf.where(readable, words, "0"), tf.int32)
        return tf.where(ids < self.games.settings.hero_ids, ids, 0)

    def samples(self) -> list[bytes]:
        """Returns the sample games of the input as tables."""
        raw, tables = self.games.samples(), []
        for row, count in enumerate(raw["num_frames"]):
            lines = [",".join([*self.numbers, *self.texts])]
            for frame in range(count):
                numbers = [raw["time"][row, frame], *(raw[g.name][row, frame] for g in self.games.groups if g.columns)]
                cells = [f"{number:.4g}" for number in np.concatenate(numbers)]
                cells += [raw["phase"][row, frame, 0]] if self.games.phases else []
                if self.games.line_up:
                    cells += [" ".join(map(str, team)) for team in raw[self.games.line_up.name][row]]
                lines.append(",".join(cells))
            tables.append("\n".join(lines).encode())
        return tables


def _cells_of(column: str, width: int) -> list[str]:
    return [column] if width == 1 else [f"{column}_{number + 1}" for number in range(width)]


def _cells(table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns stripped cells [batch, lines, columns], at least a header and one line, and the lines below headers."""
    plain = tf.strings.regex_replace(tf.strings.regex_replace(table, "[;\t]", ","), "\r", "")
    lines = tf.strings.split(tf.strings.strip(plain), "\n")
    cells = tf.strings.strip(tf.strings.split(lines, ",").to_tensor(""))
    shape = tf.shape(cells)
    missing = [[0, 0], [0, tf.maximum(2 - shape[1], 0)], [0, tf.maximum(1 - shape[2], 0)]]
    return tf.pad(cells, missing, constant_values=""), tf.cast(lines.row_lengths(), tf.int32) - 1


def _numbers(texts: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns numbers [batch, frames, columns], 0 where there is none, and which real cells hold none."""
    readable = tf.strings.regex_full_match(texts, _NUMBER)
    values = tf.strings.to_number(tf.where(readable, texts, "0"), tf.float32)
    usable = readable & (tf.abs(values) < _LARGEST)
    return tf.where(usable & mask[..., None], values, 0.0), mask[..., None] & ~usable


def _out_of_order(time: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    falls = (time[:, 1:] <= time[:, :-1]) & mask[:, 1:]
    return tf.reduce_any(falls, axis=1) | tf.reduce_any((time < 0) & mask, axis=1)


def _named(text: str, names: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Returns a text with the first name of those that `which` [batch, names] marks, [batch]."""
    return text + tf.gather(names, tf.argmax(tf.cast(which, tf.int32), axis=1))


def _first_problem(*problems: tuple[tf.Tensor, tf.Tensor | str]) -> tf.Tensor:
    """Returns the first of the texts whose condition holds, [batch], empty where none does."""
    found = tf.fill(tf.shape(problems[0][0]), "")
    for condition, text in reversed(problems):
        found = tf.where(condition, text, found)
    return found
