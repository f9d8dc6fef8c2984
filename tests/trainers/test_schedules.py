"""Schedules as the lists of (step, learning rate) that the papers and their code give."""

from functools import partial

import pytest

from sharding.errors import InputError
from trainers.schedules import Schedule, constant, cosine, halvings, step_decay, warm_up

HASHTAGS = partial(warm_up, then=partial(halvings, count=4), until=0.1, start=0.1 / 3.15)
SLOWFAST = partial(warm_up, then=cosine, until=34, start=0.1)


@pytest.mark.parametrize(
    ("schedule", "lr", "steps", "expected"),
    [
        (constant, 0.1, 10, [(0, 0.1), (9, 0.1)]),
        # WSL: from 0.1 to 3.15, then halved at 20, 40, 60 and 80 of 100.
        (
            HASHTAGS,
            3.15,
            100,
            [
                (0, 0.1),
                (5, 1.625),
                (10, 3.15),
                (19, 3.15),
                (20, 1.575),
                (40, 0.7875),
                (60, 0.39375),
                (80, 0.196875),
                (99, 0.196875),
            ],
        ),
        # PySlowFast, 196 epochs: the warm-up ends on the cosine.
        (SLOWFAST, 0.1, 196, [(0, 0.01), (10, 0.03434), (34, 0.092757), (98, 0.05), (150, 0.012986)]),
        # ImageNet with group norm, 100 epochs.
        (
            partial(step_decay, at=(30, 60, 90)),
            0.1,
            100,
            [(0, 0.1), (29, 0.1), (30, 0.01), (60, 0.001), (90, 1e-4), (99, 1e-4)],
        ),
        # Rethinking ImageNet pre-training: the 6x schedule drops 60k and 20k before its end.
        (
            partial(step_decay, at=(-60_000, -20_000)),
            0.02,
            540_000,
            [(479_999, 0.02), (480_000, 0.002), (519_999, 0.002), (520_000, 2e-4)],
        ),
        # Data distillation: at 70 % and 90 %.
        (partial(step_decay, at=(0.7, 0.9)), 0.02, 360_000, [(251_999, 0.02), (252_000, 0.002), (324_000, 2e-4)]),
    ],
)
def test_published_learning_rates(schedule: Schedule, lr: float, steps: int, expected: list[tuple[int, float]]) -> None:
    for step, value in expected:
        assert lr * schedule(step, steps) == pytest.approx(value, rel=1e-4), step


def test_cosine_ends_at_zero() -> None:
    assert cosine(100, 100) == pytest.approx(0, abs=1e-12)


def test_point_outside_the_run() -> None:
    with pytest.raises(InputError, match=r"run of 100 steps, not at -60000"):
        step_decay(0, 100, at=(-60_000,))
