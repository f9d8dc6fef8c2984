"""One photo as people have it -> one photo as it is stored: upright 8-bit RGB JPEG of a bounded size, or a named reject.

Every stored photo comes out of one encoder (4:2:0, no metadata, no thumbnail, no EXIF turn left to do), so no reader can
choke on it or turn it a second time, and positions recorded in EXIF do not leak. The rules, each reported in `converted`:

| found                         | stored                                                                       |
|-------------------------------|------------------------------------------------------------------------------|
| EXIF orientation 2-8          | turned once                                                                  |
| CMYK, YCCK, YCbCr, LAB        | RGB as Pillow converts; ICC profiles are ignored                             |
| 16-bit grey                   | the high byte                                                                |
| grey, bilevel                 | three equal channels                                                         |
| palette                       | its colours                                                                  |
| alpha, transparent colour     | laid on white                                                                |
| several frames                | the first                                                                    |
| short side above the wish     | shrunk with antialiasing (JPEGs first by DCT scaling, never below 1.4 times) |
"""

from __future__ import annotations

import io
import re
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

# JPEG covers MPO, the two-frame files of phones.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Pillow itself refuses to open anything above twice its own warning level.
MOST_PIXELS = 178_956_970
_BACKGROUND = (255, 255, 255)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# First bytes -> what it is. Only those of `_FORMATS` are decoded, the others are at least called by their name.
_MAGIC = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIF"),
    (rb"P[1-7]\s", "Netpbm"),
    (rb"qoif", "QOI"),
    (rb"8BPS", "Photoshop"),
    (rb"\x00\x00\x01\x00", "ICO"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"%PDF", "PDF"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "SVG"),
)


class Reason(NamedTuple):
    """What a reject class means, and where it is found out. Damage counts towards the failure budget, selection does not."""

    stage: str
    sentence: str
    damage: bool = True
    transient: bool = False


# The closed table of reject classes of all photo jobs.
REASONS = {
    "empty": Reason("decode", "The file has no bytes."),
    "not_an_image": Reason("decode", "The content is no image, whatever the name says."),
    "truncated": Reason("decode", "The file ends before the image does."),
    "corrupt": Reason("decode", "The image cannot be decoded."),
    "too_many_pixels": Reason("decode", "The header announces more pixels than --max-pixels."),
    "too_many_bytes": Reason("read", "The file is larger than --max-bytes."),
    "unsupported_format": Reason("decode", "An image of a kind that is not decoded here."),
    "missing_file": Reason("read", "A row names a file that is not below --images."),
    "outside_root": Reason("join", "A row names a file outside of --images."),
    "bad_name": Reason("list", "The file name is no valid UTF-8."),
    "unreadable_row": Reason("table", "A row of the table names no image, or cannot be parsed."),
    "unknown_label": Reason("label", "The class is not in the given vocabulary."),
    "read_error": Reason("read", "The file could not be read this time.", transient=True),
    "duplicate_source": Reason("join", "The source was named before; its first record was taken.", damage=False),
    "no_caption": Reason("join", "No row names this file.", damage=False),
    "no_label": Reason("label", "No label of the vocabulary applies.", damage=False),
}


