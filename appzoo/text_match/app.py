"""Text matching: two texts in; a class, or a number, out."""

from __future__ import annotations

from pathlib import Path

from appzoo.pooled_app import PooledApp
from appzoo.text_match.config import BertMatchConfig
from appzoo.text_match.pairs import require_pair
from appzoo.text_match.two_tower import TwoTowerMatch
from appzoo.text_match.words_app import BiCnnMatch, DamMatch, DamPlusMatch, HcnnMatch
from easytransfer.app.contract import Cells, no_cells
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.matching import MatchEvaluator


class BertMatch(PooledApp):
    """Both texts packed into one encoder, with a dense layer on its pooled first token."""

    config: BertMatchConfig
    paired = True

    def prepare(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Loads tokenizer and labels; both text columns must be named."""
        require_pair(self.config)
        super().prepare(folder, cells)

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
