"""EfficientNet-Lite in PyTorch, written from the paper's table: TensorFlow's padding, ReLU6, names of its weights as in
the package `efficientnet_pytorch`."""

import torch
from torch import nn
from torch.nn import functional

EPSILON, MOMENTUM = 1e-3, 0.01


class SameConv(nn.Conv2d):
    """Convolution whose output is as large as the input divided by the stride, rounded up; more zeros at the end."""

    def forward(self, x):
        need = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            need.append(max(0, (-(-size // stride) - 1) * stride + kernel - size))
        rows, columns = need
        x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def norm(width):
    return nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM)


class Block(nn.Module):
    def __init__(self, before, width, expansion, kernel, stride):
        super().__init__()
        inner = before * expansion
        self.adds = stride == 1 and before == width
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(before, inner, 1, bias=False), norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = norm(inner)
        self._project_conv, self._bn2 = SameConv(inner, width, 1, bias=False), norm(width)

    def forward(self, x):
        y = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class Lite(nn.Module):
    """The network of a `CnnConfig` with an ImageNet stem; `forward` returns feature maps, features and logits."""

    def __init__(self, config, classes):
        super().__init__()
        width = config.stem_widths[0]
        self._conv_stem, self._bn0 = SameConv(config.channels, width, 3, 2, bias=False), norm(width)
        blocks, self.ends = [], []
        for stage, count in enumerate(config.blocks):
            for number in range(count):
                stride = config.strides[stage] if number == 0 else 1
                sizes = (config.stage_widths[stage], config.expansions[stage], config.kernels[stage])
                blocks.append(Block(width, *sizes, stride))
                width = config.stage_widths[stage]
            self.ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(width, config.head_width, 1, bias=False), norm(config.head_width)
        self._fc = nn.Linear(config.head_width, classes)

    def forward(self, x):
        size, maps = x.shape[2:], {}
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.ends:
                maps[-(-size[0] // x.shape[2])] = x
        features = functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return maps, features, self._fc(features)


def randomised(network):
    """Gives every weight and statistic another value than it starts with, variances above 0."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.dtype == torch.float32:
            drawn = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.1 * drawn.abs() if name.endswith("running_var") else value + 0.1 * drawn)
    return network.eval()
