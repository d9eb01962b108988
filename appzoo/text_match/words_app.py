"""The variants that compare words: DAM, DAM+, BiCNN and the hybrid CNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appzoo.text_match.metrics import MatchEvaluator
from appzoo.text_match.pairs import require_pair
from appzoo.text_match.words_config import HcnnMatchConfig, WordMatchConfig
from appzoo.words_app import WordsApp
from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.log import warn
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

if TYPE_CHECKING:
    from appzoo.words_model import Branch

# Before the hidden layer of every network, as in the original.
DROPOUT = 0.2


class WordMatch(WordsApp):
    """Word vectors of both texts, one or two networks that compare them, hidden layer, dense layer."""

    config: WordMatchConfig

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns both texts, whose columns must be named."""
        require_pair(self.config)
        data = self.config.data
        if assets.folder is None and data.sequence_length != type(data).model_fields["sequence_length"].default:
            warn(f"{self.config.model_name} does not use sequenceLength; set first_ and second_sequence_length")
        return super().build_inputs(assets)

    def texts(self) -> dict[str, tuple[str, int]]:
        """Returns both text columns."""
        data, model = self.config.data, self.config.model
        return {
            "_a": (data.first_sequence, model.first_sequence_length),
            "_b": (data.second_sequence, model.second_sequence_length),
        }

    def evaluator(self) -> Evaluator:
        """Returns the metrics of the task; for classes their scores are drawn too."""
        return MatchEvaluator(self.labels) if self.target.kind == "classification" else super().evaluator()


class DamMatch(WordMatch):
    """Decomposable attention (arXiv 1606.01933)."""

    def branches(self) -> list[Branch]:
        """Returns the attention network."""
        from appzoo.words_model import Branch
        from easytransfer.layers.dam import DAMEncoder

        hidden = self.config.model.hidden_size
        return [Branch("dam", DAMEncoder(hidden, name="encoder"), DROPOUT, hidden)]


class BiCnnMatch(WordMatch):
    """The same convolutions over both texts, compared by difference and product."""

    def branches(self) -> list[Branch]:
        """Returns the convolutions."""
        from appzoo.words_model import Branch
        from easytransfer.layers.bicnn import BiCNNEncoder

        hidden = self.config.model.hidden_size
        return [Branch("bicnn", BiCNNEncoder(hidden, name="encoder"), DROPOUT, hidden)]


class DamPlusMatch(WordMatch):
    """DAM, and BiCNN with half as many filters, side by side."""

    def branches(self) -> list[Branch]:
        """Returns both networks."""
        from appzoo.words_model import Branch
        from easytransfer.layers.bicnn import BiCNNEncoder
        from easytransfer.layers.dam import DAMEncoder

        hidden = self.config.model.hidden_size
        encoders = {
            "dam": DAMEncoder(hidden, name="encoder"),
            "bicnn": BiCNNEncoder(hidden // 2, name="encoder"),
        }
        return [Branch(name, encoder, DROPOUT, hidden) for name, encoder in encoders.items()]


class HcnnMatch(WordMatch):
    """Wide convolutions and a pyramid on the word-by-word similarities (ACL P18-2034)."""

    config: HcnnMatchConfig

    def branches(self) -> list[Branch]:
        """Returns the hybrid network."""
        from appzoo.words_model import Branch
        from easytransfer.layers.hcnn import HybridCNNEncoder

        model = self.config.model
        lengths = (model.first_sequence_length, model.second_sequence_length)
        encoder = HybridCNNEncoder(model.hidden_size, model.filter_size, lengths, name="encoder")
        return [Branch("hcnn", encoder, DROPOUT, model.hidden_size)]

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Adds the penalty `l2`, l2_reg / 2 times the sum of squares of all convolution kernels.

        It belongs to a step and not to a row, so it is multiplied by what it is divided by.
        """
        (branch,) = self.model.branches
        penalty = self.config.model.l2_reg * branch.encoder.l2_penalty()
        losses = super().losses(batch, outputs, step)
        weight = losses["loss"].weight
        return {**losses, "l2": Loss(penalty * weight, weight)}
