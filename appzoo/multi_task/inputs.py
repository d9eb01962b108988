"""Texts of all tasks: each table has columns of its own."""

from __future__ import annotations

from collections.abc import Mapping

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.multi_task.config import TaskDataConfig
from easytransfer.app.inputs.base import Encoded
from easytransfer.data.encoded import HostColumn
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk

# On the host: name of the task of a row.
TASK = "task"


class TaskTokens(EncoderTokens):
    """Tokens of one text or a pair of texts, as the task of a row has them, and the name of the task.

    A request holds one text where a task reads one, else a pair.

    Args:
        encoder: Tokenizer, configuration and settings of the job.
    """

    preprocessable = False

    def __init__(self, encoder: Encoder) -> None:
        self._data: TaskDataConfig = encoder.job.data
        names = [self._data.task] if self._data.task else list(self._data.tasks or {})
        self.texts: Mapping[str, EncoderTokens] = {}
        for name in names:
            # A table of the task that is named may be read in another way than those of the training.
            data = self._data if self._data.task else self._data.settings_of(name)
            self.texts[name] = encoder.tokens(data.first_sequence, data.second_sequence)
        served = next((each for each in self.texts.values() if each.second is None), self.texts[names[0]])
        super().__init__(encoder, served.first, served.second)

    def table_columns(self) -> list[str]:
        """Returns the text columns of all tasks."""
        return list(dict.fromkeys(name for each in self.texts.values() for name in each.table_columns()))

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the text columns: lists are refused."""
        return dict.fromkeys(self.table_columns(), "none")

    def encode(self, chunk: RowChunk) -> Encoded:
        """Tokenizes the texts of a file, which is of one task."""
        task = self._data.task_of(chunk.file)
        found = self.texts[task].encode(chunk)
        found.columns[TASK] = HostColumn.of([task] * len(chunk.index))
        return found
