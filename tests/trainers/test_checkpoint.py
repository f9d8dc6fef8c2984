"""Checkpoints against a run that never stopped, against damage, and against what must not be in them."""

from __future__ import annotations

import copy
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from sharding.errors import InputError
from trainers.checkpoint import (
    export_weights,
    load_newest_valid,
    load_weights,
    restore,
    save_checkpoint,
    snapshot,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    return layers.to(memory_format=torch.channels_last)


def optimizer_of(model: nn.Module, kind: str) -> Optimizer:
    if kind == "sgd":
        return SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return AdamW(model.parameters(), lr=0.01)


def train(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    model(images).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_restored_state_goes_on_as_if_never_stopped(kind: str, tmp_path: Path) -> None:
    model = network()
    optimizer = optimizer_of(model, kind)
    train(model, optimizer, 1)
    save_checkpoint(str(tmp_path), 1, snapshot(model, optimizer), {"order": "ab"})
    for seed in (2, 3):
        train(model, optimizer, seed)

    other = network()
    other[0].weight.data.zero_()  # type: ignore[operator]
    resumed = optimizer_of(other, kind)
    saved = load_newest_valid(str(tmp_path))
    assert saved is not None
    assert (saved.step, saved.facts) == (1, {"order": "ab"})
    restore(saved, other, resumed)
    for seed in (2, 3):
        train(other, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    moments = [[t for state in o.state.values() for t in state.values()] for o in (optimizer, resumed)]
    assert len(moments[0]) == len(moments[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_snapshot_does_not_follow_the_model() -> None:
    model = network()
    optimizer = optimizer_of(model, "sgd")
    train(model, optimizer, 1)
    state = snapshot(model, optimizer)
    before = copy.deepcopy(state)
    train(model, optimizer, 2)
    assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 10, 15):
        save_checkpoint(str(tmp_path), step, {"model.w": torch.full((4,), float(step))}, {})
    return tmp_path


def test_the_newest_two_are_kept_as_plain_safetensors(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == ["step-00000010", "step-00000015"]
    names = {p.name.rpartition(".")[2] for p in folder.rglob("*") if p.is_file()}
    assert names == {"json", "safetensors"}  # nothing that a reader would unpickle
    with safe_open(next(folder.glob("step-00000015/*.safetensors")), "pt") as file:  # type: ignore[no-untyped-call]
        assert file.get_tensor("model.w").tolist() == [15.0] * 4


@pytest.mark.parametrize("damage", ["flip", "cut", "lost", "manifest"])
def test_damaged_newest_falls_back_with_a_warning(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    newest = folder / "step-00000015"
    data = next(newest.glob("*.safetensors"))
    if damage == "flip":
        content = bytearray(data.read_bytes())
        content[-1] ^= 1
        data.write_bytes(bytes(content))
    elif damage == "cut":
        os.truncate(data, 9)
    elif damage == "lost":
        data.unlink()
    else:
        (newest / "manifest.json").write_text('{"step": 15')
    with caplog.at_level(logging.WARNING):
        found = load_newest_valid(str(folder))
    assert found is not None
    assert found.step == 10
    assert "step-00000015 is damaged" in caplog.text


def test_unfinished_checkpoints_are_no_checkpoints_and_are_swept(folder: Path) -> None:
    os.rename(folder / "step-00000015", folder / "step-00000020.tmp-abcd")
    found = load_newest_valid(str(folder))
    assert found is not None
    assert found.step == 10
    save_checkpoint(str(folder), 15, {"model.w": torch.zeros(1)}, {})
    assert sorted(os.listdir(folder)) == ["step-00000010", "step-00000015"]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert load_newest_valid(str(tmp_path / "absent")) is None


def test_exported_weights_come_back(tmp_path: Path) -> None:
    model = network()
    export_weights(str(tmp_path), model, {"labels": ["猫", "dog"]})
    weights, card = load_weights(str(tmp_path))
    assert card == {"labels": ["猫", "dog"]}
    expected: dict[str, Tensor] = model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert load_weights(str(tmp_path / "model.safetensors"))[0].keys() == expected.keys()


def test_weights_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_weights(str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="is not finished"):
        load_weights(str(tmp_path))
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_weights(str(tmp_path / "page.safetensors"))
