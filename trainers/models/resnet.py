"""ResNet and ResNeXt, the trunk of every image system here (He et al. 2016; Xie et al. 2017; Mahajan et al. 2018, WSL).

The stride of a bottleneck lies on its 3x3 convolution, and parameters are named as in torchvision, whose weights load as
they are. `resnet50` and the others are `resnet` with its first arguments filled in, so a recipe writes
`partial(resnet50, norm=group_norm)`; `partial(resnet18, width=16, stem="small")` suits a laptop and 64-pixel crops.
Input: float images (N, 3, H, W), normalised.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from sharding.errors import InputError
from trainers.models.norm import Norm, batch_norm

STAGES = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut: (N, in_channels, H, W) -> (N, channels, H/stride, W/stride)."""

    expansion: ClassVar[int] = 1

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, norm: Norm, groups: int, width_per_group: int
    ) -> None:
        super().__init__()
        if groups != 1 or width_per_group != 64:
            raise InputError(
                f"A basic block has groups 1 and width_per_group 64, not {groups} and {width_per_group}; "
                "use block=Bottleneck, or width for a narrower net."
            )
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride, norm)

    def last_norm(self) -> nn.Module:
        """The norm whose gamma starts at 0."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(out + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (with stride and groups), 1x1: (N, in_channels, H, W) -> (N, 4 channels, H/stride, W/stride)."""

    expansion: ClassVar[int] = 4

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, norm: Norm, groups: int, width_per_group: int
    ) -> None:
        super().__init__()
        inner = channels * width_per_group // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = norm(inner)
        self.conv3 = nn.Conv2d(inner, channels * self.expansion, 1, bias=False)
        self.bn3 = norm(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride, norm)

    def last_norm(self) -> nn.Module:
        """The norm whose gamma starts at 0."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(out + shortcut)
        return out


def _shortcut(in_channels: int, channels: int, stride: int, norm: Norm) -> nn.Sequential | None:
    """A projection where the shape changes, else nothing (He et al. 2016, option B)."""
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), norm(channels))


class ResNet(nn.Module):
    """`head(features(images))`: pooled features (N, C), then logits (N, num_classes)."""

    def __init__(
        self,
        blocks: Sequence[int],
        block: type[BasicBlock] | type[Bottleneck],
        num_classes: int,
        norm: Norm,
        groups: int,
        width_per_group: int,
        width: int,
        stem: Literal["imagenet", "small"],
        zero_init: bool,
    ) -> None:
        super().__init__()
        kernel = {"imagenet": 7, "small": 3}[stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()

        channels = width
        stages: list[nn.Sequential] = []
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(
                    block(
                        channels,
                        width << stage,
                        stride=stride,
                        norm=norm,
                        groups=groups,
                        width_per_group=width_per_group,
                    )
                )
                channels = (width << stage) * block.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, num_classes)
        self._initialise(zero_init)

    @property
    def head(self) -> nn.Linear:
        """The classifier, called `fc` in a state dict as in torchvision."""
        return self.fc

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> features (N, C), the mean over all positions of the last stage."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, C, H/32, W/32); H/16, W/16 for the small stem
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits

    def _initialise(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck) and zero_init:
                # Each block starts as the identity (Goyal et al. 2017, sec. 5.1). A frozen norm could never leave 0.
                gamma = module.last_norm().weight
                if isinstance(gamma, nn.Parameter):
                    nn.init.zeros_(gamma)
        nn.init.normal_(self.fc.weight, std=0.01)  # Goyal et al. 2017, sec. 5.1
        nn.init.zeros_(self.fc.bias)


def resnet(
    blocks: Sequence[int],
    *,
    block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
    num_classes: int = 1000,
    norm: Norm = batch_norm,
    groups: int = 1,
    width_per_group: int = 64,
    width: int = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    zero_init: bool = True,
) -> ResNet:
    """A ResNet of four stages.

    Args:
        blocks: number of blocks in each of the four stages.
        groups, width_per_group: ResNeXt's cardinality and channels of one group in the first stage, at width 64.
        width: channels of the stem and the first stage; each later stage doubles them.
        stem: "imagenet" is 7x7 with stride 2 and a max-pool (stride 4 in all); "small" is 3x3 with stride 2 alone.
        zero_init: gamma of the last norm of each block starts at 0.

    Raises:
        InputError: other than four stages, an unknown stem, or groups asked of basic blocks.
    """
    if len(blocks) != STAGES or min(blocks) < 1:
        raise InputError(
            f"blocks must be {STAGES} counts of at least 1, not {tuple(blocks)}; ResNet-50 is (3, 4, 6, 3)."
        )
    if stem not in ("imagenet", "small"):
        raise InputError(f'stem must be "imagenet" or "small", not {stem!r}.')
    if width * width_per_group % 64:
        raise InputError(
            f"width * width_per_group must be a multiple of 64, not {width} * {width_per_group}; "
            f"the next width that fits is {next(w for w in range(width, width + 65) if w * width_per_group % 64 == 0)}."
        )
    return ResNet(blocks, block, num_classes, norm, groups, width_per_group, width, stem, zero_init)


resnet18 = partial(resnet, (2, 2, 2, 2), block=BasicBlock)
resnet34 = partial(resnet, (3, 4, 6, 3), block=BasicBlock)
resnet50 = partial(resnet, (3, 4, 6, 3))
resnet101 = partial(resnet, (3, 4, 23, 3))
resnet152 = partial(resnet, (3, 8, 36, 3))

# WSL, sec. 2.2: the cardinality stays 32, the width of a group grows.
resnext101_32x4d = partial(resnet101, groups=32, width_per_group=4)
resnext101_32x8d = partial(resnet101, groups=32, width_per_group=8)
resnext101_32x16d = partial(resnet101, groups=32, width_per_group=16)
resnext101_32x32d = partial(resnet101, groups=32, width_per_group=32)
resnext101_32x48d = partial(resnet101, groups=32, width_per_group=48)
