"""Norm layers against torch's own, a vector worked by hand, and the laws that tell them apart."""

import pytest
import torch
from torch import nn

from trainers.models.norm import batch_norm, frozen_batch_norm, group_norm, sync_batch_norm


def test_group_norm_vector() -> None:
    """x = 1..64 as (2, 8, 2, 2) in 4 groups: each group is 8 consecutive numbers, so (i - 3.5) / sqrt(5.25 + 1e-5)."""
    out = group_norm(8, groups=4)(torch.arange(1.0, 65).view(2, 8, 2, 2))
    expected = ((torch.arange(8) - 3.5) / (5.25 + 1e-5) ** 0.5).repeat(8).view(2, 8, 2, 2)
    torch.testing.assert_close(out, expected)
    assert out[0, 0].flatten().tolist() == pytest.approx([-1.527524, -1.091089, -0.654653, -0.218218], abs=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (2048, 32), (48, 16), (8, 8), (7, 1)])
def test_group_norm_rule(channels: int, groups: int) -> None:
    x = torch.randn(2, channels, 3, 5, dtype=torch.float64)
    layer = group_norm(channels).double()
    expected = nn.functional.group_norm(x, groups, eps=1e-5)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    if groups == channels:
        torch.testing.assert_close(layer(x), nn.functional.instance_norm(x), rtol=0, atol=1e-12)
    if groups == 1:
        torch.testing.assert_close(layer(x), nn.functional.layer_norm(x, x.shape[1:]), rtol=0, atol=1e-12)


def test_batch_independence() -> None:
    """Group norm of a batch is that of its halves; batch norm in training is not."""
    a, b = torch.randn(2, 32, 4, 4), torch.randn(2, 32, 4, 4) * 3 + 1
    both = torch.cat([a, b])
    group, batch = group_norm(32), batch_norm(32)
    assert torch.equal(group(both), torch.cat([group(a), group(b)]))
    assert not torch.allclose(batch(both), torch.cat([batch(a), batch(b)]), atol=0.1)


def test_frozen_batch_norm_is_batch_norm_in_evaluation() -> None:
    trained = batch_norm(6)
    for tensor in trained.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    frozen = frozen_batch_norm(6)
    frozen.load_state_dict(trained.state_dict())  # strict, so the keys are the same
    x = torch.randn(3, 6, 4, 4)
    torch.testing.assert_close(frozen.train()(x), trained.eval()(x))
    assert list(frozen.parameters()) == []


def test_sync_batch_norm_in_one_process_is_batch_norm() -> None:
    x = torch.randn(4, 6, 3, 3)
    torch.testing.assert_close(sync_batch_norm(6)(x), batch_norm(6)(x))
