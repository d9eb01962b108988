"""Applications on TextCNN: convolutions over the words of one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appzoo.words_app import WordsApp

if TYPE_CHECKING:
    from appzoo.words_model import Branch


class TextCnnApp(WordsApp):
    """Convolutions over the words of one text, the maximum over time, dropout, one dense layer (arXiv 1408.5882)."""

    def texts(self) -> dict[str, tuple[str, int]]:
        """Returns the one text column."""
        return {"": (self.config.data.first_sequence, self.config.data.sequence_length)}

    def branches(self) -> list[Branch]:
        """Returns the convolutions."""
        from appzoo.words_model import Branch
        from easytransfer.layers.text_cnn import TextCNNEncoder

        model = self.config.model
        encoder = TextCNNEncoder(model.num_filters, model.filter_sizes, name="encoder")
        return [Branch("cnn", encoder, model.dropout_rate)]
