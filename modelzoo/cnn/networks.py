"""The networks of all families, written as calls of a builder: from a configuration to layers, or to their costs.

A family is a walk over its blocks and what comes behind the last one. Blocks have names, such as `stage1_block2_`, that
their layers begin with and that stay when other blocks are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from easytransfer.errors import ModelError
from easytransfer.image.size import size_text
from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import FOREIGN, INVERTED, CnnConfig

# A bottleneck of PyramidNet gives four times its inner width.
_PYRAMID_EXPANSION = 4
# Number of the stage from 0, and its features so far.
Walk = Iterator[tuple[int, Any]]


class Body(NamedTuple):
    """A network up to its last vector.

    Attributes:
        stages: Features [batch, height, width, channels] at the end of each stage, the last one as it is averaged;
            empty for networks without stages of feature maps.
        vector: [batch, width].
    """

    stages: list[Any]
    vector: Any


class BlockSpec(NamedTuple):
    """One block of a network.

    Attributes:
        name: Prefix of its layers, such as `stage1_block2_`.
        stage: Number of its stage, from 0.
        width: Channels it gives; 0 for families without stage widths.
        inner: Channels inside; 0 for families without inner widths.
        stride: Of its strided convolution.
        dilation: Of its 3x3 convolutions.
        number: Of the block in the whole network, from 1.
        total: Blocks of the whole network.
    """

    name: str
    stage: int
    width: int
    inner: int
    stride: int
    dilation: int
    number: int
    total: int


def block_specs(config: CnnConfig) -> Iterator[BlockSpec]:
    """Yields the blocks from the first to the last.

    With an output stride, a stage that would exceed it keeps its size: its stride becomes a factor of the dilation,
    from its second block on. The first block still sees features of the stage before, so it keeps that stage's
    dilation: the rule of torchvision's `replace_stride_with_dilation`.
    """
    total, number, dilation, reached = sum(config.blocks), 0, 1, config.stem_stride
    for stage, count in enumerate(config.blocks):
        inner = config.inner(stage) if config.inner_widths else (0,) * count
        stride, before = config.strides[stage], dilation
        if config.output_stride is not None and reached * stride > config.output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        for position, label in enumerate(config.ids(stage)):
            number += 1
            yield BlockSpec(
                f"stage{stage + 1}_block{label}_",
                stage,
                config.stage_widths[stage] if config.stage_widths else 0,
                inner[position],
                stride if position == 0 else 1,
                before if position == 0 else dilation,
                number,
                total,
            )


def stem(b: Builder, x: Any, config: CnnConfig, *, norm: bool = True, act: bool = True, bias: bool = False) -> Any:
    """First layers: a 3x3 convolution, or 7x7 (or three 3x3, where `stem_widths` has three) and a maximum.

    Args:
        b: Builder.
        x: Images.
        config: Configuration.
        norm: Whether the last convolution is normalised.
        act: Whether it is activated.
        bias: Whether it has a bias.
    """
    imagenet, count = config.stem == "imagenet", len(config.stem_widths)
    for i, width in enumerate(config.stem_widths):
        last, number = i == count - 1, "" if count == 1 else str(i + 1)
        kernel = 7 if imagenet and count == 1 else 3
        x = b.conv(x, width, kernel, f"stem_conv{number}", stride=2 if imagenet and i == 0 else 1, bias=bias)
        if norm or not last:
            x = b.norm(x, f"stem_norm{number}")
        if act or not last:
            x = b.act(x, config.activation)
    if imagenet:
        # Only after a ReLU may the maximum see zeros that were padded.
        x = b.max_pool(x, 3, "symmetric" if act and not config.se_stem_pool else "same")
    return x


def _as_it_is(b: Builder, x: Any, config: CnnConfig) -> Any:
    return x


def _normalised(b: Builder, x: Any, config: CnnConfig) -> Any:
    return b.act(b.norm(x, "final_norm"), config.activation)


# Residual networks, activation after the addition: ResNet, ResNeXt, SE-ResNet and their wide forms ------------


def _residual(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """He et al. 2016, arXiv 1512.03385, section 3; Xie et al. 2017, arXiv 1611.05431 (groups).

    The stride of a bottleneck is on its 3x3 convolution.
    """
    x = stem(b, x, config)
    for spec in block_specs(config):
        if config.shortcut == "stage":
            x, spec = _transition(b, x, spec)
        branch = _residual_branch(b, x, config, spec)
        if config.se_reduction:
            branch = excite(b, branch, b.channels(branch) // config.se_reduction, spec.name)
        x = b.act(b.add(branch, _residual_shortcut(b, x, config, spec)), config.activation)
        yield spec.stage, x


def _residual_branch(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    name, wide = spec.name, (spec.inner, 3, spec.stride)
    if config.block == "basic":
        layers = [(*wide, config.groups), (spec.width, 3, 1, 1)]
    else:
        layers = [(spec.inner, 1, 1, 1), (*wide, config.groups), (spec.width, 1, 1, 1)]
    for i, (width, kernel, stride, groups) in enumerate(layers, 1):
        last, dilation = i == len(layers), spec.dilation if kernel > 1 else 1
        x = b.conv(x, width, kernel, f"{name}conv{i}", stride=stride, groups=groups, dilation=dilation)
        x = b.norm(x, f"{name}norm{i}", last=last)
        x = x if last else b.act(x, config.activation)
    return x


def _transition(b: Builder, x: Any, spec: BlockSpec) -> tuple[Any, BlockSpec]:
    """Changes the shape before a block, so that the block itself changes nothing."""
    if spec.stride > 1 or b.channels(x) != spec.width:
        name = f"stage{spec.stage + 1}_transition_"
        x = b.norm(b.conv(x, spec.width, 1, f"{name}conv", stride=spec.stride), f"{name}norm")
    return x, spec._replace(stride=1)


def _residual_shortcut(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    if spec.stride == 1 and b.channels(x) == spec.width:
        return x
    stride = spec.stride
    if config.shortcut == "pool" and stride > 1:
        x, stride = b.mean_pool(x), 1
    x = b.conv(x, spec.width, 1, f"{spec.name}shortcut_conv", stride=stride)
    return b.norm(x, f"{spec.name}shortcut_norm")


def excite(b: Builder, x: Any, width: int, name: str, activation: str = "relu") -> Any:
    """Squeeze and excitation: scales channels by a gate made from their means (arXiv 1709.01507, section 3).

    Args:
        b: Builder.
        x: Features.
        width: Channels of the squeezed layer.
        name: Prefix of the layers.
        activation: Activation of the squeezed layer.
    """
    gate = b.act(b.conv(b.global_mean(x, keep=True), width, 1, f"{name}se_reduce", bias=True), activation)
    gate = b.conv(gate, b.channels(x), 1, f"{name}se_expand", bias=True)
    return b.scale(x, b.act(gate, "sigmoid"))


# Residual networks, activation before each convolution -------------------------------------------------------


def _preact(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """He et al. 2016, arXiv 1603.05027, figure 4e; Zagoruyko and Komodakis 2016, arXiv 1605.07146, section 2.

    Where the shape changes, the activated input feeds both the branch and a 1x1 convolution; elsewhere the input itself
    is added.
    """
    x = stem(b, x, config, norm=False, act=False)
    for spec in block_specs(config):
        x = _preact_block(b, x, config, spec)
        yield spec.stage, x


def _preact_block(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    name, wide = spec.name, (spec.inner, 3, spec.stride)
    layers = [wide, (spec.width, 3, 1)]
    if config.block == "bottleneck":
        layers = [(spec.inner, 1, 1), wide, (spec.width, 1, 1)]
    changes = spec.stride > 1 or b.channels(x) != spec.width
    branch = x
    for i, (width, kernel, stride) in enumerate(layers, 1):
        branch = b.act(b.norm(branch, f"{name}norm{i}"), config.activation)
        if i == 1 and changes:
            x = b.conv(branch, spec.width, 1, f"{name}shortcut_conv", stride=spec.stride)
        if i == len(layers):
            branch = b.dropout(branch, config.block_dropout)
        dilation = spec.dilation if kernel > 1 else 1
        branch = b.conv(branch, width, kernel, f"{name}conv{i}", stride=stride, dilation=dilation)
    return b.add(branch, x)


def _pyramid(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """Han et al. 2017, arXiv 1610.02915, with ShakeDrop (Yamada et al., arXiv 1802.02375).

    Channels grow with every block, so `inner_widths` has one number for each. The shortcut is the input, averaged 2x2
    at a stride, with zeros in the channels it lacks.
    """
    x = stem(b, x, config, act=False)
    for spec in block_specs(config):
        branch = b.shake_drop(_pyramid_branch(b, x, config, spec), config.drop_path * spec.number / spec.total)
        short = b.mean_pool(x) if spec.stride > 1 else x
        x = b.add(branch, b.pad_channels(short, b.channels(branch)))
        yield spec.stage, x


def _pyramid_branch(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    name, wide = spec.name, (spec.inner, 3, spec.stride)
    layers = [wide, (spec.inner, 3, 1)]
    if config.block == "bottleneck":
        layers = [(spec.inner, 1, 1), wide, (_PYRAMID_EXPANSION * spec.inner, 1, 1)]
    for i, (width, kernel, stride) in enumerate(layers, 1):
        x = b.norm(x, f"{name}norm{i}")
        x = x if i == 1 else b.act(x, config.activation)
        x = b.conv(x, width, kernel, f"{name}conv{i}", stride=stride)
    return b.norm(x, f"{name}norm{len(layers) + 1}", last=True)


# Shake-shake --------------------------------------------------------------------------------------------------


def _shake_shake(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """Two residual branches, mixed at random in training (Gastaldi 2017, arXiv 1705.07485)."""
    x = stem(b, x, config, act=False, bias=True)
    for spec in block_specs(config):
        branches = [_shake_branch(b, x, config, spec, label) for label in "ab"]
        x = b.add(b.shake_shake(*branches), _shake_shortcut(b, x, config, spec))
        yield spec.stage, x


def _shake_branch(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec, label: str) -> Any:
    name = f"{spec.name}{label}_"
    x = b.conv(b.act(x, config.activation), spec.inner, 3, f"{name}conv1", stride=spec.stride)
    x = b.act(b.norm(x, f"{name}norm1"), config.activation)
    return b.norm(b.conv(x, spec.width, 3, f"{name}conv2"), f"{name}norm2", last=True)


def _shake_shortcut(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    """Two views of the strided image, one moved by a pixel, each with a 1x1 convolution to half of the channels."""
    if spec.stride == 1 and b.channels(x) == spec.width:
        return x
    x = b.act(x, config.activation)
    half, halves = spec.width // 2, []
    for shift, width in enumerate((half, spec.width - half)):
        view = b.shifted(x, shift, spec.stride)
        halves.append(b.conv(view, width, 1, f"{spec.name}shortcut_conv{shift + 1}"))
    return b.norm(b.concat(halves), f"{spec.name}shortcut_norm")


def _activated(b: Builder, x: Any, config: CnnConfig) -> Any:
    return b.act(x, config.activation)


# DenseNet -----------------------------------------------------------------------------------------------------


def _dense(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """With or without bottlenecks and compression (Huang et al. 2017, arXiv 1608.06993)."""
    x = stem(b, x, config, norm=config.stem_norm, act=config.stem_norm)
    for stage in range(len(config.blocks)):
        if stage > 0:
            x = _dense_transition(b, x, config, f"transition{stage}_")
        for label in config.ids(stage):
            x = b.concat([x, _dense_layer(b, x, config, f"stage{stage + 1}_block{label}_")])
        yield stage, x


def _dense_layer(b: Builder, x: Any, config: CnnConfig, name: str) -> Any:
    layers = [(config.growth, 3)]
    if config.bottleneck_factor:
        layers.insert(0, (config.bottleneck_factor * config.growth, 1))
    for i, (width, kernel) in enumerate(layers, 1):
        x = b.act(b.norm(x, f"{name}norm{i}"), config.activation)
        x = b.dropout(b.conv(x, width, kernel, f"{name}conv{i}"), config.block_dropout)
    return x


def _dense_transition(b: Builder, x: Any, config: CnnConfig, name: str) -> Any:
    x = b.act(b.norm(x, f"{name}norm"), config.activation)
    x = b.conv(x, int(b.channels(x) * config.compression), 1, f"{name}conv")
    return b.mean_pool(b.dropout(x, config.block_dropout), "valid")


# Inverted residual networks: MobileNetV2 and EfficientNet -----------------------------------------------------


def _inverted(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """Sandler et al. 2018, arXiv 1801.04381, section 3; Tan and Le 2019, arXiv 1905.11946, section 4.

    The latter adds squeeze and excitation, other kernels and stochastic depth.
    """
    x = b.conv(x, config.stem_widths[0], 3, "stem_conv", stride=config.stem_stride, padding=config.padding)
    x = b.act(b.norm(x, "stem_norm"), config.activation)
    for spec in block_specs(config):
        x = _inverted_block(b, x, config, spec)
        yield spec.stage, x


def _inverted_block(b: Builder, x: Any, config: CnnConfig, spec: BlockSpec) -> Any:
    name, before = spec.name, b.channels(x)
    inner = spec.inner or before * config.expansions[spec.stage]
    branch = x
    if config.expansions[spec.stage] > 1:
        branch = b.norm(b.conv(branch, inner, 1, f"{name}expand_conv"), f"{name}expand_norm")
        branch = b.act(branch, config.activation)
    kernel = config.kernels[spec.stage]
    branch = b.depthwise(branch, kernel, f"{name}depthwise", stride=spec.stride, padding=config.padding)
    branch = b.act(b.norm(branch, f"{name}depthwise_norm"), config.activation)
    if config.family == "efficientnet" and config.se_ratio:
        # The squeezed width follows the channels of the block's input, not the expanded ones.
        branch = excite(b, branch, max(1, int(before * config.se_ratio)), name, config.activation)
    branch = b.norm(b.conv(branch, spec.width, 1, f"{name}project_conv"), f"{name}project_norm", last=True)
    if spec.stride > 1 or before != spec.width:
        return branch
    return b.add(b.drop_path(branch, config.drop_path * (spec.number - 1) / spec.total), x)


def _inverted_head(b: Builder, x: Any, config: CnnConfig) -> Any:
    x = b.norm(b.conv(x, config.head_width, 1, "head_conv"), "head_norm")
    return b.act(x, config.activation)


# Networks without shortcuts -----------------------------------------------------------------------------------


def _vgg(b: Builder, x: Any, config: CnnConfig) -> Walk:
    """VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) in its form for small images.

    A stage whose entry in `strides` is 2 begins with a maximum over 2x2 windows.
    """
    for spec in block_specs(config):
        if spec.stride > 1:
            x = b.max_pool(x, 2, "valid")
        x = b.conv(x, spec.width, 3, f"{spec.name}conv", bias=True)
        if config.batch_norm:
            x = b.norm(x, f"{spec.name}norm")
        x = b.act(x, config.activation)
        yield spec.stage, x


def _smallcnn(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Small network for digits of TRADES (Zhang et al. 2019, arXiv 1901.08573): returns [batch, head_width].

    Unpadded 3x3 convolutions, each stage followed by a maximum over 2x2 windows, then two dense layers with dropout.
    """
    for stage, (count, width) in enumerate(zip(config.blocks, config.stage_widths, strict=True), 1):
        for i in range(count):
            x = b.conv(x, width, 3, f"stage{stage}_block{i + 1}_conv", bias=True, padding="valid")
            x = b.act(x, config.activation)
        x = b.max_pool(x, 2, "valid")
    x = b.act(b.dense(b.flatten(x), config.head_width, "dense1"), config.activation)
    x = b.dropout(x, config.block_dropout)
    return b.act(b.dense(x, config.head_width, "dense2"), config.activation)


