"""The 1/k loss against torch's cross-entropy, and what is held out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharding.errors import InputError
from sharding.plan import open_plan
from sharding.stream import read_samples
from trainers.fit import Place, fit
from trainers.pretrain import tag_cross_entropy
from trainers.recipes import hashtag_resnet18
from trainers.run_folder import read_metrics

CPU = Place(0, 1, torch.device("cpu"))


def test_loss_and_gradient_are_those_of_probability_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 9, generator=generator, requires_grad=True)
    labels = torch.tensor([[0, -1, -1], [3, 8, -1], [1, 2, 7], [8, -1, -1], [0, 4, -1]])
    targets = torch.zeros(5, 9)
    for row, ids in zip(targets, labels.tolist(), strict=True):
        present = [label for label in ids if label >= 0]
        row[present] = 1 / len(present)
    ours, theirs = tag_cross_entropy(logits, labels), F.cross_entropy(logits, targets)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(gradient, (logits.softmax(1) - targets).detach() / 5)


@pytest.mark.parametrize(("classes", "loss"), [(1500, 7.3132), (8500, 9.0478), (17000, 9.7410)])
def test_zero_logits_give_the_logarithm_of_the_classes(classes: int, loss: float) -> None:
    found = float(tag_cross_entropy(torch.zeros(2, classes), torch.tensor([[3, 5], [7, -1]])))
    assert found == pytest.approx(loss, abs=1e-4)
    assert found == pytest.approx(math.log(classes), rel=1e-6)


def test_the_least_loss_is_the_logarithm_of_the_tags() -> None:
    logits = torch.full((1, 10), -50.0)
    logits[0, [2, 4, 6]] = 50.0
    assert float(tag_cross_entropy(logits, torch.tensor([[2, 4, 6]]))) == pytest.approx(math.log(3), rel=1e-5)


def test_training_and_hold_out_share_no_photo_and_miss_none(tag_shards: str) -> None:
    run = replace(hashtag_resnet18.tiny(), shards=tag_shards)
    train, held = run.open_plan(), run.holdout_plan()
    assert held is not None
    keys = [
        {s.key for s in read_samples(plan, plan.in_order(0, plan.samples_per_pass), ["json"])} for plan in (train, held)
    ]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 96
    assert len(keys[1]) == 19  # a fifth of 96


def test_hold_out_without_a_photo_is_refused_before_the_first_step(tag_shards: str, tmp_path: Path) -> None:
    run = replace(hashtag_resnet18.tiny(), shards=tag_shards, output=str(tmp_path / "run"), holdout=0.001)
    with pytest.raises(InputError):
        fit(run)
    assert not (tmp_path / "run").exists()


class Constant(nn.Module):
    """Always the same scores, whatever the photo."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.arange(num_classes, 0, -1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(images), -1)


def test_evaluation_of_a_constant_answer_counts_the_labels(class_shards: str, tag_shards: str) -> None:
    run = replace(hashtag_resnet18.tiny(), shards=class_shards, holdout=0.5)
    held = run.holdout_plan()
    assert held is not None
    samples = read_samples(held, held.in_order(0, 48), ["cls"])
    share = sum(s.members["cls"] == b"0" for s in samples) / 48  # the constant answer is class 0
    result = run.score(Constant(4), held, CPU, "holdout")
    assert result.metrics["holdout_top_1"] == pytest.approx(share)
    assert result.metrics["holdout_top_5"] == 1.0
    assert result.per_label["circle"] == 1.0
    assert result.per_label["square"] == 0.0

    run = replace(run, shards=tag_shards)
    held = run.holdout_plan()
    assert held is not None
    tags = [json.loads(s.members["tags.json"]) for s in read_samples(held, held.in_order(0, 48), ["tags.json"])]
    result = run.score(Constant(6), held, CPU, "holdout")
    assert result.metrics["holdout_precision@1"] == pytest.approx(sum(0 in t for t in tags) / 48)
    # equal scores enter together, so each tag's average precision is its share of the photos
    shares = [sum(label in t for t in tags) / 48 for label in range(6)]
    assert result.metrics["holdout_mAP"] == pytest.approx(sum(shares) / 6)


def test_training_lowers_the_loss(tag_shards: str, tmp_path: Path) -> None:
    run = replace(
        hashtag_resnet18.tiny(), shards=tag_shards, output=str(tmp_path), steps=60, batch_size=16, lr=0.05, log_every=20
    )
    fit(run, "tiny")
    losses = [line["loss"] for line in read_metrics(str(tmp_path)) if "order" in line]
    assert losses[-1] < losses[0] - 0.1
    page = (tmp_path / "report.html").read_text()
    assert "holdout mAP" in page
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["labels"] == ["circle", "cross", "square", "stripe", "love", "photo"]
    assert card["preprocessing"]["size"] == 32
    assert open_plan(tag_shards).vocabulary[5].name == "photo"
