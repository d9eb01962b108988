"""Pre-training of encoders on plain text: words that were hidden, and pairs of segments.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", arXiv
1810.04805; Gururangan et al. 2020, "Don't Stop Pretraining", arXiv 2004.10964, for going on with the texts of a domain.
"""

from __future__ import annotations

from appzoo.encoder import Encoder, token_batch
from appzoo.text_pretrain.config import TextPretrainConfig
from appzoo.text_pretrain.inputs import Passages
from appzoo.text_pretrain.network import PretrainNetwork, pretraining_head
from appzoo.text_pretrain.target import HiddenWords, PairedWords
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.presets import resolve
from easytransfer.train.task import Batch, Outputs


class TextPretrain(App):
    """An encoder that guesses words of passages, anew in every step, and always the same ones in an evaluation."""

    config: TextPretrainConfig
    target: HiddenWords
    encoder: Encoder

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the passages; the tokenizer comes from the ModelZoo or from a trained run."""
        self.encoder = Encoder(self.config, assets.folder)
        self.passages = Passages(self.encoder, str(self.config.data.first_sequence), self.is_paired)
        return [self.passages]

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
        network = PretrainNetwork(backbone, pretraining_head(backbone, self.is_paired, runtime.seed, preset))
        network(self.passages.hidden(token_batch()))
        return network

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model; words that no training has hidden are hidden first."""
        if "hidden_positions" not in batch:
            batch = self.passages.hidden(batch)
        return super().forward(batch, training)


VARIANTS = {"": TextPretrain}
