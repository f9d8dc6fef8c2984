"""`omnishard doctor`: what is installed, what is missing or in the way, and the exact command to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sharding import __version__


@dataclass(frozen=True)
class Part:
    """A library, what it is for here, and the extra that brings it."""

    distributions: tuple[str, ...]  # any one of them; two of them own the same import name and break each other
    module: str
    purpose: str
    extra: str
    required: bool = True


PARTS = (
    Part(("numpy",), "numpy", "arrays", ""),
    Part(("pillow",), "PIL", "decoding and encoding photos", ""),
    Part(("simplejpeg",), "simplejpeg", "CPU loader on libjpeg-turbo", ""),
    Part(("webdataset",), "webdataset", "shard format", ""),
    Part(("apache-beam",), "apache_beam", "omnishard build", "beam"),
    Part(("pyarrow",), "pyarrow", "parquet captions", "beam"),
    Part(("torch",), "torch", "omnishard train", "train"),
    Part(("safetensors",), "safetensors", "exported weights", "train"),
    Part(("torchvision",), "torchvision", "detection parts", "vision", required=False),
    Part(("av",), "av", "videos: writing and exact reading", "video"),
    Part(("decord2", "decord"), "decord", "videos: clip loader", "video"),
    Part(("faiss-cpu", "faiss-gpu"), "faiss", "nearest-neighbour graphs", "graph"),
    Part(
        ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
        "nvidia.dali",
        "DALI loader, worth it on a GPU",
        "dali",
        required=False,
    ),
)


def examine(part: Part) -> tuple[str, str]:
    """What is found of a part, and the command that mends it ("" when nothing is to be done)."""
    found = []
    for name in part.distributions:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    install = f'pip install "omnishard[{part.extra}]"' if part.extra else f"pip install {part.distributions[0]}"
    if len(found) > 1:
        names = [name for name, _ in found]
        return f"{' and '.join(names)} overwrite each other", f"pip uninstall -y {' '.join(names)} && {install}"
    try:
        importlib.import_module(part.module)
    except Exception as error:  # whatever a broken library raises is a finding
        if not found:
            return "missing", install
        return f"{found[0][1]}, import fails: {str(error).splitlines()[0][:90] if str(error) else error!r}", (
            f"pip install --force-reinstall {found[0][0]}=={found[0][1]}"
        )
    return " ".join(found[0]) if found else "found", ""


def _machine() -> list[tuple[str, str]]:
    disk = shutil.disk_usage(".")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    rows = [
        ("omnishard", __version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("machine", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
                    f"{memory / 2**30:.0f} GiB memory, {disk.free / 2**30:.0f} GiB free here"),
    ]  # fmt: skip
    try:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        rows.append(("GPU", ", ".join(gpus) or "none: everything runs on the CPU, --loader auto takes libjpeg-turbo"))
    except ImportError:
        rows.append(("GPU", "not looked for: torch is missing"))
    return rows


def main(arguments: Sequence[str]) -> int:
    """Print the findings; 0 when all that the commands need is there, else 1."""
    if arguments:
        print("usage: omnishard doctor\n\nWhat is installed, what is missing, and the exact command to mend it. Exit code 1 when\n"
              "something that a command needs is missing or broken.")  # fmt: skip
        return 0 if arguments[0] in ("-h", "--help") else 2
    logging.disable(logging.WARNING)  # libraries that look for optional parts of their own
    for name, value in _machine():
        print(f"{name:<12} {value}")
    print()
    broken = 0
    for part in PARTS:
        state, remedy = examine(part)
        broken += bool(remedy) and part.required
        mark = "ok  " if not remedy else "BAD " if part.required else "none"
        print(f"{mark} {part.module:<13} {state:<42} {part.purpose}")
        if remedy:
            print(f"     {'mend it' if part.required else 'optional'}: {remedy}")
    print(f"\n{'all that the commands need is here' if not broken else f'{broken} to mend'}")
    return 1 if broken else 0
