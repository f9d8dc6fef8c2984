"""Pretraining on images with hashtags or classes: softmax with 1/k on each of an image's k labels (WSL, sec. 2.2).

The samples are one sequence sorted by hashed keys, so its last part is a random hold-out by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sharding.images import Batch, evaluation_batches, train_batches
from sharding.plan import Plan, open_plan
from trainers.evaluate.classify import average_precision, precision_at_k, top_k_accuracy
from trainers.fit import MEAN, STD, Evaluation, Place, Records, Regime, normalise

# Scores of a larger evaluation are not kept, so it has no average precision: 50 million floats are 200 MB on each rank.
_MAX_SCORES = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Pretrain(Regime):
    """Learn the labels of the shards from scratch."""

    image_size: int = 224
    """Side of the square crop in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image that a training crop takes."""
    holdout: float = 0.0
    """Share of the samples that is kept out of training and evaluated on."""
    loader: Literal["auto", "cpu", "dali"] = "auto"
    """What decodes: libjpeg-turbo or DALI; auto is DALI where there is a GPU."""

    def open_plan(self) -> Plan:
        """The training part; a hold-out too small to hold a sample is refused here, before the first step."""
        self.holdout_plan()
        return open_plan(self.shards, seed=self.seed, lanes=self.lanes, part=(0.0, 1.0 - self.holdout))

    def holdout_plan(self) -> Plan | None:
        """The samples kept out, in the order of their keys."""
        if self.holdout == 0:
            return None
        return open_plan(self.shards, part=(1.0 - self.holdout, 1.0))

    def batches(self, plan: Plan, start_step: int, stop_step: int, place: Place) -> Iterator[Records]:
        """Random-resized-cropped and flipped images."""
        return cast(
            Iterator[Records],
            train_batches(
                plan,
                batch_size=self.batch_size,
                size=self.image_size,
                start_step=start_step,
                stop_step=stop_step,
                rank=place.rank,
                world_size=place.world_size,
                threads=self.threads,
                loader=self.loader,
                scale=self.crop_scale,
            ),
        )

    def loss(self, model: nn.Module, batch: Records, device: torch.device) -> Tensor:
        """Cross-entropy with 1/k on each label."""
        images = cast(Batch, batch)
        logits = model(normalise(images.images, device))
        return tag_cross_entropy(logits, torch.as_tensor(images.labels).to(device))

    def evaluate(self, model: nn.Module, plan: Plan, place: Place) -> Evaluation:
        """Loss, precision@1 and @5 and mAP (classes: top-1 and top-5) on the hold-out."""
        held_out = self.holdout_plan()
        return Evaluation({}) if held_out is None else self.score(model, held_out, place, "holdout")

    def score(self, model: nn.Module, plan: Plan, place: Place, name: str) -> Evaluation:
        """Evaluate on every sample of a plan; metrics are called NAME_loss and so on."""
        measure = top_k_accuracy if plan.kind == "cls" else precision_at_k
        names = ["loss", *(f"top_{k}" if plan.kind == "cls" else f"precision@{k}" for k in (1, 5))]
        sums = torch.zeros(1 + len(names), dtype=torch.float64)
        keep = plan.samples_per_pass * len(plan.vocabulary) <= _MAX_SCORES
        scores: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in evaluation_batches(
            plan,
            batch_size=max(1, self.batch_size // place.world_size),
            size=self.image_size,
            rank=place.rank,
            world_size=place.world_size,
            threads=self.threads,
        ):
            logits = model(normalise(batch.images, place.device)).float()
            truth = torch.as_tensor(batch.labels).to(place.device)
            means = [tag_cross_entropy(logits, truth).item(), *(measure(logits, truth, k) for k in (1, 5))]
            sums += len(batch.keys) * torch.tensor([1.0, *means], dtype=torch.float64)
            if keep:
                scores.append(logits.cpu())
                labels.append(truth.cpu())
        if place.world_size > 1:
            dist.all_reduce(sums)
        metrics = {f"{name}_{n}": float(v) for n, v in zip(names, sums[1:] / sums[0], strict=True)}
        if not keep:
            return Evaluation(metrics)
        every, truths = _gather(scores, place), _gather(labels, place)
        if plan.kind == "cls":
            right = every.argmax(1) == truths[:, 0]
            per_label = {
                label.name: float(right[truths[:, 0] == label.id].double().mean())
                for label in plan.vocabulary
                if bool((truths[:, 0] == label.id).any())
            }
            return Evaluation(metrics, per_label)
        precision = average_precision(every, truths)
        metrics[f"{name}_mAP"] = float(precision.nanmean())
        found = {label.name: float(precision[label.id]) for label in plan.vocabulary}
        return Evaluation(metrics, {n: v for n, v in found.items() if v == v})

    def card(self, plan: Plan) -> dict[str, object]:
        """Labels and preprocessing."""
        rule = "short side to round(size * 256 / 224), antialiased bilinear; centre crop of size; divided by 255; (x - mean) / std"
        return super().card(plan) | {
            "preprocessing": {"size": self.image_size, "mean": list(MEAN), "std": list(STD), "resize": rule}
        }


def tag_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of logsumexp(z) - mean of z over the labels: cross-entropy against 1/k on each of k labels.

    Args:
        logits: (B, C).
        labels: (B, K) label ids padded with -1.
    """
    present = labels >= 0
    chosen = logits.float().gather(1, labels.clamp(min=0)).masked_fill(~present, 0.0)  # (B, K)
    count = present.sum(1)
    losses = logits.float().logsumexp(1) - chosen.sum(1) / count.clamp(min=1)
    return losses.where(count > 0, 0.0).mean()  # an image without labels teaches nothing


def _gather(rows: list[Tensor], place: Place) -> Tensor:
    """All rows of all ranks in the order of the ranks; label columns are padded with -1 to one width."""
    if place.world_size > 1:
        parts: list[list[Tensor]] = [[] for _ in range(place.world_size)]
        dist.all_gather_object(parts, rows)
        rows = [row for part in parts for row in part]
    width = max(row.shape[1] for row in rows)
    return torch.cat([F.pad(row, (0, width - row.shape[1]), value=-1) for row in rows])
