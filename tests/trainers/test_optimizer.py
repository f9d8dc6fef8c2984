"""SGD: which parameters decay, and two steps worked by hand."""

import pytest
import torch
from torch import nn

from trainers.models.norm import group_norm
from trainers.models.resnet import BasicBlock, resnet
from trainers.optimizer import sgd


def test_norms_and_biases_do_not_decay_unless_asked() -> None:
    net = resnet((1, 1, 1, 1), block=BasicBlock, width=8, num_classes=3, norm=group_norm)
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, rest = sgd(net, lr=0.1, weight_decay=1e-4).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (1e-4, 0)
    assert {names[id(p)] for p in rest["params"]} == {
        name for name in names.values() if "bn" in name or "downsample.1" in name or name == "fc.bias"
    }
    assert len(decayed["params"]) + len(rest["params"]) == len(names)

    (everything,) = sgd(net, lr=0.1, weight_decay=1e-4, decay_norms=True).param_groups
    assert len(everything["params"]) == len(names)


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    (group,) = sgd(net, lr=0.1).param_groups
    assert group["params"] == [net.bias]


@pytest.mark.parametrize(
    ("momentum", "nesterov", "expected"),
    [
        # Gradient of w is 1; d = 1 + 0.5 w; lr 0.1. From w = 2: d = 2.
        (0.0, True, [1.8, 1.61]),  # 1.8 - 0.1 * 1.9
        # v = 2, then v = 0.9 * 2 + (1 + 0.5 * 1.8) = 3.7; w = 1.8 - 0.37
        (0.9, False, [1.8, 1.43]),
        # w = 2 - 0.1 (2 + 0.9 * 2) = 1.62; d = 1.81, v = 3.61, w = 1.62 - 0.1 (1.81 + 0.9 * 3.61)
        (0.9, True, [1.62, 1.1141]),
    ],
)
def test_two_steps_by_hand(momentum: float, nesterov: bool, expected: list[float]) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2)
    optimizer = sgd(net, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.5)
    for value in expected:
        optimizer.zero_grad()
        net(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert net.weight.item() == pytest.approx(value, abs=1e-6)
