"""Every recipe: its tiny copy trains two steps, its numbers are the paper's."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.fit import Regime
from trainers.help import list_recipes
from trainers.probe import Probe
from trainers.recipes import hashtag_resnet18, hashtag_resnext101_32x8d, imagenet_transfer
from trainers.run_folder import read_metrics

NAMES = [name for name, _ in list_recipes()]


@pytest.mark.parametrize("name", NAMES)
def test_tiny_copy_trains(name: str, tag_shards: str, class_shards: str, tmp_path: Path) -> None:
    recipe = importlib.import_module(f"trainers.recipes.{name}").tiny()
    shards = tag_shards if name.startswith("hashtag") else class_shards
    recipe = replace(recipe, shards=shards, output=str(tmp_path / "run"))
    if hasattr(recipe, "test_shards"):
        recipe = replace(recipe, test_shards=class_shards)
    if isinstance(recipe, Probe):
        pretrained = replace(hashtag_resnet18.tiny(), shards=tag_shards, output=str(tmp_path / "pretrained"))
        pretrained.run("pretrained")
        recipe = replace(recipe, weights=pretrained.output)
    assert recipe.run(name) == "finished"
    lines = read_metrics(recipe.output)
    steps = [line["step"] for line in lines if "order" in line]
    assert steps == ([1, 2] if isinstance(recipe, Regime) else [])
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert {p.name for p in Path(recipe.output).iterdir()} >= {"report.html", "model.safetensors", "model.json"}


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_command_hardware_and_numbers(name: str) -> None:
    doc = importlib.import_module(f"trainers.recipes.{name}").__doc__
    assert all(word in doc for word in ("Command:", "Hardware:", "Expected:", "Measured:"))


def test_paper_scale_is_the_papers() -> None:
    recipe = hashtag_resnext101_32x8d.recipe()
    with torch.device("meta"):
        counts = [sum(p.numel() for p in recipe.model(num_classes=c).parameters()) for c in (1000, 1500)]
    assert counts == [
        88_791_336,
        88_791_336 + 500 * 2049,
    ]  # image_detection.md 7.1; a label more is 2048 weights and a bias
    assert recipe.batch_size == 336 * 24
    assert recipe.lr == pytest.approx(0.1 * recipe.batch_size / 256)
    assert recipe.steps * recipe.batch_size == pytest.approx(2 * 940e6, rel=1e-4)
    rates = [recipe.lr * recipe.schedule(step, recipe.steps) for step in (0, recipe.steps // 15 - 1, recipe.steps - 1)]
    assert rates == pytest.approx([0.1, 3.15, 3.15 * 0.5**14])
    assert imagenet_transfer.recipe().model is recipe.model
