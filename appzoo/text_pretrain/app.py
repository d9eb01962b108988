"""Pre-training of encoders on plain text: words that were hidden, and pairs of segments.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", arXiv
1810.04805; Gururangan et al. 2020, "Don't Stop Pretraining", arXiv 2004.10964, for going on with the texts of a domain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from appzoo.encoder import Encoder, token_batch
from appzoo.pretraining_head import pretraining_head
from appzoo.text_pretrain.config import TextPretrainConfig
from appzoo.text_pretrain.inputs import Passages
from appzoo.text_pretrain.lengths import RowCutter
from appzoo.text_pretrain.network import PretrainNetwork
from appzoo.text_pretrain.spans.app import SpanPretrain
from appzoo.text_pretrain.target import HiddenWords, PairedWords
from appzoo.text_pretrain.words import WordList
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.id_tables import HIDDEN_AT
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.presets import resolve
from easytransfer.text.hiding import Draws
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Losses, TrainingStep
from easytransfer.train.task import Batch, Outputs


class TextPretrain(App):
    """An encoder that guesses words of passages, anew in every step, and always the same ones in an evaluation."""

    splits: ClassVar[tuple[str, ...]] = ("tensor",)

    config: TextPretrainConfig
    target: HiddenWords
    encoder: Encoder

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the passages; the tokenizer comes from the ModelZoo or from a trained run."""
        self.encoder = Encoder(self.config, assets.folder)
        self.passages = Passages(
            self.encoder, str(self.config.data.first_sequence), self.is_paired, self._words(assets.folder)
        )
        return [self.passages]

    def _words(self, folder: Path | None) -> WordList | None:
        """Returns the list of words of the settings, as a run has stored it."""
        path = self.config.model.word_list
        if path is None:
            return None
        return WordList.from_file(path if folder is None else folder / WordList.FILE, self.encoder.tokenizer)

    def state(self) -> dict[str, Any]:
        """Returns what the words of the list are known by: a training goes on with the same."""
        return {"words": self.passages.words.digest} if self.passages.words else {}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Refuses another list of words than the training began with."""
        if state != self.state():
            raise ConfigError(
                f"{self.config.model.word_list} has other words than when the training began",
                fix="put the file back, or train anew with --overwrite",
            )

    @property
    def is_paired(self) -> bool:
        """Whether passages are pairs of segments."""
        return self.config.model.pair_task != "none"

    def build_target(self, assets: Assets) -> HiddenWords:
        """Returns the hidden words, and pairs where they are asked for."""
        if not self.is_paired:
            return HiddenWords(self.passages)
        return PairedWords(self.passages, self.config.model.pair_task, self.config.runtime.seed)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        model, runtime = self.config.model, self.config.runtime
        backbone = self.encoder.backbone(assets.folder, self.workers)
        fresh = assets.folder is not None or model.from_scratch
        preset = None if fresh else resolve(model.pretrain_model_name_or_path, runtime.model_zoo_base_path)
        head = pretraining_head(backbone, self.is_paired, runtime.seed, preset)
        network = PretrainNetwork(backbone, head, self.workers.tensor)
        network(self.passages.hidden(token_batch()))
        return network

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model; words that no training has hidden are hidden first."""
        if "hidden_positions" not in batch:
            batch = self.passages.hidden(batch)
        return super().forward(batch, training)

    def stages(self) -> list[TrainingStage]:
        """Returns the stages on shorter sequences, and the one on whole ones."""
        last, lengths = self.config.data.sequence_length, self.config.short_lengths
        short = [TrainingStage(f"length {length}", epochs=epochs) for length, epochs in lengths.items()]
        return [*short, TrainingStage(f"length {last}")] if short else super().stages()

    def on_train_table(self, train: EncodedTable) -> None:
        """Refuses to cut rows whose hidden words stand in the table."""
        super().on_train_table(train)
        if HIDDEN_AT in train.columns and self.config.short_lengths:
            raise ConfigError(
                "model.short_stages cuts rows, and those of the table say which words are hidden",
                fix="train on the texts, or on records without masked_lm_positions",
            )

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the batch with words hidden, but where stages cut its rows first."""
        return batch if self.config.short_lengths else super().training_batch(batch, draws)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Computes one batch; in a stage on shorter sequences its rows are cut before words are hidden."""
        if self.config.short_lengths:
            batch = self._of_stage(batch, step.stage, step.draws)
        return super().train_step(step, batch)

    def _of_stage(self, batch: Batch, stage: str | None, draws: Draws) -> Batch:
        """Returns the rows of a stage with words hidden."""
        length = next((n for n in self.config.short_lengths if stage == f"length {n}"), None)
        if length is not None:
            cutter = RowCutter(self.encoder.tokenizer, self.passages.max_length, length)
            batch, draws = cutter.cut(batch, draws)
        return self.passages.hider.hide(batch, draws)


VARIANTS = {"": TextPretrain, "t5": SpanPretrain}
