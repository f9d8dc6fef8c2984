"""Full fine-tuning of pretrained weights on classes: a new head, and all layers learn (WSL, sec. 2.3)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sharding.errors import InputError
from sharding.plan import Plan, open_plan
from trainers.checkpoint import load_weights
from trainers.fit import Evaluation, Place
from trainers.pretrain import Pretrain

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Transfer(Pretrain):
    """Fine-tune on class shards, from a pretrained run or from scratch, and test."""

    weights: str = ""
    """Folder of a finished run, or a .safetensors file; empty trains from scratch."""
    test_shards: str = ""
    """Dataset folder to test on; tune on --holdout, not on this."""
    labels_per_class: int = 0
    """Train on so many samples of each class, chosen by the seed; 0 takes all."""

    def open_plan(self) -> Plan:
        """The training samples; test shards with other classes are refused here, before the first step."""
        self.holdout_plan()
        plan = open_plan(
            self.shards,
            seed=self.seed,
            lanes=self.lanes,
            part=(0.0, 1.0 - self.holdout),
            per_label=self.labels_per_class or None,
        )
        if self.test_shards:
            check_vocabularies(plan, open_plan(self.test_shards), self.test_shards)
        return plan

    def build_model(self, plan: Plan) -> nn.Module:
        """The network with the pretrained trunk and a new head."""
        model = super().build_model(plan)
        if self.weights:
            load_trunk(model, self.weights)
        return model

    def evaluate(self, model: nn.Module, plan: Plan, place: Place) -> Evaluation:
        """Loss, top-1 and top-5 on the hold-out and on the test shards, of those that are given."""
        held_out = super().evaluate(model, plan, place)
        if not self.test_shards:
            return held_out
        tested = self.score(model, open_plan(self.test_shards), place, "test")
        return Evaluation(held_out.metrics | tested.metrics, tested.per_label)

    def card(self, plan: Plan) -> dict[str, object]:
        """Also where the weights came from."""
        return super().card(plan) | {"initial_weights": self.weights or "from scratch"}


def check_vocabularies(train: Plan, test: Plan, test_shards: str) -> None:
    """Raise InputError unless label i has the same name in both sets."""
    names, found = ([label.name for label in plan.vocabulary] for plan in (train, test))
    if names != found:
        differing = sorted({*names} ^ {*found}) or ["their order"]
        raise InputError(
            f"test shards have the classes of the training shards, in the same order; {test_shards} differs in "
            f"{', '.join(differing[:3])}: build it with --vocabulary TRAIN_FOLDER/vocabulary.tsv."
        )


def load_trunk(model: nn.Module, weights: str) -> None:
    """Load all weights but the head's, and log which names were mapped, unused and missing.

    Raises:
        InputError: when a shape differs, or no name is known.
    """
    tensors, _ = load_weights(weights)
    state = model.state_dict()
    head = head_names(model)
    mapped = {name: tensors[name] for name in state if name in tensors and name not in head}
    wrong = [name for name, t in mapped.items() if t.shape != state[name].shape]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"weights must fit the model; {name} is {list(mapped[name].shape)} in {weights} and {list(state[name].shape)} in "
            "the model: use the model function of the recipe that made them."
        )
    if not mapped:
        raise InputError(f"none of the {len(tensors)} names in {weights} is one of the model's: is it of this network?")
    model.load_state_dict(mapped, strict=False)
    logger.info("%s", mapping_report(tensors, state, head, weights))


def head_names(model: nn.Module) -> set[str]:
    """The names of the head's parameters in the state dict."""
    head: nn.Module = model.head  # type: ignore[assignment]
    of_head = {id(p) for p in head.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in of_head}


def mapping_report(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], head: Collection[str], weights: str
) -> str:
    """One line: how many names were mapped, and every other name of either side."""
    unused = [n for n in tensors if n not in state and n not in head]
    missing = [n for n in state if n not in tensors and n not in head]
    mapped = len(state) - len(missing) - len(head)
    return (
        f"weights of {weights}: {mapped} mapped, {len(unused)} unused ({_some(unused)}), {len(missing)} missing "
        f"({_some(missing)}), new head: {', '.join(sorted(head))}"
    )


def _some(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
