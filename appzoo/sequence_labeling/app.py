"""Sequence labelling: a tag for every word or character of a text of any length."""

from __future__ import annotations

from appzoo.labeling.base import LabelingApp
from appzoo.sequence_labeling.config import BertLabelingConfig
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs


class BertLabeling(LabelingApp):
    """A pre-trained encoder with a dense layer on every token, and if wanted a CRF over words."""

    config: BertLabelingConfig
    splits = ("tensor",)

    @property
    def use_crf(self) -> bool:
        """Whether neighbouring tags are scored."""
        return self.config.model.use_crf

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labelled tokens, or with a CRF the negative log likelihood of the tags."""
        if self.model.crf is None:
            return super().losses(batch, outputs, step)
        return self.target.sequence_losses(batch, outputs, self.model.crf)


VARIANTS = {"bert": BertLabeling}
