"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state.

A schedule maps (step, steps) to the factor on the recipe's learning rate; a recipe fills in the rest with `partial`:

    schedule=partial(warm_up, then=partial(halvings, count=14), until=0.05, start=0.1 / 3.15)

A point of the run (`until`, `at`) is a share of it when a float (0.7), a step when an int (60_000); a negative step counts
from the end, as the long detection schedules do (Rethinking ImageNet pre-training, sec. 3: -60_000 and -20_000).
"""

from collections.abc import Callable, Sequence
from math import cos, pi

from sharding.errors import InputError

Schedule = Callable[[int, int], float]
"""(step, steps) -> factor on the learning rate; steps are numbered from 0."""


def constant(step: int, steps: int) -> float:
    """The learning rate as it is."""
    return 1.0


def halvings(step: int, steps: int, *, count: int) -> float:
    """Halved `count` times, at the inner borders of count + 1 equal stretches of the run (WSL, sec. 2.3)."""
    return 0.5 ** (step * (count + 1) // steps)


def step_decay(step: int, steps: int, *, at: Sequence[float], factor: float = 0.1) -> float:
    """Multiplied by `factor` on reaching each point of `at`."""
    return factor ** sum(step >= _step_of(point, steps) for point in at)


def cosine(step: int, steps: int) -> float:
    """Half a period of the cosine, from 1 to 0 (SlowFast, sec. 3)."""
    return 0.5 * (cos(pi * step / steps) + 1)


def warm_up(step: int, steps: int, *, then: Schedule, until: float, start: float) -> float:
    """Linear from the factor `start` to the value which `then` has at `until`; after that, `then`.

    So the line ends on the cosine and not above it, as in PySlowFast.
    """
    end = _step_of(until, steps)
    if step >= end:
        return then(step, steps)
    return start + (then(end, steps) - start) * step / end


def _step_of(point: float, steps: int) -> int:
    step = round(point * steps) if isinstance(point, float) else point + (steps if point < 0 else 0)
    if not 0 <= step <= steps:
        raise InputError(
            f"A point of the schedule must lie inside the run of {steps} steps, not at {point}; "
            "give a share (0.7), a step, or a negative step counted from the end."
        )
    return step
