"""RESA's modules in PyTorch, written from the formulas of the paper and the released code's settings, for comparison.

Every function takes arrays of the Keras layers as they are, and tensors [batch, channels, height, width].
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional


def kernel(values: np.ndarray) -> torch.Tensor:
    """A convolution's kernel, [height, width, in, out] in Keras."""
    return torch.tensor(np.transpose(values, (3, 2, 0, 1)))


def images(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.transpose(values, (0, 3, 1, 2)))


def back(values: torch.Tensor) -> np.ndarray:
    return np.transpose(values.detach().numpy(), (0, 2, 3, 1))


def resa(x: torch.Tensor, kernels: dict[str, np.ndarray], iterations: int, alpha: float, order: str) -> torch.Tensor:
    """Slices by index, as the recurrence is written: slice i of the next map adds what slice i + s or i - s says."""
    for direction in order:
        for k in range(iterations):
            down = direction in "du"
            length = x.shape[2] if down else x.shape[3]
            stride = length // 2 ** (iterations - k)
            sign = 1 if direction in "dr" else -1
            index = torch.tensor([(i + sign * stride) % length for i in range(length)])
            weight = kernel(kernels[f"{direction}{k}"])
            padding = (0, weight.shape[3] // 2) if down else (weight.shape[2] // 2, 0)
            x = x + alpha * torch.relu(
                functional.conv2d(x.index_select(2 if down else 3, index), weight, padding=padding)
            )
    return x


def convolved(x: torch.Tensor, layer) -> torch.Tensor:
    weight = kernel(layer.kernel.numpy())
    bias = torch.tensor(layer.bias.numpy()) if layer.use_bias else None
    return functional.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))


def normed(x: torch.Tensor, layer) -> torch.Tensor:
    parts = (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    return functional.batch_norm(x, *(torch.tensor(part.numpy()) for part in parts), eps=layer.epsilon)


def non_bottleneck(x: torch.Tensor, layer) -> torch.Tensor:
    y = convolved(torch.relu(convolved(x, layer.conv3x1_1)), layer.conv1x3_1)
    y = torch.relu(normed(y, layer.norm1))
    y = convolved(torch.relu(convolved(y, layer.conv3x1_2)), layer.conv1x3_2)
    return torch.relu(normed(y, layer.norm2) + x)


def busd_block(x: torch.Tensor, block) -> torch.Tensor:
    # A transposed kernel is [height, width, out, in] in Keras and [in, out, height, width] in PyTorch.
    weight = torch.tensor(np.transpose(block.up.kernel.numpy(), (3, 2, 0, 1)))
    bias = torch.tensor(block.up.bias.numpy())
    fine = functional.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    fine = torch.relu(normed(fine, block.up_norm))
    for layer in block.fine:
        fine = non_bottleneck(fine, layer)
    coarse = torch.relu(normed(convolved(x, block.coarse), block.coarse_norm))
    return fine + functional.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)


def busd(x: torch.Tensor, decoder) -> torch.Tensor:
    for block in decoder.blocks:
        x = busd_block(x, block)
    return convolved(x, decoder.logits)


def plain(x: torch.Tensor, decoder) -> torch.Tensor:
    return functional.interpolate(convolved(x, decoder.logits), scale_factor=8, mode="bilinear", align_corners=False)


def exist(x: torch.Tensor, head) -> torch.Tensor:
    """Logits; the released head has a sigmoid behind them."""
    small = functional.avg_pool2d(torch.softmax(convolved(x, head.maps), dim=1), 2)
    dense, logits = (
        (torch.tensor(layer.kernel.numpy().T), torch.tensor(layer.bias.numpy())) for layer in (head.dense, head.logits)
    )
    return functional.linear(torch.relu(functional.linear(small.flatten(1), *dense)), *logits)


def tiny_body(x: torch.Tensor, body) -> torch.Tensor:
    for conv, norm in zip(body.convs, body.norms, strict=True):
        x = torch.relu(normed(functional.conv2d(x, kernel(conv.kernel.numpy()), stride=2, padding=1), norm))
    return x


def network(pixels: np.ndarray, model) -> tuple[np.ndarray, np.ndarray]:
    """Logits of maps and existence of a whole tiny network, for red, green and blue from 0 to 255."""
    mean = np.float32([103.939, 116.779, 123.68])
    x = tiny_body(images(np.ascontiguousarray(pixels[..., ::-1]).astype(np.float32) - mean), model.body)
    x = convolved(x, model.reduced)
    layer = model.resa
    kernels = {name: value.numpy() for name, value in layer.kernels.items()}
    x = resa(x, kernels, layer.iterations, layer.alpha, layer.directions)
    return back(busd(x, model.decoder)), exist(x, model.exist).detach().numpy()
