"""Pictures of every awkward kind open as upright 8-bit RGB on white, or say in one line why not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import ImageRef
from bunny.data.containers import ImageError
from bunny.data.images import decode, image_format, image_size, open_image, sha256


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def saved(folder: Path, data: bytes, name: str = "picture.png") -> ImageRef:
    (folder / name).write_bytes(data)
    return ImageRef(str(folder / name))


def noise(width: int = 40, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def promised_png(width: int, height: int) -> bytes:
    """A tiny file whose header promises a picture of that size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def test_an_rgb_picture_comes_back_unchanged(tmp_path: Path) -> None:
    assert np.array_equal(open_image(saved(tmp_path, encoded(noise()))), noise())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO"])
def test_all_formats_open_as_rgb(kind: str) -> None:
    image = decode(encoded(noise(32, 32), kind))
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert image_format(encoded(noise(32, 32), kind)) == kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(deep), kind)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_sixteen_bit_grey_is_scaled_too() -> None:
    deep = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 65535, 32768))
    assert np.asarray(decode(encoded(deep, "TIFF")))[0, :, 0].tolist() == [255, 128]


def test_floats_within_one_are_fractions_of_white_and_nan_is_black() -> None:
    values = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32))
    assert np.asarray(decode(encoded(values, "TIFF")))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_wide_integers_are_stretched_over_their_range() -> None:
    values = Image.fromarray(np.array([[-1000, 99_000, 199_000]], dtype=np.int32))
    assert np.asarray(decode(encoded(values, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = decode(encoded(red, "TIFF")).getpixel((0, 0))
    assert pixel == (255, 0, 0)
    assert decode(encoded(red, "JPEG")).mode == "RGB"


def test_a_palette_keeps_its_colours() -> None:
    palette = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert decode(encoded(palette)).getpixel((0, 0)) == (10, 200, 30)


@pytest.mark.parametrize(
    ("mode", "hidden"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("RGBA", (0, 0, 0, 0)), ("LA", (90, 0))]
)
def test_transparent_parts_are_white_whatever_colour_is_hidden_there(mode: str, hidden: tuple[int, ...]) -> None:
    assert decode(encoded(Image.new(mode, (4, 4), hidden))).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_black_is_grey() -> None:
    assert decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert decode(encoded(palette, kind, transparency=1)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_and_its_header_size_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    image = Image.new("RGB", (40, 24), "white")
    image.paste((0, 0, 0), (0, 0, 16, 8))  # a black corner, top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    ref = saved(tmp_path, encoded(image, kind, exif=exif))
    upright = open_image(ref)
    assert upright.size == ((40, 24) if orientation < 5 else (24, 40)) == image_size(ref)
    right, bottom = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    corner = (right * (upright.width - 1), bottom * (upright.height - 1))
    assert max(upright.getpixel(corner)) < 40


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_a_damaged_exif_block_does_not_lose_the_picture() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x07" * 20)
    assert decode(data).size == (40, 24)


def test_a_bomb_is_refused_by_its_header_before_decoding() -> None:
    with pytest.raises(ImageError, match=r"12000 x 7000 pixels, the limit is 64 million") as caught:
        decode(promised_png(12000, 7000), where="bomb.png")
    assert caught.value.reason == "too_large"
    assert isinstance(caught.value, UserError)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_sizes_that_pillow_itself_refuses_are_too_large_as_well() -> None:
    for side in (10_000, 60_000):
        with pytest.raises(ImageError) as caught:
            decode(promised_png(side, side))
        assert caught.value.reason == "too_large"


def test_a_baseline_jpeg_above_the_cap_comes_in_smaller_and_a_progressive_one_is_refused() -> None:
    assert decode(encoded(noise(400, 240), "JPEG"), max_pixels=30_000).size == (200, 120)
    with pytest.raises(ImageError) as caught:
        decode(encoded(noise(400, 240), "JPEG", progressive=True), max_pixels=30_000)
    assert caught.value.reason == "too_large"


def test_at_least_lets_a_jpeg_shrink_but_not_below() -> None:
    data = encoded(noise(400, 240), "JPEG")
    assert decode(data, at_least=60).size == (100, 60)
    assert decode(data, at_least=200).size == (400, 240)
    assert decode(encoded(noise(400, 240)), at_least=60).size == (400, 240)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_picture_is_damaged(kind: str) -> None:
    data = encoded(noise(), kind)
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) // 2], where=f"half.{kind}")
    assert caught.value.reason == "damaged"
    assert str(caught.value).startswith(f"half.{kind}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_cut_of_a_picture_raises_anything_else() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        data = encoded(noise(16, 16), kind)
        for end in range(1, len(data), max(1, len(data) // 60)):
            try:
                decode(data[:end])
            except ImageError as error:
                assert error.reason in ("damaged", "not_a_picture")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_no_flipped_bytes_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        original = np.frombuffer(encoded(noise(16, 16), kind), np.uint8)
        for _ in range(40):
            data = original.copy()
            data[rng.integers(len(data), size=5)] = rng.integers(256, size=5)
            try:
                decode(data.tobytes(), max_pixels=1_000_000)
            except ImageError as error:
                assert error.reason in ("damaged", "not_a_picture", "too_large")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty_file"), (b"<html>not found</html>", "not_a_picture"), (b"\0" * 500, "not_a_picture")],
)
def test_what_is_no_picture_says_so(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(saved(tmp_path, data))
    assert caught.value.reason == reason


def test_postscript_is_never_run() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert caught.value.reason == "not_a_picture"


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.png", "missing_file"), (tmp_path, "damaged")):
        with pytest.raises(ImageError) as caught:
            open_image(ImageRef(str(path)))
        assert caught.value.reason == reason


def test_sha256_tells_bytes_apart_not_pixels(tmp_path: Path) -> None:
    one = saved(tmp_path, encoded(noise()), "a.png")
    same = saved(tmp_path, encoded(noise()), "b.png")
    other = saved(tmp_path, encoded(noise(), compress_level=1), "c.png")
    assert sha256(one) == sha256(same) != sha256(other)