def _mlp(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Dense layers of the widths `stage_widths` on the pixels; returns [batch, last width]."""
    x = b.flatten(x)
    for i, width in enumerate(config.stage_widths, 1):
        x = b.act(b.dense(x, width, f"dense{i}"), config.activation)
    return x


# From a configuration to a network ----------------------------------------------------------------------------

_Last = Callable[[Builder, Any, CnnConfig], Any]
# Walk over the blocks, and what comes between the last one and the mean over all positions.
_WALKS: dict[str, tuple[Callable[[Builder, Any, CnnConfig], Walk], _Last]] = {
    "pyramidnet": (_pyramid, _normalised),
    "shake_shake": (_shake_shake, _activated),
    "densenet": (_dense, _normalised),
    **dict.fromkeys(INVERTED, (_inverted, _inverted_head)),
    "vgg": (_vgg, _as_it_is),
}
_FLAT: dict[str, Callable[[Builder, Any, CnnConfig], Any]] = {"smallcnn": _smallcnn, "mlp": _mlp}


def body(b: Builder, images: Any, config: CnnConfig) -> Body:
    """Adds the network up to its last vector.

    Args:
        b: Builder.
        images: Its tensor of the images, [batch, height, width, channels].
        config: Configuration.

    Returns:
        The ends of its stages, and the vector.

    Raises:
        ModelError: The family has no layers of its own, or the images are too small.
    """
    if config.family in FOREIGN:
        received = config.handle or config.application
        raise ModelError(f"the layers of the family {config.family} are not described here", received=received)
    usual = (_preact, _normalised) if config.pre_activation else (_residual, _as_it_is)
    walk, last = _WALKS.get(config.family, usual)
    try:
        if config.family in _FLAT:
            return Body([], _FLAT[config.family](b, images, config))
        # A later block of a stage takes the place of an earlier one.
        ends = list(dict(walk(b, images, config)).values())
        x = last(b, ends[-1], config)
    except ValueError as error:
        raise ModelError(
            f"{config.family} does not work with images of {size_text(config.image_size)} pixels: {error}",
            fix="raise image_size, or take fewer stages",
        ) from None
    # The last convolution of an inverted network belongs to its classifier, not to the last stage.
    stages = ends if config.family in INVERTED else [*ends[:-1], x]
    return Body(stages, b.global_mean(x))


def head(b: Builder, vector: Any, config: CnnConfig, classes: int) -> Any:
    """Adds dropout and the classifier: [batch, width] to logits [batch, classes]."""
    return b.dense(b.dropout(vector, config.dropout), classes, "logits")
