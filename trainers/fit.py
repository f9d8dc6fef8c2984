"""The one training loop: batches, loss, backward, clip, step, log, save, evaluate; and the fields every run has.

A regime (pretrain, transfer, ...) derives its dataclass from `Regime` and says how batches, loss and evaluation are made;
the loop knows nothing of images or labels. All randomness follows from (seed, step, rank) and the order of the data from
(seed, position), so a run that was killed and goes on ends in the same bytes as one that was not.

    OUTPUT/run.json        the recipe's fields, against which a resumed run is compared
    OUTPUT/metrics.jsonl   one object per logged step and per evaluation; the record of the run
    OUTPUT/checkpoints/    the newest two;  model.safetensors, model.json, report.html appear at the end

Under torchrun each rank takes batch_size / ranks samples of a step, and DDP averages the gradients, so the loss is the mean
over the whole batch for any number of ranks.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sharding.errors import InputError
from sharding.files import is_local, join
from sharding.plan import Plan
from sharding.progress import Progress
from trainers import checkpoint as checkpoints
from trainers.optimizer import sgd
from trainers.run_folder import Metrics, check_data, described, is_finished, open_folder
from trainers.schedules import Schedule

logger = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images, in [0, 1]
Outcome = Literal["finished", "terminated", "interrupted"]


class Records(Protocol):
    """What the loop must know of a batch, whatever its samples are."""

    keys: list[str]
    positions: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Numbers for metrics.jsonl, and one number per label for the report."""

    metrics: dict[str, float]
    per_label: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where this process stands: its rank, how many there are, and its device."""

    rank: int
    world_size: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Regime:
    """The fields of every run; what a run trains on and by which loss is for the regimes to say."""

    shards: str = ""
    """Dataset folder, or several separated by commas."""
    output: str = ""
    """Folder of the run: metrics, checkpoints, weights, report. The same command again goes on from there."""
    model: Callable[..., nn.Module]
    """Function that is called with num_classes and returns the network."""
    steps: int
    """Optimizer updates in the whole run."""
    batch_size: int
    """Samples per update over all ranks."""
    lr: float
    """Learning rate that the schedule multiplies."""
    schedule: Schedule
    """Multiplier of lr as a function of (step, steps)."""
    momentum: float = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty on weights."""
    decay_norms: bool = False
    """Whether it also falls on the parameters of norms and on biases."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    seed: int = 0
    """Decides weights at the start, order of the data, crops, and every other random choice."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the newest two are kept."""
    lanes: int = 64
    """Stretches into which a pass is cut; the number of ranks must divide it, and a run keeps it."""
    threads: int = 2
    """Threads per rank that read and decode."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto is bfloat16 on a GPU and float32 on a CPU."""
    compile: bool = False
    """Compile the network: a slow first step, faster ones after it."""
    allow_data_change: bool = False
    """Go on although the shards are not those the run began with."""

    def open_plan(self) -> Plan:
        """The order of the training samples."""
        raise NotImplementedError

    def batches(self, plan: Plan, start_step: int, stop_step: int, place: Place) -> Iterator[Records]:
        """This rank's part of the steps [start_step, stop_step)."""
        raise NotImplementedError

    def build_model(self, plan: Plan) -> nn.Module:
        """The network with its first weights; the random state is seeded."""
        return self.model(num_classes=len(plan.vocabulary))

    def loss(self, model: nn.Module, batch: Records, device: torch.device) -> Tensor:
        """Mean loss of the batch, a scalar."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, plan: Plan, place: Place) -> Evaluation:
        """Numbers of the model on samples it does not learn from; every rank calls it, and gets the same."""
        raise NotImplementedError

    def card(self, plan: Plan) -> dict[str, object]:
        """What model.json says of the weights."""
        return {"num_classes": len(plan.vocabulary), "labels": [label.name for label in plan.vocabulary]}

    def run(self, name: str) -> Outcome:
        """Train; `name` is the recipe's, for the record."""
        return fit(self, name)

    def check(self, name: str) -> None:
        """Print what a run would be: data, network, memory, time; writes nothing."""
        from trainers.check import check

        check(self, name)


