"""ResNets against torchvision's networks, the published counts, and the identity that a fresh block is."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision.models as vision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sharding.errors import InputError
from trainers.models.norm import frozen_batch_norm, group_norm
from trainers.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet,
    resnet18,
    resnet50,
    resnet101,
    resnet152,
    resnext101_32x4d,
    resnext101_32x8d,
    resnext101_32x16d,
    resnext101_32x32d,
    resnext101_32x48d,
)


@pytest.mark.parametrize(
    ("model", "parameters", "giga_macs"),
    [
        (resnet50, 25_557_032, 4.089),
        (resnet101, 44_549_160, 7.801),
        (resnet152, 60_192_808, 11.514),
        (resnext101_32x4d, 44_177_704, 7.970),
        (resnext101_32x8d, 88_791_336, 16.414),
        (resnext101_32x16d, 194_026_792, 36.163),
        (resnext101_32x32d, 468_530_472, 87.107),
        (resnext101_32x48d, 828_411_176, 153.310),
        (partial(resnet152, groups=32, width_per_group=8), 122_372_392, 24.384),
    ],
)
def test_published_size(model: Callable[..., ResNet], parameters: int, giga_macs: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = model()
        net(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=0.00051)


@pytest.mark.parametrize(
    ("model", "labels", "parameters"),
    [
        (resnext101_32x16d, 1_500, 195_051_292),
        (resnext101_32x16d, 8_500, 209_394_292),
        (resnext101_32x16d, 17_000, 226_810_792),
        (resnext101_32x48d, 17_000, 861_195_176),
    ],
)
def test_hashtag_vocabularies(model: Callable[..., ResNet], labels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in model(num_classes=labels).parameters()) == parameters


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (resnet18, vision.resnet18),
        (resnet50, vision.resnet50),
        (partial(resnet50, groups=32, width_per_group=4), vision.resnext50_32x4d),
    ],
)
def test_equals_torchvision(ours: Callable[..., ResNet], theirs: Callable[..., nn.Module]) -> None:
    """Same weights, same logits, features and gradients, in training (batch statistics) and in evaluation."""
    torch.manual_seed(0)
    reference = theirs(num_classes=7).double()
    for name, tensor in reference.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            tensor.copy_(torch.rand_like(tensor.double()) + 0.5)
    net = ours(num_classes=7).double()
    net.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for training in (False, True):
        expected, logits = reference.train(training)(images), net.train(training)(images)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.head(net.eval().features(images)), reference.eval()(images), rtol=1e-9, atol=1e-9)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = dict(reference.named_parameters())
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-6, atol=1e-7)


def test_group_norm_resnet50_has_no_buffers() -> None:
    with torch.device("meta"):
        net = resnet50(norm=group_norm)
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    assert list(net.buffers()) == []
    assert sum(isinstance(m, nn.GroupNorm) for m in net.modules()) == 53


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_fresh_block_is_the_identity(block: type[BasicBlock] | type[Bottleneck]) -> None:
    x = torch.rand(2, 8 * block.expansion, 4, 4)  # after a ReLU, so not negative
    fresh = resnet((2, 1, 1, 1), block=block, width=8).layer1[1]
    assert torch.equal(fresh(x), x)
    other = resnet((2, 1, 1, 1), block=block, width=8, zero_init=False).layer1[1]
    assert not torch.allclose(other(x), x)


def test_frozen_gamma_does_not_start_at_zero() -> None:
    """A frozen gamma of 0 would cut its branch off for ever."""
    net = resnet((1, 1, 1, 1), block=BasicBlock, width=8, norm=frozen_batch_norm)
    assert all(
        torch.equal(m.last_norm().weight, torch.ones(m.last_norm().weight.shape))
        for m in net.modules()
        if isinstance(m, BasicBlock)
    )


def test_small_stem_and_width() -> None:
    """The small stem halves 64 pixels once, the stages three times more; width 16 ends in 128 features."""
    net = resnet18(width=16, stem="small", num_classes=5)
    sizes: list[tuple[int, ...]] = []
    net.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape)))
    images = torch.randn(2, 3, 64, 64)
    assert net.features(images).shape == (2, 128)
    assert net(images).shape == (2, 5)
    assert sizes[0] == (2, 128, 4, 4)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(resnet, (3, 4, 6)), r"4 counts.*\(3, 4, 6\)"),
        (partial(resnet18, groups=32), "groups 1.*not 32"),
        (partial(resnet50, stem="cifar"), "'cifar'"),
        (partial(resnext101_32x4d, width=24), "24 .* next width that fits is 32"),
    ],
)
def test_refusals(build: Callable[[], ResNet], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build()
