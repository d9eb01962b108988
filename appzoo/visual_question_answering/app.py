"""Questions about images, answered from a vocabulary.

Antol et al. 2015, "VQA: Visual Question Answering", arXiv 1505.00468; the head is that of LXMERT (Tan and Bansal 2019,
arXiv 1908.07490).
"""

from __future__ import annotations

import tensorflow as tf

from appzoo.vision_language_app import VisionLanguageApp, VisionLanguageEncoder
from appzoo.vision_language_head import TaskHead
from appzoo.visual_question_answering.config import VqaConfig
from appzoo.visual_question_answering.target import AnswerTarget
from appzoo.visual_question_answering.vocabulary import AnswerVocabulary
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.run.log import say
from modelzoo.vision_language.backbone import VisionLanguageBackbone


class QuestionAnswering(VisionLanguageApp):
    """A head on the pooled output gives every answer of the vocabulary a score."""

    config: VqaConfig
    target: AnswerTarget

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the question and the regions of the image."""
        self.encoder = VisionLanguageEncoder(self.config, assets.folder)
        return [self.encoder.tokens(str(self.config.data.first_sequence), raw=("question",)), self.encoder.regions()]

    def build_target(self, assets: Assets) -> AnswerTarget:
        """Returns the answers: those of a file, of the training table, or of a trained run."""
        data, model = self.config.data, self.config.model
        column = str(data.label_name)
        if assets.folder is not None:
            vocabulary = AnswerVocabulary.load(assets.folder)
        elif model.answer_file is not None:
            vocabulary = AnswerVocabulary.read(model.answer_file)
        else:
            vocabulary = AnswerVocabulary.counted(assets.values(column), model.answer_rule, model.min_answer_count)
            say(f"{len(vocabulary):,} answers are the best one to {model.min_answer_count} questions or more")
        return AnswerTarget(column, vocabulary, model.answer_rule, data.answer_type_name)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = AnswerNetwork(backbone, len(self.target.vocabulary), self.config.model.dropout_rate)
        network(self.smallest_batch())
        return network


class AnswerNetwork(keras.Model):
    """Encoder, and a head of twice its width on the pooled output.

    Args:
        backbone: Encoder of words and regions.
        answers: How many there are.
        dropout_rate: Dropout before the head.

    Call arguments:
        batch: The arrays of the encoder.

    Returns:
        `logits` float32 [batch, answers].
    """

    def __init__(self, backbone: VisionLanguageBackbone, answers: int, dropout_rate: float) -> None:
        super().__init__(name="visual_question_answering")
        self.backbone = backbone
        self.head = TaskHead(2 * backbone.config.hidden_size, answers, dropout_rate)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        return {"logits": self.head(pooled, training=training)}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]


VARIANTS = {"": QuestionAnswering}