def fit(regime: Regime, name: str = "") -> Outcome:
    """Train to the last step, or go on with a run that was stopped.

    Raises:
        InputError: for a folder of another run, other data, a number of ranks that cannot share the batch, or a loss
            that is not a number.
    """
    if not is_local(regime.output) or not regime.output:
        raise InputError(
            f"--output is a local folder for a run; found {regime.output!r}: copy the run when it is done."
        )
    with start_processes() as place, _Stop() as stop:
        plan = regime.open_plan()
        check_shares(regime, plan, place)
        if place.rank == 0:
            open_folder(regime.output, name, regime)
        barrier(place)
        if is_finished(regime.output, plan.fingerprint, regime.allow_data_change):
            if place.rank == 0:
                logger.info("%s is finished (%d steps): nothing to do", regime.output, regime.steps)
            return "finished"
        outcome = _train(regime, name, plan, place, stop)
        barrier(place)
        return outcome


def _train(regime: Regime, name: str, plan: Plan, place: Place, stop: _Stop) -> Outcome:
    folder = join(regime.output, "checkpoints")
    torch.manual_seed(mixed(regime.seed))
    model = regime.build_model(plan).to(memory_format=torch.channels_last).to(place.device)
    optimizer = sgd(
        model,
        lr=regime.lr,
        momentum=regime.momentum,
        weight_decay=regime.weight_decay,
        decay_norms=regime.decay_norms,
    )
    step, order, loss_sum, loss_count = 0, "0" * 16, 0.0, 0
    saved = checkpoints.load_newest_valid(folder)
    if saved:
        check_data(str(saved.facts["fingerprint"]), plan.fingerprint, regime.output, regime.allow_data_change)
        checkpoints.restore(saved, model, optimizer)
        step, order = saved.step, str(saved.facts["order"])
        loss_sum, loss_count = float.fromhex(str(saved.facts["loss_sum"])), int(str(saved.facts["loss_count"]))
        logger.info("goes on from step %d of %d", step, regime.steps)
    metrics = Metrics(regime.output, step, place.rank)
    net = wrap(model, regime, place)
    batches = regime.batches(plan, step, regime.steps, place)
    evaluation = Evaluation({})
    clock = _Clock()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as writer,
        Progress(name or "train", regime.steps, unit="steps") as progress,
    ):
        pending: Future[str] | None = None
        while True:
            if step == regime.steps or (regime.evaluate_every and step and step % regime.evaluate_every == 0):
                evaluation = _evaluate(regime, model, plan, place)
                metrics.write({"step": step} | evaluation.metrics | {"seconds": clock.lap()})
                if step == regime.steps:
                    break
            with clock.waiting():
                batch = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = regime.lr * regime.schedule(step, regime.steps)
            torch.manual_seed(mixed(regime.seed, step, place.rank))
            model.train()
            with autocast(regime, place):
                loss = regime.loss(net, batch, place.device)
            value, digest, stopping = _agree(float(loss.detach()), batch, stop.asked, place)
            if not math.isfinite(value):
                raise InputError(_replay(regime, plan, place, batch, model, optimizer, step, value))
            loss.backward()  # type: ignore[no-untyped-call]
            if regime.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), regime.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            step, order = step + 1, chained(order, digest)
            loss_sum, loss_count = loss_sum + value, loss_count + 1
            progress.update(step, f"loss {value:.3f}, lr {optimizer.param_groups[0]['lr']:.3g}, {clock.rate(regime)}")
            if step % regime.log_every == 0 or step == regime.steps:
                line: dict[str, object] = {
                    "step": step,
                    "loss": loss_sum / loss_count,
                    "lr": optimizer.param_groups[0]["lr"],
                    "order": order,
                }
                metrics.write(line | clock.timing(loss_count * regime.batch_size))
                loss_sum, loss_count = 0.0, 0
            if stopping or step % regime.checkpoint_every == 0 or step == regime.steps:
                if pending:
                    pending.result()
                if place.rank == 0:
                    facts = {
                        "position": step * regime.batch_size,
                        "fingerprint": plan.fingerprint,
                        "order": order,
                        "loss_sum": loss_sum.hex(),
                        "loss_count": loss_count,
                    }
                    state = checkpoints.snapshot(model, optimizer)
                    pending = writer.submit(checkpoints.save_checkpoint, folder, step, state, facts)
            if stopping and step < regime.steps:
                break
        if pending:
            pending.result()
    if step < regime.steps:
        if place.rank == 0:
            logger.info("%s at step %d; the same command goes on from here", stop.outcome, step)
        return stop.outcome
    if place.rank == 0:
        _finish(regime, name, plan, model, evaluation)
    return stop.outcome if stop.asked else "finished"  # asked during the last evaluation: whoever called must stop too


