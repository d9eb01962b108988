"""The network of `lane_speed.py` in PyTorch, from the paper's formulas: dilated ResNet, RESA, BUSD, existence."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS, CHANNELS, ITERATIONS = (64, 128, 256, 512), 128, 5


class Block(nn.Module):
    """A basic block."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, dilation, dilation, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.shortcut = None
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum of shortcut and branch."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def stage(inputs: int, width: int, blocks: int, stride: int, first: int, dilation: int) -> nn.Sequential:
    """Returns the blocks of a stage; the first one keeps the dilation of the stage before."""
    found = [Block(inputs, width, stride, first)]
    return nn.Sequential(*found, *(Block(width, width, 1, dilation) for _ in range(blocks - 1)))


class Resa(nn.Module):
    """Slices moved, convolved and added."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"d": (1, 9), "u": (1, 9), "r": (9, 1), "l": (9, 1)}
        self.convs = nn.ModuleDict(
            {
                f"{name}{k}": nn.Conv2d(CHANNELS, CHANNELS, shape, padding=(shape[0] // 2, shape[1] // 2), bias=False)
                for name, shape in shapes.items()
                for k in range(ITERATIONS)
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the shape of x."""
        for name in "durl":
            axis, sign = (2 if name in "du" else 3), (-1 if name in "dr" else 1)
            for k in range(ITERATIONS):
                moved = torch.roll(x, sign * (x.shape[axis] // 2 ** (ITERATIONS - k)), axis)
                x = x + 2.0 * torch.relu(self.convs[f"{name}{k}"](moved))
        return x


class NonBottleneck(nn.Module):
    """Two pairs of 3x1 and 1x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        shapes = [(3, 1), (1, 3), (3, 1), (1, 3)]
        self.convs = nn.ModuleList(nn.Conv2d(width, width, s, padding=(s[0] // 2, s[1] // 2)) for s in shapes)
        self.norm1, self.norm2 = nn.BatchNorm2d(width, 1e-3), nn.BatchNorm2d(width, 1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the shape of x."""
        y = torch.relu(self.norm1(self.convs[1](torch.relu(self.convs[0](x)))))
        return torch.relu(x + self.norm2(self.convs[3](torch.relu(self.convs[2](y)))))


class Up(nn.Module):
    """A block of the bilateral decoder."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, width, 3, 2, 1, 1)
        self.norm, self.coarse_norm = nn.BatchNorm2d(width, 1e-3), nn.BatchNorm2d(width, 1e-3)
        self.fine = nn.Sequential(NonBottleneck(width), NonBottleneck(width))
        self.coarse = nn.Conv2d(inputs, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns twice the rows and columns."""
        fine = self.fine(torch.relu(self.norm(self.up(x))))
        coarse = torch.relu(self.coarse_norm(self.coarse(x)))
        return fine + functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)


class LaneNet(nn.Module):
    """The whole network for images [batch, 3, height, width].

    Args:
        depth: 18 or 34.
        size: Height and width of the images.
        classes: Background and lanes.
    """

    def __init__(self, depth: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        blocks = STAGES[depth]
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential(
            stage(64, WIDTHS[0], blocks[0], 1, 1, 1),
            stage(WIDTHS[0], WIDTHS[1], blocks[1], 2, 1, 1),
            stage(WIDTHS[1], WIDTHS[2], blocks[2], 1, 1, 2),
            stage(WIDTHS[2], WIDTHS[3], blocks[3], 1, 2, 4),
        )
        self.reduced, self.resa = nn.Conv2d(WIDTHS[3], CHANNELS, 1, bias=False), Resa()
        self.decoder = nn.Sequential(Up(128, 64), Up(64, 32), Up(32, 16), nn.Conv2d(16, classes, 1, bias=False))
        self.maps = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(CHANNELS, classes, 1))
        flat = classes * (size[0] // 16) * (size[1] // 16)
        self.dense = nn.Sequential(nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, classes - 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits of maps and of existence."""
        features = self.resa(self.reduced(self.stages(self.stem(images))))
        small = functional.avg_pool2d(torch.softmax(self.maps(features), 1), 2)
        return self.decoder(features), self.dense(small.flatten(1))
