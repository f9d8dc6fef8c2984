"""The normalisation layers a backbone can be built with; the papers differ in this one argument.

| function          | statistics over             | use                                                           |
|-------------------|-----------------------------|---------------------------------------------------------------|
| batch_norm        | the images of one process   | classification with 16 or more images per process             |
| sync_batch_norm   | the images of all processes | few images per GPU (Rethinking ImageNet pre-training, sec. 3) |
| group_norm        | one image                   | any batch size (Wu & He 2018)                                 |
| frozen_batch_norm | none: constants             | fine-tuning a detector from pre-trained weights               |
"""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Makes the layer for a number of channels."""


def batch_norm(channels: int) -> nn.Module:
    """Batch norm over (N, H, W)."""
    return nn.BatchNorm2d(channels)


def sync_batch_norm(channels: int) -> nn.Module:
    """Batch norm over (N, H, W) of all processes; needs GPUs as soon as there are several processes."""
    return nn.SyncBatchNorm(channels)


def group_norm(channels: int, groups: int = 32) -> nn.Module:
    """Group norm (Wu & He 2018, sec. 3); the layer has gcd(groups, channels) groups.

    So 64 channels have 32 groups as in the paper, 48 channels have 16, and 8 channels have 8, which is instance norm.
    """
    return nn.GroupNorm(gcd(groups, channels), channels)


def frozen_batch_norm(channels: int) -> nn.Module:
    """Batch norm as a fixed affine map: statistics, gamma and beta are buffers, so no optimizer sees them."""
    return _FrozenBatchNorm(channels)


class _FrozenBatchNorm(nn.Module):
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # Never read: it makes the keys those of batch norm, so that weights load both ways.
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)  # (N, C, H, W)
