"""prepare_image against Pillow's own conversions and hand-made files: the odd photos that people really have."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.images import REASONS, Rejected, prepare_image


def photo(width=120, height=80, seed=0):
    """A smooth colour picture: JPEG keeps it almost exactly."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(prepared):
    image = Image.open(io.BytesIO(prepared.jpeg))
    assert image.format == "JPEG"
    assert image.mode == "RGB"
    assert image.size == (prepared.width, prepared.height)
    assert not image.getexif()
    return np.asarray(image).astype(int)


def rejected(data, **options):
    with pytest.raises(Rejected) as caught:
        prepare_image(data, **options)
    assert caught.value.reason in REASONS
    assert " at 0x" not in caught.value.message
    return caught.value.reason


def assert_close(found, expected, mean=2.0):
    expected = np.asarray(expected).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < mean


def test_a_small_photo_keeps_its_size_and_looks():
    prepared = prepare_image(encode(photo(), quality=95))
    assert (prepared.width, prepared.height, prepared.original, prepared.format) == (120, 80, (120, 80), "JPEG")
    assert prepared.converted == ()
    assert_close(pixels(prepared), photo())


@pytest.mark.parametrize(
    ("size", "stored"), [((1024, 768), (341, 256)), ((700, 2000), (256, 731)), ((300, 256), (300, 256))]
)
def test_the_short_side_shrinks_with_antialiasing_and_never_grows(size, stored):
    image = photo(*size)
    prepared = prepare_image(encode(image, quality=95))
    assert (prepared.width, prepared.height) == stored
    # The reference is decoded in full and filtered by another kernel.
    assert_close(pixels(prepared), image.resize(stored, Image.Resampling.LANCZOS))
    assert prepared.converted == (() if size == stored else (f"shrunk from {size[0]}x{size[1]}",))


def test_shrinking_does_not_alias_although_the_decoder_helps():
    # A checkerboard of single pixels is grey from afar; sampling without a filter would give stripes.
    board = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    prepared = prepare_image(encode(Image.fromarray(board.astype(np.uint8)).convert("RGB"), quality=95))
    assert prepared.width == 256
    assert np.abs(pixels(prepared) - 127).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_turned_once_and_removed(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(600, 400), exif=exif, quality=95)
    prepared = prepare_image(data, short_side=200)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    stored = (300, 200) if orientation < 5 else (200, 300)
    assert (prepared.width, prepared.height) == stored
    assert_close(pixels(prepared), upright.resize(stored, Image.Resampling.LANCZOS))
    assert (f"exif orientation {orientation}" in prepared.converted) == (orientation > 1)


def test_cmyk_is_what_pillow_makes_of_it():
    data = encode(photo().convert("CMYK"), quality=95)
    prepared = prepare_image(data)
    assert prepared.converted == ("cmyk",)
    assert_close(pixels(prepared), Image.open(io.BytesIO(data)).convert("RGB"))


def test_grey_has_three_equal_channels():
    found = pixels(prepare_image(encode(photo().convert("L"))))
    assert np.abs(found - found[..., :1]).max() <= 1
    assert_close(found[..., 0], photo().convert("L"))


def test_16_bit_grey_is_scaled_not_saturated():
    ramp = np.linspace(0, 65535, 200 * 100).astype(np.uint16).reshape(100, 200)
    prepared = prepare_image(encode(Image.fromarray(ramp), "PNG"))
    assert prepared.converted == ("16 bit",)
    assert pixels(prepared).mean() == pytest.approx(127.5, abs=1.5)
    assert_close(pixels(prepared)[..., 1], ramp / 257)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # a hidden red that must not show
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    if mode == "P":
        image = image.convert("RGB").quantize(2)
        index = image.getpixel((60, 30))
        data = encode(image, "PNG", transparency=bytes(0 if i == index else 255 for i in range(2)))
    else:
        data = encode(image.convert(mode), "PNG")
    prepared = prepare_image(data)
    assert prepared.converted == ("alpha",)
    assert pixels(prepared)[:, 40:].min() > 250


def test_palette_and_bilevel():
    prepared = prepare_image(encode(photo().quantize(64), "GIF"))
    assert prepared.converted == ("palette",)
    assert_close(pixels(prepared), photo().quantize(64).convert("RGB"), mean=6)
    assert prepare_image(encode(photo().convert("1"), "PNG")).converted == ("grey",)


def test_only_the_first_frame():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("lime", "red", "blue")]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    prepared = prepare_image(data)
    assert prepared.converted == ("first frame of 3",)
    assert_close(pixels(prepared), frames[0])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_the_content_tells_the_format(kind):
    prepared = prepare_image(encode(photo(), kind))
    assert prepared.format == kind
    assert_close(pixels(prepared), photo(), mean=3)


def test_the_same_bytes_give_the_same_bytes():
    data = encode(noise(500, 400))
    assert prepare_image(data) == prepare_image(data)


def test_damage_has_a_name():
    jpeg, png = encode(noise(300, 200)), encode(noise(300, 200), "PNG")
    assert rejected(b"") == "empty"
    assert rejected(jpeg[: len(jpeg) * 6 // 10]) == "truncated"
    assert rejected(png[: len(png) * 6 // 10]) == "truncated"
    assert rejected(png[:8]) == "truncated"
    assert rejected(png[:12] + b"JUNK" + png[16:]) == "corrupt"
    assert rejected(b"<!DOCTYPE html><title>404</title>") == "not_an_image"
    assert rejected(b"\x00" * 500) == "not_an_image"
    assert rejected(b"P6\n2 2\n255\n" + bytes(12)) == "unsupported_format"
    assert rejected(jpeg, max_bytes=len(jpeg) - 1) == "too_many_bytes"
    assert rejected(encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == "unsupported_format"


def test_the_pixel_limit_is_read_from_the_header():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    # 900 million pixels announced, and no pixel data at all: only the header can tell.
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0))
    assert rejected(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")) == "too_many_pixels"
    data = encode(photo(120, 80))
    assert rejected(data, max_pixels=120 * 80 - 1) == "too_many_pixels"
    assert prepare_image(data, max_pixels=120 * 80).width == 120


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored():
    data = encode(photo(), exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert prepare_image(data).converted == ()
