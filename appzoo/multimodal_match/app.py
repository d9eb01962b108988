"""Matching of a text and an image: a class out, ranks of candidates, recall among all.

FashionBERT, Gao et al. 2020, "FashionBERT: Text and Image Matching with Adaptive Loss for Cross-modal Retrieval", arXiv
2005.09801, sections 3.3 and 4.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.match_label import match_last
from appzoo.multimodal_match import gallery
from appzoo.multimodal_match.config import MultimodalMatchConfig
from appzoo.multimodal_match.network import MatchNetwork
from appzoo.multimodal_match.pages import write_retrieval
from appzoo.multimodal_match.target import MATCH, MatchTarget
from appzoo.vision_language_app import VisionLanguageApp
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.targets.labels import label_target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.errors import ConfigError
from easytransfer.run.log import say
from modelzoo.loading import family_module


class MultimodalMatch(VisionLanguageApp):
    """Words and regions read together, with the head of matching on the pooled first word."""

    config: MultimodalMatchConfig
    target: MatchTarget

    def build_target(self, assets: Assets) -> MatchTarget:
        """Returns two classes, the match second.

        Raises:
            ConfigError: There are not two labels, or nothing says which one is the match.
        """
        make = partial(MatchTarget, list_column=self.config.data.list_column)
        target = label_target(self.config, assets, make, numbers=False)
        if not target.labels or len(target.labels) != 2:
            raise ConfigError(
                "a text and an image match or do not",
                received="no labels" if not target.labels else f"{len(target.labels)}: {target.labels.describe()}",
                accepted="two labels, the match second",
                fix="give both in labelEnumerateValues, or auto",
            )
        if assets.folder is None:
            self._put_match_second(target)
        return target

    def _put_match_second(self, target: MatchTarget) -> None:
        """Orders the labels of a new run and tells which one is the match."""
        listed = self.config.data.label_enumerate_values != "auto"
        labels = match_last(target.names, self.config.model.match_label, listed)
        counts, target.labels = target.labels.counts, LabelMap(labels)
        target.labels.counts = counts
        say(f"label of texts and images that match: {labels[MATCH]} (of others: {labels[1 - MATCH]})")

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds network and head; the head of a pre-trained model goes on as it is."""
        model, runtime = self.config.model, self.config.runtime
        backbone = self.encoder.backbone(assets.folder)
        heads, parts = family_module(backbone.family.name, "heads").HEAD_CLASS, ["matching"]
        if assets.folder is not None or model.from_scratch:
            head = heads(backbone.config, parts, runtime.seed)
        else:
            name, zoo = model.pretrain_model_name_or_path, runtime.model_zoo_base_path
            head = heads.from_preset(name, backbone.config, parts, zoo=zoo, seed=runtime.seed)
        network = MatchNetwork(backbone, head, model.dropout_rate)
        network(self.smallest_batch())
        return network

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes texts with the images that are found for them."""
        return write_retrieval(folder, encoded, outputs["logits"], self.encoder.tokenizer)

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Returns `gallery`: recall at k of images for texts and of texts for images."""
        most, size = self.config.model.gallery_pairs, self.config.train.eval_batch_size
        return gallery.measured(self.predict_step, encoded, self.specs(), most, size)


VARIANTS = {"": MultimodalMatch}
