"""Linear probe: how good frozen features are. Pooled features once, then logistic regression with an L2 penalty (WSL, sec. 2.3).

The penalty is chosen on a held-out part of the training samples, never on the test set; the chosen one is then fitted on
all of them. Features are standardised for the fit, and that is folded into the head, so the exported model is a plain one.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharding.errors import InputError
from sharding.files import exists, join, read_bytes, write_atomic
from sharding.images import evaluation_batches
from sharding.plan import Plan, open_plan
from sharding.progress import Progress
from trainers import checkpoint as checkpoints
from trainers.evaluate.classify import top_k_accuracy, wilson_interval
from trainers.fit import MEAN, STD, Evaluation, Outcome, normalise, start_processes
from trainers.run_folder import METRICS, described, is_finished, open_folder
from trainers.transfer import check_vocabularies, load_trunk

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Logistic regression on the frozen features of a pretrained network."""

    shards: str = ""
    """Class dataset folder to learn from, or several separated by commas."""
    test_shards: str = ""
    """Dataset folder to test on; it must have the same vocabulary."""
    weights: str = ""
    """Folder of a finished run, or a .safetensors file."""
    output: str = ""
    """Folder of the run: features, metrics, weights, report. The same command again goes on from there."""
    model: Callable[..., nn.Module]
    """Function that is called with num_classes and returns the network."""
    image_size: int = 224
    """Side of the square centre crop in pixels."""
    batch_size: int = 64
    """Images per forward pass."""
    labels_per_class: int = 0
    """Learn from so many samples of each class, chosen by the seed; 0 takes all."""
    holdout: float = 0.2
    """Share of each class that is held out to choose the penalty."""
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """Candidates for the factor on half the squared norm of the weights."""
    seed: int = 0
    """Chooses the few labels and the hold-out."""
    threads: int = 2
    """Threads that read and decode."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto is bfloat16 on a GPU and float32 on a CPU."""

    def open_plans(self) -> dict[str, Plan]:
        """The training samples, and the test samples where they are given."""
        if not self.weights:
            raise InputError("a linear probe needs --weights: the folder of a finished run, or a .safetensors file.")
        train = open_plan(self.shards, seed=self.seed, per_label=self.labels_per_class or None)
        if train.kind != "cls":
            raise InputError(
                f"a linear probe learns classes; {self.shards} holds {train.kind or 'no labels'}: use class shards."
            )
        plans = {"train": train}
        if self.test_shards:
            plans["test"] = open_plan(self.test_shards)
            check_vocabularies(train, plans["test"], self.test_shards)
        return plans

    def build_model(self, plan: Plan) -> nn.Module:
        """The network with the pretrained trunk."""
        model = self.model(num_classes=len(plan.vocabulary))
        load_trunk(model, self.weights)
        return model.eval()

    def run(self, name: str) -> Outcome:
        """Extract, choose the penalty, fit, test, write. A finished extraction is not repeated."""
        with start_processes() as place:
            if place.world_size > 1:
                raise InputError(
                    f"a linear probe runs in one process; found {place.world_size}: start it without torchrun."
                )
            plans = self.open_plans()
            open_folder(self.output, name, self)
            if is_finished(self.output, plans["train"].fingerprint, False):
                logger.info("%s is finished: nothing to do", self.output)
                return "finished"
            model = self.build_model(plans["train"]).to(memory_format=torch.channels_last).to(place.device)
            sets = {n: self._features(n, plan, model, place.device) for n, plan in plans.items()}
            evaluation, lines = self._fit(model, sets, plans)
            write_atomic(join(self.output, METRICS), "".join(json.dumps(line) + "\n" for line in lines).encode())
            self._finish(name, model, plans["train"], evaluation)
        return "finished"

    def check(self, name: str) -> None:
        """Print what a run would do: data, network, seconds; writes nothing."""
        from trainers.check import check_probe

        check_probe(self, name)

    def _features(self, name: str, plan: Plan, model: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        """Features (N, C) float64 and labels (N,) of a set, from its file or from the network."""
        from safetensors.torch import load, save

        path = join(self.output, f"features-{name}-{plan.fingerprint}.safetensors")
        if not exists(path):
            features, labels = [], []
            with Progress(f"features of {name}", plan.samples_per_pass, unit="images") as progress:
                for batch in evaluation_batches(
                    plan, batch_size=self.batch_size, size=self.image_size, threads=self.threads
                ):
                    features.append(self.features(model, normalise(batch.images, device)))
                    labels.append(torch.as_tensor(batch.labels[:, 0]))
                    progress.update(sum(map(len, labels)))
            write_atomic(path, save({"features": torch.cat(features).cpu(), "labels": torch.cat(labels)}))
        arrays = load(read_bytes(path))
        return arrays["features"].double(), arrays["labels"]

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Pooled features (N, C) float32 of normalised images."""
        on = self.precision == "bfloat16" or (self.precision == "auto" and images.device.type == "cuda")
        with torch.no_grad(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=on):
            found: Tensor = model.features(images).float()  # type: ignore[operator]
        return found

    def _fit(
        self, model: nn.Module, sets: dict[str, tuple[Tensor, Tensor]], plans: dict[str, Plan]
    ) -> tuple[Evaluation, list[dict[str, float]]]:
        features, labels = sets["train"]
        num_classes = len(plans["train"].vocabulary)
        mean, deviation = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        standard = (features - mean) / deviation
        held = held_out(labels, self.holdout, self.seed)
        lines: list[dict[str, float]] = []
        for step, penalty in enumerate(self.penalties, 1):
            weight, bias = logistic_regression(standard[~held], labels[~held], num_classes, penalty)
            logits = standard[held] @ weight.T + bias
            loss = float(F.cross_entropy(logits, labels[held]))
            lines.append(
                {
                    "step": step,
                    "penalty": penalty,
                    "holdout_loss": loss,
                    "holdout_top_1": top_k_accuracy(logits, labels[held]),
                }
            )
            logger.info("penalty %g: hold-out top-1 %.4f, loss %.4f", penalty, lines[-1]["holdout_top_1"], loss)
        best = min(lines, key=lambda line: line["holdout_loss"])
        weight, bias = logistic_regression(standard, labels, num_classes, best["penalty"])
        weight = weight / deviation
        bias = bias - weight @ mean
        head: nn.Linear = model.head  # type: ignore[assignment]
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        metrics = {k: v for k, v in best.items() if k != "step"}
        per_label = {}
        if "test" in sets:
            features, truth = sets["test"]
            logits = features @ weight.T + bias
            right = logits.argmax(1) == truth
            low, high = wilson_interval(int(right.sum()), len(right))
            metrics |= {"test_top_1": top_k_accuracy(logits, truth), "test_top_5": top_k_accuracy(logits, truth, 5)}
            metrics |= {"test_top_1_low": low, "test_top_1_high": high}
            per_label = {
                label.name: float(right[truth == label.id].double().mean())
                for label in plans["test"].vocabulary
                if bool((truth == label.id).any())
            }
        return Evaluation(metrics, per_label), [*lines, {"step": len(lines)} | metrics]

    def _finish(self, name: str, model: nn.Module, plan: Plan, evaluation: Evaluation) -> None:
        from trainers.page import write_report

        write_report(self.output, name, described(self), evaluation)
        card = {
            "recipe": name,
            "fingerprint": plan.fingerprint,
            "num_classes": len(plan.vocabulary),
            "labels": [label.name for label in plan.vocabulary],
            "initial_weights": self.weights,
            "preprocessing": {"size": self.image_size, "mean": list(MEAN), "std": list(STD)},
            "metrics": evaluation.metrics,
        }
        checkpoints.export_weights(self.output, model, card)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
        logger.info("finished: %s; %s", shown, join(self.output, "report.html"))


def held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Which samples choose the penalty, (N,) bool: `share` of each class, at least one and never all of it.

    Raises:
        InputError: when no class has two samples.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        count = min(max(1, math.floor(share * len(members) + 0.5)), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held.any():
        raise InputError(
            "choosing the penalty needs two samples of a class; every class has one: raise --labels-per-class."
        )
    return held


def logistic_regression(features: Tensor, labels: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) that minimise mean cross-entropy + penalty / 2 * |weights|^2, by L-BFGS in float64."""
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, history_size=10, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
