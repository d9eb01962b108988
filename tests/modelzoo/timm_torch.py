"""ResNet, wide ResNet, MobileNetV2 and EfficientNet-B0 in PyTorch, written from the papers' tables, with the names that
timm's files have, PyTorch's padding and PyTorch's epsilon."""

import torch
from torch import nn


class Residual(nn.Module):
    """Basic block, or bottleneck where `inner` and `width` differ; the stride is on the 3x3 convolution."""

    def __init__(self, before, inner, width, stride, bottleneck):
        super().__init__()
        sizes = [(inner, 3, stride), (width, 3, 1)]
        if bottleneck:
            sizes = [(inner, 1, 1), (inner, 3, stride), (width, 1, 1)]
        channels, self.count = before, len(sizes)
        for i, (out, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(channels, out, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            channels = out
        self.downsample = None
        if stride > 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.count else torch.relu(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """He et al. 2016, table 1; `widening` 2 is the wide bottleneck network of Zagoruyko and Komodakis."""

    def __init__(self, blocks, bottleneck, widening=1, classes=1000, first=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, first, 7, 2, 3, bias=False), nn.BatchNorm2d(first)
        before = first
        for stage, count in enumerate(blocks):
            base = first * 2**stage
            width, layers = base * (4 if bottleneck else 1), []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                layers.append(Residual(before, base * widening, width, stride, bottleneck))
                before = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


class Gate(nn.Module):
    def __init__(self, width, inner, act):
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.act = act

    def forward(self, x):
        return x * torch.sigmoid(self.conv_expand(self.act(self.conv_reduce(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    def __init__(self, before, width, expansion, kernel, stride, act, gated):
        super().__init__()
        inner = before * expansion
        self.act, self.adds, self.expands = act, stride == 1 and before == width, expansion > 1
        depthwise = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        if self.expands:
            self.conv_pw, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv_dw, self.bn2 = depthwise, nn.BatchNorm2d(inner)
        else:
            self.conv_dw, self.bn1 = depthwise, nn.BatchNorm2d(inner)
        if gated:
            self.se = Gate(inner, before // 4, act)
        last = nn.Conv2d(inner, width, 1, bias=False)
        if self.expands:
            self.conv_pwl, self.bn3 = last, nn.BatchNorm2d(width)
        else:
            self.conv_pw, self.bn2 = last, nn.BatchNorm2d(width)

    def forward(self, x):
        if self.expands:
            y = self.act(self.bn2(self.conv_dw(self.act(self.bn1(self.conv_pw(x))))))
        else:
            y = self.act(self.bn1(self.conv_dw(x)))
        y = self.se(y) if hasattr(self, "se") else y
        y = self.bn3(self.conv_pwl(y)) if self.expands else self.bn2(self.conv_pw(y))
        return x + y if self.adds else y


class InvertedNetwork(nn.Module):
    """Rows (expansion, channels, blocks, stride, kernel) of the papers' tables."""

    def __init__(self, rows, act, gated, classes=1000):
        super().__init__()
        self.act = act
        self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        before, stages = 32, []
        for expansion, width, count, stride, kernel in rows:
            blocks = []
            for i in range(count):
                blocks.append(Inverted(before, width, expansion, kernel, stride if i == 0 else 1, act, gated))
                before = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = nn.Conv2d(before, 1280, 1, bias=False), nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x):
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        return self.act(self.bn2(self.conv_head(x))).mean((2, 3))


MOBILENET_V2 = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
]
EFFICIENTNET_B0 = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
]
MAKE = {
    "resnet18": lambda: ResNet((2, 2, 2, 2), False),
    "resnet34": lambda: ResNet((3, 4, 6, 3), False),
    "resnet50": lambda: ResNet((3, 4, 6, 3), True),
    "wide_resnet50_2": lambda: ResNet((3, 4, 6, 3), True, widening=2),
    "mobilenetv2_100": lambda: InvertedNetwork(MOBILENET_V2, nn.functional.relu6, False),
    "efficientnet_b0": lambda: InvertedNetwork(EFFICIENTNET_B0, nn.functional.silu, True),
}


def drawn(make, seed=0):
    """Returns a network with drawn weights and statistics, in evaluation."""
    torch.manual_seed(seed)
    network = make()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
    return network.eval()
