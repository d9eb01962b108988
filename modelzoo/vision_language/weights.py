"""Names of the weights of networks on texts and regions that BERT has not. Imports no TensorFlow.

Google's names and layout as in `modelzoo.encoder_weights`; those of EasyTransfer's ImageBERT and VideoBERT where they
have the weight. Hugging Face has no such single stream: in its form the names are the same, with dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from modelzoo.encoder_weights import EncoderFamily, Weight, encoder_table, weight_pair
from modelzoo.vision_language.config import BOX_NUMBERS, SingleStreamConfig, VisionLanguageConfig

# Parts of the pre-training heads; the first two are BERT's.
HEADS = ("mlm", "matching", "features", "objects", "attributes", "label_match", "label_pointer")


def plain(name: str, path: str, shape: tuple[int, ...], part: str) -> Weight:
    """Returns a weight that Hugging Face's form has by the same name and in the same layout."""
    return Weight(name, name.removeprefix("bert/").replace("/", "."), path, shape, False, part)


def label_table(config: VisionLanguageConfig) -> list[Weight]:
    """Returns the embeddings of labels: which label a piece belongs to, and which of its pieces it is."""
    if not config.label_slots:
        return []
    hidden = config.hidden_size
    return [
        plain("bert/label_embeddings/slot", "labels.slot", (config.label_slots, hidden), "encoder"),
        plain("bert/label_embeddings/inner", "labels.inner", (config.label_pieces, hidden), "encoder"),
    ]


def region_table(config: SingleStreamConfig) -> list[Weight]:
    """Returns the embeddings of regions of a single stream, by the names in `config.REGIONS`."""
    names, hidden = config.REGIONS, config.hidden_size
    scope = f"bert/{names['scope']}"
    norm = f"{scope}/{names['norm']}"
    rows = [plain(f"{scope}/{names['projector']}", "regions.projector", (config.feature_size, hidden), "encoder")]
    if config.region_positions:
        shape = (config.max_regions, hidden)
        rows.append(plain(f"{scope}/{names['positions']}", "regions.positions", shape, "encoder"))
    rows.append(plain(f"{scope}/{names['types']}", "regions.types", (config.region_types, hidden), "encoder"))
    if config.box_size:
        rows.append(plain(f"{scope}/box_projector", "regions.boxes", (BOX_NUMBERS, hidden), "encoder"))
    return [
        *rows,
        *weight_pair(norm, norm.removeprefix("bert/").replace("/", "."), "regions.norm", (hidden,), "encoder"),
    ]


def text_heads(config: VisionLanguageConfig) -> list[Weight]:
    """Returns the heads of masked words and of matching, as BERT's files name them."""
    hidden, head, pair = config.hidden_size, "cls/predictions", "cls/seq_relationship/output_"
    dense, norm = f"{head}/transform/dense", f"{head}/transform/LayerNorm"
    return [
        *weight_pair(dense, dense.replace("/", "."), "transform", (hidden, hidden), "mlm"),
        *weight_pair(norm, norm.replace("/", "."), "layer_norm", (hidden,), "mlm"),
        Weight(f"{head}/output_bias", "cls.predictions.bias", "output_bias", (config.vocab_size,), False, "mlm"),
        # Both foreign forms store this one as [classes, hidden].
        Weight(f"{pair}weights", "cls.seq_relationship.weight", "matching.kernel", (2, hidden), False, "matching"),
        Weight(f"{pair}bias", "cls.seq_relationship.bias", "matching.bias", (2,), False, "matching"),
    ]


def class_head(name: str, path: str, width: int, classes: int, part: str) -> list[Weight]:
    """Returns kernel and bias of a head that tells classes apart, named as EasyTransfer names its heads."""
    return [
        plain(f"{name}/output_weights", f"{path}.kernel", (width, classes), part),
        plain(f"{name}/output_bias", f"{path}.bias", (classes,), part),
    ]


def label_heads(config: VisionLanguageConfig) -> list[Weight]:
    """Returns the heads of label-region matching and of the pointer from labels to regions."""
    if not config.label_slots:
        return []
    hidden, pointer = config.hidden_size, "cls/label_pointer"
    return [
        *class_head("cls/label_match", "label_match", hidden, 2, "label_match"),
        plain(f"{pointer}/query", "label_pointer.query", (hidden, hidden), "label_pointer"),
        plain(f"{pointer}/key", "label_pointer.key", (hidden, hidden), "label_pointer"),
    ]


def single_stream_table(config: SingleStreamConfig) -> list[Weight]:
    """Returns every weight of a single stream, from the embeddings upwards, heads last."""
    hidden = config.hidden_size
    rows = encoder_table(config)
    features = plain(
        f"cls/{config.REGIONS['head']}/output_weights", "features.kernel", (hidden, config.feature_size), "features"
    )
    return [
        *rows[:5],
        *region_table(config),
        *label_table(config),
        *rows[5:],
        *text_heads(config),
        features,
        *class_head("cls/object_predictions", "objects", hidden, config.num_object_labels, "objects"),
        *class_head("cls/attribute_predictions", "attributes", hidden, config.num_attr_labels, "attributes"),
        *label_heads(config),
    ]


def any_files(folder: Any, names: Iterable[str] = ()) -> None:
    """Finds nothing: the configuration says what a folder holds, and no other family has weights of these names."""


def single_stream_family(name: str, config_class: type[SingleStreamConfig], scope: str) -> EncoderFamily:
    """Returns what tells the files of one kind of single stream from those of others.

    Args:
        name: Name of its folder in the ModelZoo.
        config_class: Its configuration.
        scope: What EasyTransfer puts before Google's names.
    """
    return EncoderFamily(
        name=name,
        config_class=config_class,
        table=single_stream_table,
        heads=HEADS,
        architectures={(): config_class.__name__.replace("Config", "Model")},
        hf_prefix="bert.",
        hf_ignored=re.compile(r"^(embeddings\.(position|token_type)_ids|cls\.predictions\.decoder\.(weight|bias))$"),
        hf_decoder="cls.predictions.decoder.weight",
        scope=scope,
        checkpoints={"ez": "model.ckpt"},
        encoder=re.compile(
            rf"(bert/)?(embeddings|{config_class.REGIONS['scope']}|label_embeddings|encoder|pooler)[./]"
        ),
        tokenizers=("WordPiece",),
        check_files=any_files,
    )
