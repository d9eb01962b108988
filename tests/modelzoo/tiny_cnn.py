"""One tiny network of each family, 16x16 pixels, at most 16 channels wide."""

from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named

_STAGES = {"stem_widths": (4,), "blocks": (1, 2), "stage_widths": (8, 12), "strides": (1, 2), "image_size": 16}
_INNER = {"inner_widths": (4, (4, 6))}
_INVERTED = {**_STAGES, "expansions": (1, 4), "kernels": (3, 5), "head_width": 16}


def _make(family: str, **fields) -> CnnConfig:
    return CnnConfig(family=family, **fields)


TINY = {
    "resnet": _make("resnet", **_STAGES, **_INNER),
    "resnet_imagenet": _make("resnet", **{**_STAGES, "stem": "imagenet", "image_size": 33}, **_INNER),
    "deep_stem": _make("resnet", **{**_STAGES, "stem": "imagenet", "stem_widths": (4, 4, 6)}, **_INNER),
    "stage_shortcut": _make("resnet", **_STAGES, **_INNER, shortcut="stage"),
    "resnext": _make("resnext", **_STAGES, inner_widths=(4, 4), block="bottleneck", groups=2, shortcut="pool"),
    "se_resnet": _make("se_resnet", **_STAGES, **_INNER, block="bottleneck", se_reduction=4),
    "preact": _make("preact_resnet", **_STAGES, **_INNER, block="bottleneck", pre_activation=True, block_dropout=0.3),
    "wide": _make("wide_resnet", **_STAGES, inner_widths=(8, 12), pre_activation=True, channels=1),
    "pyramidnet": _make(
        "pyramidnet",
        stem_widths=(4,),
        blocks=(2, 2),
        inner_widths=((5, 6), (7, 8)),
        strides=(1, 2),
        block="bottleneck",
        drop_path=0.5,
        image_size=16,
    ),
    "shake_shake": _make("shake_shake", **_STAGES, inner_widths=(8, 12)),
    "densenet": _make("densenet", stem_widths=(6,), blocks=(2, 2), growth=4, image_size=16, block_dropout=0.2),
    "densenet_plain": _make(
        "densenet",
        stem_widths=(4,),
        blocks=(2, 1),
        growth=3,
        bottleneck_factor=0,
        compression=1,
        stem_norm=False,
        image_size=16,
    ),
    "efficientnet": _make("efficientnet", **_INVERTED, activation="swish", drop_path=0.2, dropout=0.2),
    "mobilenet_v2": _make("mobilenet_v2", **_INVERTED, stem="imagenet", activation="relu6"),
    "vgg": _make("vgg", blocks=(1, 2), stage_widths=(4, 6), strides=(1, 2), image_size=16),
    "vgg_plain": _make("vgg", blocks=(1, 1), stage_widths=(4, 6), strides=(1, 2), image_size=16, batch_norm=False),
    "smallcnn": named("smallcnn_mnist").replace(stage_widths=(4, 6), head_width=8),
    "mlp": named("mlp16x1_digits"),
}
