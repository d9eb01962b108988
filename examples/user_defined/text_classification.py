"""A classifier of one's own in four hooks: encoder, dense layer, loss, metrics."""

from easytransfer import base_model, layers, model_zoo, preprocessors
from easytransfer.datasets import CSVReader
from easytransfer.evaluators import classification_eval_metrics
from easytransfer.losses import softmax_cross_entropy


class TextClassification(base_model):
    """Dense layer on the pooled output of a pre-trained encoder."""

    def build_logits(self, features, mode=None):
        """Returns logits [batch, labels] and label ids [batch]."""
        preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path)
        model = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
        dense = layers.Dense(self.num_labels)
        input_ids, input_mask, segment_ids, label_ids = preprocessor(features)
        _, pooled_output = model([input_ids, input_mask, segment_ids], mode=mode)
        return dense(pooled_output), label_ids

    def build_loss(self, logits, labels):
        """Returns the mean cross entropy."""
        return softmax_cross_entropy(labels, self.num_labels, logits)

    def build_eval_metrics(self, logits, labels):
        """Returns accuracy and F1."""
        return classification_eval_metrics(logits, labels, self.num_labels)


app = TextClassification()
train_reader = CSVReader(input_glob=app.train_input_fp, is_training=True, batch_size=app.train_batch_size)
eval_reader = CSVReader(input_glob=app.eval_input_fp, is_training=False, batch_size=app.eval_batch_size)
print(app.run_train_and_evaluate(train_reader=train_reader, eval_reader=eval_reader))
