"""The state of a run on disk: checkpoints that are whole or absent, and the exported weights.

    OUTPUT/checkpoints/step-00000100/    safetensors written by torch.distributed.checkpoint; nothing in it is unpickled
    OUTPUT/checkpoints/step-00000100/manifest.json    the facts of the loop and the sha256 of every file
    OUTPUT/model.safetensors, model.json              written when the run is finished

A checkpoint is written under another name, flushed, and renamed, so a process killed at any moment leaves the older ones.
Ranks hold the same state, so rank 0 writes it and any number of ranks reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
from torch.optim import Optimizer

from sharding.errors import InputError
from sharding.files import exists, join, read_bytes, write_atomic

logger = logging.getLogger(__name__)

FORMAT = 1
MODEL, CARD = "model.safetensors", "model.json"
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # names like state.layer1.0.conv1.weight.momentum_buffer


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose checksums were right, and what the loop wrote beside it."""

    path: str
    step: int
    facts: dict[str, object]


def snapshot(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """A copy on the CPU of all tensors of model and optimizer, which the next step does not touch."""
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
        for name, tensor in _tensors(model, optimizer).items()
    }


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> None:
    """Put the tensors of a checkpoint into model and optimizer."""
    state = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in _tensors(model, optimizer).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no_dist is on purpose
        load_distributed(state, storage_reader=HuggingFaceStorageReader(checkpoint.path), no_dist=True)
    model.load_state_dict({name[6:]: t for name, t in state.items() if name.startswith("model.")})
    # the parameter groups' numbers are the recipe's and the schedule's, not the checkpoint's
    numbers: dict[str, Any] = {
        name: value
        for name, value in get_optimizer_state_dict(model, optimizer, options=_FLAT).items()
        if not isinstance(value, Tensor)
    }
    moments: dict[str, Any] = {name[10:]: t for name, t in state.items() if name.startswith("optimizer.")}
    set_optimizer_state_dict(model, optimizer, numbers | moments, options=_FLAT)


def save_checkpoint(
    folder: str, step: int, state: Mapping[str, Tensor], facts: Mapping[str, object], keep: int = 2
) -> str:
    """Write FOLDER/step-NNNNNNNN atomically and remove all but the newest `keep`; returns its path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"step-{step:08d}")
    unfinished = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_distributed(dict(state), storage_writer=HuggingFaceStorageWriter(unfinished), no_dist=True)
    sums = {name: _sha256(os.path.join(unfinished, name)) for name in sorted(os.listdir(unfinished))}
    text = json.dumps({"format": FORMAT, "step": step, "facts": dict(facts), "files": sums}, indent=1)
    write_atomic(os.path.join(unfinished, "manifest.json"), text.encode())
    for name in [*sums, ""]:
        _flush(os.path.join(unfinished, name))
    if os.path.exists(path):  # a damaged one of the same step, or the same one again
        shutil.rmtree(path)
    os.rename(unfinished, path)
    _flush(folder)
    finished = sorted(name for name in os.listdir(folder) if "tmp" not in name)
    stale = finished[:-keep] + [name for name in os.listdir(folder) if ".tmp-" in name]
    for name in stale:
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    return path


def load_newest_valid(folder: str) -> Checkpoint | None:
    """The newest checkpoint whose files are what they were when written; damaged ones are skipped with a warning."""
    names = sorted((n for n in os.listdir(folder) if ".tmp-" not in n), reverse=True) if os.path.isdir(folder) else []
    for name in names:
        path = os.path.join(folder, name)
        try:
            with open(os.path.join(path, "manifest.json"), "rb") as file:
                manifest = json.load(file)
            damaged = [n for n, digest in manifest["files"].items() if _sha256(os.path.join(path, n)) != digest]
            if not damaged:
                return Checkpoint(path, int(manifest["step"]), dict(manifest["facts"]))
            reason = f"{damaged[0]} has changed since it was written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
        logger.warning("checkpoint %s is damaged (%s): skipped, an older one is used if there is one", path, reason)
    return None


def export_weights(folder: str, model: nn.Module, card: Mapping[str, object]) -> None:
    """Write model.safetensors, then model.json (`card`: recipe, labels, preprocessing), each atomically."""
    from safetensors.torch import save

    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomic(join(folder, MODEL), save(weights))
    write_atomic(join(folder, CARD), (json.dumps(dict(card), indent=1, ensure_ascii=False) + "\n").encode())


def load_weights(path: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Weights by name, and their card ({} for a bare file), from a finished run's folder or a .safetensors file.

    Raises:
        InputError: when the run is not finished or the file is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = path if path.endswith(".safetensors") else join(path, MODEL)
    if not exists(file):
        if exists(join(path, "run.json")):
            raise InputError(f"weights come from a finished run; {path} is not finished: run its train command again.")
        raise InputError(f"weights are a finished run's folder or a .safetensors file; {file} does not exist.")
    try:
        weights = load(read_bytes(file))
    except SafetensorError as error:
        raise InputError(f"{file} is not a safetensors file ({error}): export or download it again.") from error
    card = join(path, CARD)
    return weights, json.loads(read_bytes(card)) if file != path and exists(card) else {}


def _tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    moments = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    return {f"model.{name}": t for name, t in model.state_dict().items()} | {
        f"optimizer.{name}": value for name, value in moments.items() if isinstance(value, Tensor)
    }


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
