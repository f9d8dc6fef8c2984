"""Files on the local disk or behind any fsspec URL, written so that a crash never leaves half a file under a final name.

A path without `://` is local. Writes go to a unique temporary name beside the target and are renamed when complete:
atomic on a local disk; on object stores the rename is a copy of a finished object, so a reader still never sees a part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

TEMPORARY = ".part-"  # every temporary name holds this, so that leftovers of a crash can be told from data


def is_local(path: str) -> bool:
    """True for paths of the local disk."""
    return "://" not in path


def _remote(path: str) -> tuple[Any, str]:
    import fsspec

    return cast("tuple[Any, str]", fsspec.core.url_to_fs(path))


def join(folder: str, *names: str) -> str:
    """Path or URL of something below `folder`."""
    return "/".join([folder.rstrip("/") or "/", *names])


def exists(path: str) -> bool:
    """True when a file or folder is there."""
    if is_local(path):
        return os.path.exists(path)
    fs, name = _remote(path)
    return bool(fs.exists(name))


def size_of(path: str) -> int:
    """Size of a file in bytes; FileNotFoundError when it is absent."""
    if is_local(path):
        return os.path.getsize(path)
    fs, name = _remote(path)
    return int(fs.size(name))


def open_read(path: str) -> BinaryIO:
    """A binary file object for reading."""
    if is_local(path):
        return open(path, "rb")
    fs, name = _remote(path)
    return cast(BinaryIO, fs.open(name, "rb"))


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with open_read(path) as file:
        return file.read()


def read_range(path: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`; EOFError when the file ends before."""
    if is_local(path):
        with open(path, "rb") as file:
            data = os.pread(file.fileno(), size, offset)
    else:
        fs, name = _remote(path)
        data = bytes(fs.cat_file(name, start=offset, end=offset + size))
    if len(data) != size:
        raise EOFError(f"{path} must hold {size} bytes at {offset}, found {len(data)}: the file is cut short.")
    return data


@contextlib.contextmanager
def open_atomic(path: str) -> Iterator[BinaryIO]:
    """A binary file object for writing; the file takes its name only when the block ends without an error."""
    folder, _, name = path.rpartition("/")
    temporary = (
        join(folder, f".{name}{TEMPORARY}{uuid.uuid4().hex}") if folder else f".{name}{TEMPORARY}{uuid.uuid4().hex}"
    )
    if is_local(path):
        os.makedirs(folder or ".", exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return
    fs, final = _remote(path)
    part = _remote(temporary)[1]
    fs.makedirs(final.rpartition("/")[0], exist_ok=True)
    try:
        with fs.open(part, "wb") as file:
            yield file
        fs.mv(part, final)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            fs.rm(part)
        raise


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file: complete under its name, or not there at all."""
    with open_atomic(path) as file:
        file.write(data)


def list_files(folder: str, hidden: bool = False) -> list[str]:
    """Relative posix paths of all files below `folder`, sorted. Names that begin with a dot are left out unless asked for.

    Symbolic links to files count as files; linked folders are not entered (they could lead round in a circle).
    """
    found: list[str] = []
    if is_local(folder):
        for base, folders, names in os.walk(folder):
            if not hidden:
                folders[:] = [f for f in folders if not f.startswith(".")]
            prefix = os.path.relpath(base, folder).replace(os.sep, "/")
            found += [n if prefix == "." else f"{prefix}/{n}" for n in names if hidden or not n.startswith(".")]
        return sorted(found)
    fs, root = _remote(folder)
    root = root.rstrip("/")
    for name in fs.find(root):
        relative = name[len(root) :].lstrip("/")
        if hidden or not any(part.startswith(".") for part in relative.split("/")):
            found.append(relative)
    return sorted(found)


def remove(path: str) -> None:
    """Delete a file or a folder with all it holds; no error when it is absent."""
    if is_local(path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return
    fs, name = _remote(path)
    if fs.exists(name):
        fs.rm(name, recursive=True)
