"""What a tar really holds: every sample at its true place, and what is wrong with it. `verify` and `index` stand on this.

Unlike `sharding.tar.read_shard`, which stops at the first broken rule, a scan goes on and gives each record its verdict.
"""

from __future__ import annotations

import io
import itertools
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sharding.errors import InputError
from sharding.files import open_read, size_of
from sharding.index import Member
from sharding.samples import check_extension, decode_labels

# The closed table of what can be wrong with a record of a tar.
REASONS = {
    "shard_short": "The tar ends before its end blocks, or a header in it is damaged: what follows is lost.",
    "not_a_file": "A link or a device, not a plain file.",
    "unsafe_name": "An absolute name, or one with '..' in it.",
    "bad_name": "The name is not KEY.EXTENSION with a plain lower-case extension.",
    "refused_member": "Other readers would unpickle this member and run what it holds.",
    "duplicate_member": "The same member twice.",
    "not_adjacent": "The members of the key lie in two places.",
    "duplicate_key": "An earlier shard has the key already.",
    "empty": "An image member has no bytes.",
    "not_an_image": "The content of an image member is no image.",
    "wrong_format": "A jpg member holds an image of another format, which loaders do not expect.",
    "too_many_pixels": "The header announces more pixels than a loader should decode.",
    "corrupt": "The image cannot be decoded.",
    "bad_label": "The label member does not hold label ids.",
}
_IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"))
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_LABELS = frozenset(("cls", "tags.json"))
_MOST_PIXELS = 178_956_970  # where Pillow itself takes an image for a decompression bomb
_MOST_LABEL_BYTES = 1 << 20
_BLOCK = 512


@dataclass(frozen=True)
class Found:
    """A sample as it lies in the tar: its members, its label ids, and what is wrong ("" when nothing is)."""

    key: str
    members: tuple[Member, ...]
    labels: tuple[int, ...] = ()
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class _Entry:
    key: str
    member: Member
    reason: str = ""
    message: str = ""


def scan_tar(path: str, decode: Callable[[int], bool]) -> Iterator[Found]:
    """Every record of a tar in its order; those with a reason break a rule of `REASONS`. `decode(n)` tells whether to decode
    the images of the n-th record; of the others only the headers are read."""
    seen: set[str] = set()
    with open_read(path) as file:
        groups = itertools.groupby(_entries(file, size_of(path)), key=lambda entry: entry.key)
        for number, (key, group) in enumerate(groups):
            entries = list(group)
            members = tuple(entry.member for entry in entries)
            fault = next(((e.reason, e.message) for e in entries if e.reason), None)
            labels: tuple[int, ...] = ()
            extensions = [member.extension for member in members]
            if fault is None and key in seen:
                fault = "not_adjacent", f"again at byte {members[0].offset}"
            if fault is None and len(set(extensions)) < len(extensions):
                twice = next(e for e in extensions if extensions.count(e) > 1)
                offsets = [str(m.offset) for m in members if m.extension == twice]
                fault = "duplicate_member", f"{twice} at bytes {' and '.join(offsets)}"
            if fault is None:
                labels, fault = _labels(file, members)
            if fault is None:
                fault = _image_fault(file, members, decode(number))
            seen.add(key)
            yield Found(key, members, labels, *(fault or ()))


def _entries(file: BinaryIO, size: int) -> Iterator[_Entry]:
    """The plain files of the tar with the place of their data, whatever the dialect; the last one may say that it is cut."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.isdir():
                    continue
                entry = _entry(info)
                if info.isreg() and info.offset_data + info.size > size:
                    held = max(0, size - info.offset_data)
                    yield _Entry(entry.key, entry.member, "shard_short", f"{held} of {info.size} bytes of {info.name}")
                    return
                yield entry
            end = tar.offset
        file.seek(end)
        block = file.read(_BLOCK)
        # tarfile takes a damaged header after the first for the end of the archive, without an error
        fault = (
            ""
            if block == b"\0" * _BLOCK
            else f"no end block at byte {end}"
            if not block
            else f"no header at byte {end}"
        )
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        fault = str(error)
    if fault:
        yield _Entry("", Member("", end, 0, ""), "shard_short", fault)


def _entry(info: tarfile.TarInfo) -> _Entry:
    folder, slash, base = info.name.rpartition("/")
    stem, dot, extension = base.partition(".")
    key, extension = folder + slash + stem, extension.lower()
    member = Member(extension, info.offset_data, info.size, info.name)
    if not info.isreg() or info.issparse():
        return _Entry(key, member, "not_a_file", info.name)
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return _Entry(key, member, "unsafe_name", info.name)
    if not stem or not dot:
        return _Entry(key, member, "bad_name", info.name)
    try:
        check_extension(extension, info.name)
    except InputError as error:
        return _Entry(key, member, "refused_member" if "unpickle" in str(error) else "bad_name", info.name)
    return _Entry(key, member)


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _labels(file: BinaryIO, members: tuple[Member, ...]) -> tuple[tuple[int, ...], tuple[str, str] | None]:
    data = {}
    for member in members:
        if member.extension in _LABELS:
            if member.size > _MOST_LABEL_BYTES:
                return (), ("bad_label", f"{member.extension} of {member.size} bytes")
            data[member.extension] = _read(file, member)
    try:
        labels = tuple(decode_labels(data))
        if not labels or min(labels) >= 0:
            return labels, None
    except (ValueError, TypeError, RecursionError):
        pass
    name, value = next(iter(data.items()))
    return (), ("bad_label", f"{name} is {value[:40]!r}")


def _image_fault(file: BinaryIO, members: tuple[Member, ...], decode: bool) -> tuple[str, str] | None:
    for member in members:
        kind = member.extension.rpartition(".")[2]
        if kind in _IMAGES and (fault := examine_image(kind, _read(file, member), decode)):
            return fault[0], f"{member.extension}: {fault[1]}"
    return None


def examine_image(kind: str, data: bytes, decode: bool) -> tuple[str, str] | None:
    """Reason and message of what is wrong with an image member of extension `kind`, or None."""
    from PIL import Image

    if not data:
        return "empty", "0 bytes"
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked on every image
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        return "too_many_pixels", f"more than {_MOST_PIXELS}"
    except Exception:  # a parser may raise anything on bytes from outside; the verdict must not stop the scan
        return "not_an_image", f"begins with {data[:12]!r}"
    if image.width * image.height > _MOST_PIXELS:
        return "too_many_pixels", f"{image.width}x{image.height}"
    is_jpeg = image.format in ("JPEG", "MPO")
    if kind in ("jpg", "jpeg") and not is_jpeg:
        return "wrong_format", f"holds {image.format}"
    try:
        if decode and is_jpeg:
            import simplejpeg

            simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1)  # all bits are read, few pixels are made
        elif decode:
            image.load()
    except Exception as error:
        return "corrupt", " ".join(str(error).split())[:120]
    return None
