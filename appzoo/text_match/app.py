"""Text matching: two texts in; a class, or a number, out."""

from __future__ import annotations

from appzoo.encoder import Encoder
from appzoo.pooled_app import PooledApp
from appzoo.text_match.config import BertMatchConfig
from appzoo.text_match.metrics import MatchEvaluator
from appzoo.text_match.pairs import require_pair
from appzoo.text_match.two_tower import TwoTowerMatch
from appzoo.text_match.words_app import BiCnnMatch, DamMatch, DamPlusMatch, HcnnMatch
from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.metrics.evaluator import Evaluator


class BertMatch(PooledApp):
    """Both texts packed into one encoder, with a dense layer on its pooled first token."""

    config: BertMatchConfig

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the pair of texts, whose columns must be named unless tables hold token ids; a server takes texts."""
        require_pair(self.config)
        data, self.encoder = self.config.data, Encoder(self.config, assets.folder)
        return [self.encoder.tokens(data.first_sequence, data.second_sequence, raw=("text_a", "text_b"))]

    def evaluator(self) -> Evaluator:
        """Returns the metrics of the task; for two classes their scores are drawn too."""
        return MatchEvaluator(self.labels) if self.target.kind == "classification" else super().evaluator()


VARIANTS = {
    "bert": BertMatch,
    "bert_two_tower": TwoTowerMatch,
    "dam": DamMatch,
    "damplus": DamPlusMatch,
    "bicnn": BiCnnMatch,
    "hcnn": HcnnMatch,
}