def _finish(regime: Regime, name: str, plan: Plan, model: nn.Module, evaluation: Evaluation) -> None:
    """Write the report, then the weights, then the card that makes the run a finished one."""
    from trainers.page import write_report

    write_report(regime.output, name, described(regime), evaluation)
    card = {"recipe": name, "fingerprint": plan.fingerprint, **regime.card(plan), "metrics": evaluation.metrics}
    checkpoints.export_weights(regime.output, model, card)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
    logger.info(
        "finished %d steps%s; %s", regime.steps, f": {shown}" if shown else "", join(regime.output, "report.html")
    )


def _evaluate(regime: Regime, model: nn.Module, plan: Plan, place: Place) -> Evaluation:
    if place.world_size > 1:  # running statistics of ranks differ until DDP's next forward; rank 0's count
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    model.eval()
    with torch.no_grad(), autocast(regime, place):
        return regime.evaluate(model, plan, place)


def _agree(loss: float, batch: Records, stop: bool, place: Place) -> tuple[float, int, bool]:
    """What all ranks must know before the update: mean loss, digest of the global batch, whether to stop after it.

    The digest is the sum (mod 2^64) of a hash of each (position, key), so it does not depend on which rank has a sample.
    """
    total = sum(hashed(int(p), key) for p, key in zip(batch.positions, batch.keys, strict=True)) % (1 << 64)
    if place.world_size == 1:
        return loss, total, stop
    whole = torch.tensor([total - (1 << 64) if total >> 63 else total, int(stop)], dtype=torch.int64)
    mean = torch.tensor([loss], dtype=torch.float64)
    dist.all_reduce(whole)  # wraps mod 2^64
    dist.all_reduce(mean)
    return float(mean) / place.world_size, int(whole[0]) % (1 << 64), bool(whole[1])


def hashed(position: int, key: str) -> int:
    """64-bit hash of one sample at one position of the run."""
    return int.from_bytes(hashlib.blake2b(f"{position} {key}".encode(), digest_size=8).digest(), "little")


def chained(order: str, digest: int) -> str:
    """The digest of all batches so far, from that of the batches before and that of the newest."""
    return hashlib.blake2b(bytes.fromhex(order) + digest.to_bytes(8, "little"), digest_size=8).hexdigest()


def mixed(*values: int) -> int:
    """One seed out of several integers."""
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=7).digest(), "little")


