"""Single streams and pre-training heads in NumPy, float64, written from the formulas; batches with random contents."""

import math

import numpy as np

_ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + _ERF(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def norm(x, values, name, epsilon=1e-12):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * values[f"{name}/gamma"] + values[f"{name}/beta"]


def dense(x, values, name):
    return x @ values[f"{name}/kernel"] + values[f"{name}/bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def box_numbers(boxes):
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np.concatenate([boxes, np.stack([width, height, width * height], axis=-1)], axis=-1)


def embedded(values, config, batch):
    """Words, labels and regions behind their LayerNorms, joined."""
    e, scope = "bert/embeddings", f"bert/{config.REGIONS['scope']}"
    ids = batch["input_ids"]
    words = values[f"{e}/word_embeddings"][ids] + values[f"{e}/position_embeddings"][: ids.shape[1]]
    words = words + values[f"{e}/token_type_embeddings"][batch["segment_ids"]]
    regions = batch["features"] @ values[f"{scope}/{config.REGIONS['projector']}"]
    regions = regions + values[f"{scope}/{config.REGIONS['types']}"][1]
    if config.region_positions:
        regions = regions + values[f"{scope}/{config.REGIONS['positions']}"][: regions.shape[1]]
    if config.box_size:
        regions = regions + box_numbers(batch["boxes"]) @ values[f"{scope}/box_projector"]
    parts = [norm(words, values, f"{e}/LayerNorm")]
    if "label_ids" in batch:
        labels = values[f"{e}/word_embeddings"][batch["label_ids"]] + values[f"{e}/token_type_embeddings"][1]
        for row, slots in enumerate(batch["label_slot"]):
            for piece, slot in enumerate(slots):
                if slot < 0:
                    continue
                labels[row, piece] += values["bert/label_embeddings/slot"][slot]
                labels[row, piece] += values["bert/label_embeddings/inner"][batch["label_inner"][row, piece]]
                region = batch["label_region"][row, slot]
                if config.label_link == "box" and region >= 0:
                    box = box_numbers(batch["boxes"][row, region])
                    labels[row, piece] += box @ values[f"{scope}/box_projector"]
        parts.append(norm(labels, values, f"{e}/LayerNorm"))
    return np.concatenate([*parts, norm(regions, values, f"{scope}/{config.REGIONS['norm']}")], axis=1)


def looked_at(batch, regions_only):
    """[batch, from, to], by every pair."""
    masks = [batch["input_mask"], *([batch["label_mask"]] if "label_ids" in batch else []), batch["region_mask"]]
    kinds = "wlr" if "label_ids" in batch else "wr"
    kind = [name for name, mask in zip(kinds, masks, strict=True) for _ in range(mask.shape[1])]
    mask = np.concatenate(masks, axis=1).astype(bool)
    found = np.zeros([len(mask), len(kind), len(kind)], bool)
    for i, a in enumerate(kind):
        for j, b in enumerate(kind):
            found[:, i, j] = mask[:, j] & (not regions_only or {a, b} != {"w", "l"})
    return found


def single_stream(values, config, batch, regions_only=False):
    """Returns the last states, the pooled output and the attention of every layer."""
    values = {name: value.astype(np.float64) for name, value in values.items()}
    x, mask = embedded(values, config, batch), looked_at(batch, regions_only)
    heads, attentions = config.num_attention_heads, []
    size = config.hidden_size // heads
    for number in range(config.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        q, k, v = (
            dense(x, values, f"{layer}/attention/self/{name}").reshape(*x.shape[:2], heads, size)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(size)
        attention = softmax(np.where(mask[:, None], scores, -1e9))
        attended = np.einsum("bhij,bjhd->bihd", attention, v).reshape(x.shape)
        x = norm(x + dense(attended, values, f"{layer}/attention/output/dense"), values,
                 f"{layer}/attention/output/LayerNorm")  # fmt: skip
        inner = ACTIVATIONS[config.hidden_act](dense(x, values, f"{layer}/intermediate/dense"))
        x = norm(x + dense(inner, values, f"{layer}/output/dense"), values, f"{layer}/output/LayerNorm")
        attentions.append(attention)
    return x, np.tanh(dense(x[:, 0], values, "bert/pooler/dense")), attentions


def random_batch(config, words=6, regions=5, seed=0, labels=True):
    """Two rows, of which the second has padding of every kind."""
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 0.5, [2, regions, 2])
    batch = {
        "input_ids": draw.integers(5, config.vocab_size, [2, words]),
        "input_mask": np.ones([2, words]),
        "segment_ids": np.zeros([2, words]),
        "features": draw.normal(size=[2, regions, config.feature_size]),
        "boxes": np.concatenate([corner, corner + draw.uniform(0, 0.5, [2, regions, 2])], axis=2),
        "region_mask": np.ones([2, regions]),
    }
    batch["input_mask"][1, 4:], batch["region_mask"][1, 3:] = 0, 0
    if labels:
        batch |= {
            "label_ids": draw.integers(5, config.vocab_size, [2, 5]),
            "label_slot": np.array([[1, 1, 0, 2, -1], [0, 0, -1, -1, -1]]),
            "label_inner": np.array([[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]),
            "label_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
            "label_region": np.array([[3, 0, -1], [2, -1, -1]]),
        }
    floats = ("features", "boxes")
    return {name: value.astype(np.float32 if name in floats else np.int32) for name, value in batch.items()}
