"""Runs that are killed, stopped and resumed against one that is not; what stops a run; what refuses one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from sharding.errors import InputError
from sharding.plan import open_plan
from trainers import checkpoint as checkpoints
from trainers.fit import Place, autocast, chained, check_shares, fit, hashed, normalise
from trainers.recipes import hashtag_resnet18
from trainers.run_folder import TIMING, read_metrics

# A network with a norm, dropout and pauses: what a resumed run must repeat, at a pace at which it can be interrupted.
RECIPE = """
import time
from dataclasses import replace
from torch import nn
from trainers.recipes import hashtag_resnet18

class Paused(nn.Module):
    def forward(self, x):
        time.sleep(0.02 if self.training else 0)
        return x

def model(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(128, num_classes), Paused())

def recipe():
    return replace(hashtag_resnet18.tiny(), model=model, steps=48, log_every=3, checkpoint_every=5, evaluate_every=16)
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "paused.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def start(recipe_file: str, tag_shards: str) -> Any:
    """Starts the command in a process of its own."""

    def start(output: Path, ranks: int = 1) -> subprocess.Popen[str]:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *run, "-m", "trainers", recipe_file, "--shards", tag_shards, "--output", str(output)]
        # one thread: sums of floats on one rank are then the same on any machine that the test shares
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="module")
def unbroken(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    process = start(output)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def stop_at(process: subprocess.Popen[str], output: Path, step: int, number: signal.Signals) -> tuple[int, str]:
    """Send a signal once metrics.jsonl shows the step; returns the exit code and stderr."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(line["step"] >= step for line in read_metrics(str(output))):
            process.send_signal(number)
            break
        time.sleep(0.01)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def record(output: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(str(output))]


def tensors(folder: Path) -> dict[str, bytes]:
    """Every tensor of the newest checkpoint, of model and optimizer, as bytes."""
    newest = checkpoints.load_newest_valid(str(folder))
    assert newest is not None
    files = [load_file(path) for path in Path(newest.path).glob("*.safetensors")]
    return {name: tensor.numpy().tobytes() for file in files for name, tensor in file.items()}


def test_killed_run_ends_in_the_same_bytes(start: Any, unbroken: Path, tmp_path: Path) -> None:
    output, step = tmp_path / "killed", random.randrange(3, 25)
    code, _ = stop_at(start(output), output, step, signal.SIGKILL)
    assert code == -signal.SIGKILL, f"at step {step}"
    process = start(output)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert record(output) == record(unbroken), f"killed at step {step}"
    assert (output / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    found, expected = tensors(output / "checkpoints"), tensors(unbroken / "checkpoints")
    assert found == expected, f"killed at step {step}"
    assert sum(name.endswith("momentum_buffer") for name in found) == 6
    assert [line["step"] for line in record(output) if "order" not in line] == [16, 32, 48]


def test_ctrl_c_then_sigterm_then_two_ranks_see_the_same_order(start: Any, unbroken: Path, tmp_path: Path) -> None:
    output = tmp_path / "stopped"
    code, errors = stop_at(start(output), output, 6, signal.SIGINT)
    assert code == 130
    first = checkpoints.load_newest_valid(str(output / "checkpoints"))
    assert first is not None
    assert 6 <= first.step < 48
    assert f"interrupted at step {first.step}; the same command goes on from here" in errors
    code, errors = stop_at(start(output), output, 18, signal.SIGTERM)
    assert code == 0, errors
    assert f"goes on from step {first.step} of 48" in errors
    assert not (output / "model.json").exists()
    process = start(output, ranks=2)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    orders = {line["step"]: line["order"] for line in record(output) if "order" in line}
    assert orders == {line["step"]: line["order"] for line in record(unbroken) if "order" in line}
    # the norm's statistics are per rank, so the losses of the second part differ, but not by much
    losses = [[line["loss"] for line in record(o) if "order" in line] for o in (output, unbroken)]
    np.testing.assert_allclose(*losses, rtol=0.2)


def test_order_is_that_of_the_plan_and_ignores_the_order_inside_a_batch(unbroken: Path, tag_shards: str) -> None:
    fields = json.loads((unbroken / "run.json").read_text())["fields"]
    plan = open_plan(tag_shards, seed=int(fields["seed"]), part=(0.0, 0.8))
    from sharding.stream import read_samples

    order = "0" * 16
    for step in range(3):
        positions = np.arange(8 * step, 8 * step + 8)[::-1]
        samples = read_samples(plan, plan.at(positions), extensions=["tags.json"])
        total = sum(hashed(int(p), s.key) for p, s in zip(positions, samples, strict=True))
        order = chained(order, total % 2**64)
    assert record(unbroken)[0]["order"] == order


def test_finished_run_is_left_alone(unbroken: Path, start: Any) -> None:
    before = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*") if p.is_file()}
    process = start(unbroken)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "is finished (48 steps): nothing to do" in errors
    assert {p: p.stat().st_mtime_ns for p in unbroken.rglob("*") if p.is_file()} == before


@pytest.fixture
def small(tag_shards: str, tmp_path: Path) -> Any:
    return replace(hashtag_resnet18.tiny(), shards=tag_shards, output=str(tmp_path / "run"))


def test_other_options_are_named(small: Any) -> None:
    fit(small)
    with pytest.raises(InputError, match=r"lr was 0\.01, now 0\.5, seed was 0, now 3"):
        fit(replace(small, lr=0.5, seed=3))
    assert fit(replace(small, threads=2, checkpoint_every=1)) == "finished"  # these change nothing that is computed


def test_folder_of_something_else_is_refused(small: Any) -> None:
    os.makedirs(small.output)
    Path(small.output, "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds letter\.txt"):
        fit(small)
    assert os.listdir(small.output) == ["letter.txt"]


def test_changed_data_is_refused_unless_allowed(small: Any, tag_shards: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tag_shards, copy)
    run = replace(small, shards=str(copy))
    fit(run)
    os.remove(Path(run.output, "model.json"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["fingerprint"] = "0" * 32
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="--allow-data-change"):
        fit(run)
    assert fit(replace(run, allow_data_change=True)) == "finished"


class Exploding(nn.Module):
    """A linear network whose third training step overflows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits * (float("inf") if self.calls == 3 else 1.0)


def test_a_loss_that_is_no_number_stops_before_the_update(small: Any, tag_shards: str) -> None:
    run = replace(small, model=Exploding, steps=5, checkpoint_every=1)
    with pytest.raises(InputError, match="at step 2 it is") as caught:
        fit(run)
    bundle = np.load(Path(run.output, "replay-00000002", "batch-0.npz"), allow_pickle=False)
    keys = bundle["keys"].tolist()
    assert len(keys) == 8
    assert all(key in str(caught.value) for key in keys[:4])
    assert "shard-00000" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert bundle["images"].shape == (8, 32, 32, 3)
    plan = open_plan(tag_shards, seed=0, part=(0.0, 0.8))
    assert bundle["positions"].tolist() == plan.positions(16, 24).tolist()
    before = checkpoints.load_newest_valid(str(Path(run.output, "checkpoints")))
    replay = checkpoints.load_newest_valid(str(Path(run.output, "replay-00000002")))
    assert before is not None
    assert replay is not None
    assert before.step == replay.step == 2
    states = [tensors(Path(run.output, folder)) for folder in ("checkpoints", "replay-00000002")]
    assert states[0] == states[1]


def test_ranks_that_cannot_share_are_refused(small: Any, tag_shards: str) -> None:
    plan = open_plan(tag_shards)
    check_shares(small, plan, Place(0, 4, torch.device("cpu")))
    with pytest.raises(InputError, match=r"found 3, possible: 1, 2, 4, 8\."):
        check_shares(small, plan, Place(0, 3, torch.device("cpu")))


def test_pixels_are_normalised_as_torchvision_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    ours = normalise(pixels, torch.device("cpu"))
    theirs = normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def place() -> Place:
    return Place(0, 1, torch.device("cpu"))


def test_cpu_computes_in_float32_unless_asked(small: Any, place: Place) -> None:
    x = torch.ones(2, 2)
    with autocast(small, place):
        assert (x @ x).dtype == torch.float32
    with autocast(replace(small, precision="bfloat16"), place):
        assert (x @ x).dtype == torch.bfloat16