def normalise(images: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in channels_last, ImageNet's mean and deviation, on the device."""
    pixels = torch.as_tensor(images).to(device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC memory = channels_last
    mean, scale = _constants(device)
    return torch.addcmul(mean, pixels.float(), scale)


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (-mean / std).view(1, 3, 1, 1).to(device), (1 / (255 * std)).view(1, 3, 1, 1).to(device)


@contextmanager
def start_processes() -> Iterator[Place]:
    """Join the other ranks when torchrun started this process, and share the cores among the ranks of this machine."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local, beside = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // beside))
    if world_size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield Place(rank, world_size, device)
    finally:
        if world_size > 1:
            dist.destroy_process_group()


def barrier(place: Place) -> None:
    """Wait for the other ranks."""
    if place.world_size > 1:
        dist.all_reduce(torch.zeros(1))


def autocast(regime: Regime, place: Place) -> torch.autocast:
    """bfloat16 where asked for, or by itself on a GPU; never by itself on a CPU, where it can be 30 times slower."""
    on = regime.precision == "bfloat16" or (regime.precision == "auto" and place.device.type == "cuda")
    return torch.autocast(place.device.type, dtype=torch.bfloat16, enabled=on)


def wrap(model: nn.Module, regime: Regime, place: Place) -> nn.Module:
    """The module that a step calls: compiled where asked, DDP where there are several ranks."""
    net: nn.Module = torch.compile(model) if regime.compile else model  # type: ignore[assignment]
    if place.world_size == 1:
        return net
    return DistributedDataParallel(net, device_ids=[place.device.index] if place.device.type == "cuda" else None)


def check_shares(regime: Regime, plan: Plan, place: Place) -> None:
    """Raise InputError unless every rank gets the same number of samples of every step."""
    possible = [w for w in range(1, plan.lanes + 1) if plan.lanes % w == 0 and regime.batch_size % w == 0]
    if place.world_size not in possible:
        raise InputError(
            f"the number of ranks must divide batch_size ({regime.batch_size}) and the {plan.lanes} lanes of the data; "
            f"found {place.world_size}, possible: {', '.join(map(str, possible))}."
        )


def _replay(
    regime: Regime,
    plan: Plan,
    place: Place,
    batch: Records,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    loss: float,
) -> str:
    """Save what is needed to repeat a step whose loss is no number, and say which records were in it.

    The weights are those before the update; running statistics of norms have already seen the batch.
    """
    folder = join(regime.output, f"replay-{step:08d}")
    os.makedirs(folder, exist_ok=True)
    arrays: dict[str, Any] = {n: np.asarray(torch.as_tensor(v).cpu()) for n, v in vars(batch).items() if n != "keys"}
    np.savez(join(folder, f"batch-{place.rank}.npz"), keys=np.array(batch.keys), **arrays)
    if place.rank == 0:
        facts = {"seed": regime.seed, "fingerprint": plan.fingerprint, "position": step * regime.batch_size}
        checkpoints.save_checkpoint(folder, step, checkpoints.snapshot(model, optimizer), facts)
    rows = plan.at(batch.positions)
    named = [
        f"{plan.shards_of(int(d))[int(s)].name}:{key}"
        for d, s, key in zip(rows.dataset, rows.shard, batch.keys, strict=True)
    ]
    more = f" and {len(named) - 4} more (batch-{place.rank}.npz)" if len(named) > 4 else ""
    return (
        f"the loss must be a finite number; at step {step} it is {loss} for the records {', '.join(named[:4])}{more}: weights "
        f"were not updated, batch and state are in {folder}; lower --lr, or look at the records."
    )


class _Clock:
    """Seconds since the last line, and how many of them were spent waiting for data."""

    def __init__(self) -> None:
        self.begin, self.waited = time.monotonic(), 0.0
        self.recent = [(self.begin, 0.0)]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    def lap(self) -> float:
        """Seconds since the last line; the next lap begins now."""
        now = time.monotonic()
        seconds, self.begin, self.waited = now - self.begin, now, 0.0
        return round(seconds, 3)

    def timing(self, images: int) -> dict[str, object]:
        """The timing fields of a line, for the `images` trained since the last one."""
        waiting, seconds = self.waited, self.lap()
        return {
            "seconds": seconds,
            "images_per_second": round(images / max(seconds, 1e-9), 1),
            "waiting": round(waiting / max(seconds, 1e-9), 3),
        }

    def rate(self, regime: Regime) -> str:
        """images/s and share of waiting, for the progress line, over the last steps."""
        now = time.monotonic()
        waited = self.waited
        self.recent = [*self.recent[-20:], (now, waited)]
        (first, waited_then), steps = self.recent[0], len(self.recent) - 1
        share = max(0.0, waited - waited_then) / max(now - first, 1e-9)
        return (
            f"{steps * regime.batch_size / max(now - first, 1e-9):.0f} images/s, {100 * share:.0f} % waiting for data"
        )


class _Stop:
    """SIGTERM and the first Ctrl-C ask the loop to stop after the step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.outcome: Outcome = "terminated"

    def __enter__(self) -> _Stop:
        self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            self.outcome = "interrupted"
            signal.signal(signal.SIGINT, self.before[signal.SIGINT])
