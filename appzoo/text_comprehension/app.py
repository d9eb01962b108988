"""Text comprehension: the answer to a question, cut from a text; also as one turn of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appzoo.encoder import Encoder, token_batch
from appzoo.text_comprehension.config import BertComprehensionConfig, HaeComprehensionConfig
from appzoo.text_comprehension.inputs import QuestionWindows
from appzoo.text_comprehension.target import SpanTarget
from appzoo.text_comprehension.windows import WindowEncoder
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.deferred import tf

if TYPE_CHECKING:
    from appzoo.text_comprehension.model import HistorySpanModel, SpanModel


class BertComprehension(App):
    """A pre-trained encoder with two scores per token, over sliding windows of the context."""

    config: BertComprehensionConfig
    encoder: Encoder
    target: SpanTarget
    model: SpanModel
    splits = ("tensor",)

    @property
    def history_turns(self) -> int | None:
        """Earlier answers of a conversation that the model is told of; None for single questions."""
        return None

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the questions with their contexts; the tokenizer comes from the ModelZoo or from a trained run.

        Raises:
            ConfigError: A window has no room for the context behind the longest question.
        """
        data, model = self.config.data, self.config.model
        self.encoder = Encoder(self.config, assets.folder)
        lengths = (data.sequence_length, model.max_query_length, model.doc_stride)
        windows = WindowEncoder(self.encoder.tokenizer, *lengths, self.history_turns)
        return [QuestionWindows(self.encoder, data.first_sequence, data.second_sequence, data.label_name, windows)]

    def build_target(self, assets: Assets) -> SpanTarget:
        """Returns the answers."""
        return SpanTarget(self.config)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        network = self._network()(self.encoder.backbone(assets.folder, self.workers), self.config.model.dropout_rate)
        batch = token_batch()
        network({**batch, "history_answer_marker": tf.zeros_like(batch["input_ids"])})
        return network

    def _network(self) -> type[SpanModel]:
        from appzoo.text_comprehension.model import SpanModel

        return SpanModel


class HaeComprehension(BertComprehension):
    """The same for a conversation: a question sees the answers before it, one per example, by their embedding."""

    config: HaeComprehensionConfig
    model: HistorySpanModel

    @property
    def history_turns(self) -> int:
        """Earlier answers that are marked, the latest ones."""
        return self.config.model.max_considered_history_turns

    def _network(self) -> type[HistorySpanModel]:
        from appzoo.text_comprehension.model import HistorySpanModel

        return HistorySpanModel


VARIANTS = {"bert": BertComprehension, "bert_hae": HaeComprehension}