class Rejected(Exception):
    """A record that cannot be stored: a reason out of `REASONS`, and what was found. The message never names a path."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        assert reason in REASONS, reason
        self.reason, self.message = reason, message


class Prepared(NamedTuple):
    """A stored photo: its bytes and size, the (width, height) and format it came with, and what was done to it."""

    jpeg: bytes
    width: int
    height: int
    original: tuple[int, int]
    format: str
    converted: tuple[str, ...]


def prepare_image(
    data: bytes,
    *,
    short_side: int = 256,
    quality: int = 90,
    max_pixels: int = 100_000_000,
    max_bytes: int = 100_000_000,
) -> Prepared:
    """The photo in `data` as it is stored. The same bytes give the same bytes.

    Raises:
        Rejected: empty, not_an_image, truncated, corrupt, too_many_pixels, too_many_bytes, unsupported_format.
    """
    if len(data) > max_bytes:
        raise Rejected("too_many_bytes", f"{len(data)} bytes, more than {max_bytes}")
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise Rejected("too_many_pixels", f"{width}x{height}, more than {max_pixels} pixels")
    converted: list[str] = []
    try:
        frames = getattr(image, "n_frames", 1)
        target = _shrunk(image.size, short_side)
        if image.format == "JPEG":
            # Decoding at 1/2, 1/4 or 1/8 costs a fraction; 1.4 times the target leaves the antialiasing to the filter below.
            image.draft(image.mode, (round(target[0] * 1.4), round(target[1] * 1.4)))
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image, converted)
        if target != (width, height):
            rgb = rgb.resize(target, Image.Resampling.BICUBIC)
            converted.append(f"shrunk from {width}x{height}")
        if orientation in _TURNS:
            rgb = rgb.transpose(_TURNS[orientation])
            converted.append(f"exif orientation {orientation}")
        if frames > 1:
            converted.append(f"first frame of {frames}")
    except Rejected:
        raise
    except Exception as error:  # a decoder may raise anything on bytes from outside; the verdict must not stop the job
        words = _plain(error)
        raise Rejected(
            "truncated" if re.search("trunc|unexpected end|EOF", words, re.IGNORECASE) else "corrupt", words
        ) from None
    encoded = io.BytesIO()
    rgb.save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    return Prepared(encoded.getvalue(), *rgb.size, (width, height), image.format or "", tuple(converted))


def _open(data: bytes) -> Image.Image:
    """The image with its header read and nothing decoded; the kind is told by content, never by name."""
    if not data:
        raise Rejected("empty", "0 bytes")
    kind = next((kind for magic, kind in _MAGIC if re.match(magic, data[:1024], re.DOTALL)), "")
    if not kind:
        raise Rejected(
            "not_an_image", "the first bytes are of no image format" + (", but of a web page" if _is_html(data) else "")
        )
    if kind not in _FORMATS:
        raise Rejected("unsupported_format", kind)
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise Rejected("too_many_pixels", f"more than {MOST_PIXELS} pixels") from None
    except UnidentifiedImageError:
        # 33 bytes hold no complete header of any format: the rest of the file is what is missing.
        raise Rejected("truncated" if len(data) < 33 else "corrupt", f"the {kind} header cannot be read") from None
    except Exception as error:
        raise Rejected("corrupt", _plain(error)) from None


def _is_html(data: bytes) -> bool:
    return re.match(rb"\s*<(!doctype|html|head|body)", data[:256], re.IGNORECASE) is not None


def _shrunk(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The size with its short side brought down to `short_side`, aspect kept; unchanged when it is that small already."""
    width, height = size
    if min(width, height) <= short_side:
        return size
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return 1  # EXIF is an extra: when it is broken the pixels are taken as they lie


def _to_rgb(image: Image.Image, converted: list[str]) -> Image.Image:
    mode = image.mode
    if mode == "F":
        raise Rejected("unsupported_format", "floating-point pixels")
    if mode.startswith("I"):
        converted.append("16 bit")
        grey = (
            np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        )  # Pillow's own conversion would saturate at 255
        return Image.fromarray(grey.astype(np.uint8), "L").convert("RGB")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        converted.append("alpha")
        layers = image.convert("RGBA")
        paper = Image.new("RGBA", layers.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(paper, layers).convert("RGB")
    if mode != "RGB":
        converted.append({"P": "palette", "L": "grey", "1": "grey"}.get(mode, mode.lower()))
    return image if mode == "RGB" else image.convert("RGB")


def _plain(error: Exception) -> str:
    """The error's words without object addresses, so that a rerun gives the same reject row."""
    return re.sub(r"\s*(at )?0x[0-9a-fA-F]+", "", f"{error}")[:200] or type(error).__name__
