"""Regression on numbers: columns of the table go into dense layers, without text and without a pre-trained model."""

import tensorflow as tf

from easytransfer import base_model, layers
from easytransfer.evaluators import regression_eval_metrics
from easytransfer.losses import mean_square_error


class Rents(base_model):
    """Predicts the rent of a flat, in hundreds, from area, rooms, floor and distance to the centre."""

    def build_logits(self, features, mode=None):
        """Returns the rent [batch, 1] and the true one [batch]."""
        flats = features["flat"] / tf.constant(self.feature_scales)
        for number, size in enumerate(self.hidden_sizes):
            flats = layers.Dense(size, activation="relu", name=f"hidden_{number}", kernel_initializer="he_normal")(
                flats
            )
        rent = layers.Dense(1, name="rent")(flats)
        return rent, features.get("rent")

    def build_loss(self, logits, labels):
        """Returns the mean square error."""
        return mean_square_error(labels, logits)

    def build_eval_metrics(self, logits, labels):
        """Returns error and correlation."""
        return regression_eval_metrics(logits, labels, names=("mse", "mae", "pearson"))

    def build_predictions(self, predict_output):
        """Returns the rent."""
        return {"predictions": predict_output[0][:, 0]}


if __name__ == "__main__":
    Rents().run()
