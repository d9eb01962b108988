"""Applications that read the pooled output of a pre-trained encoder for one text or a packed pair of texts."""

from __future__ import annotations

from appzoo.encoder import Encoder, token_batch
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.targets.labels import LabelTarget, label_target


class PooledApp(App):
    """Encoder, dropout on the pooled [CLS], one dense layer (BERT, arXiv 1810.04805, section 4.1)."""

    splits = ("tensor", "pipeline")

    encoder: Encoder
    target: LabelTarget

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns one text, or a packed pair; the tokenizer comes from the ModelZoo or from a trained run."""
        self.encoder = Encoder(self.config, assets.folder)
        return [self.encoder.tokens(self.config.data.first_sequence, self.config.data.second_sequence)]

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes or a number."""
        return label_target(self.config, assets)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        from appzoo.pooled_model import PooledModel

        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = backbone
        stage = self.workers.stage
        if stage is None or stage.is_last:
            network = PooledModel(backbone, self.target.num_outputs, self.config.model.dropout_rate)
        network(token_batch())
        return network
