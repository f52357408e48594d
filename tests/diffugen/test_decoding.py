"""One reader: the same pixels from every format, depth and orientation, and one sentence about anything else."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import EXACT, GREYS, HEIGHT, OTHERS, WIDTH, by_opencv, deep, grey, picture, saved, with_alpha
from PIL import EpsImagePlugin, Image

from diffugen import decoding
from diffugen.decoding import decode, display_range, known_suffixes, max_pixels, stores_as_it_is, to_8_bits
from diffugen.errors import UserError

EVERY = EXACT | {f"grey-{name}": file for name, file in GREYS.items()} | OTHERS


def written(folder: Path, content: bytes, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read_by_opencv(path: Path) -> np.ndarray:
    """As ultralytics reads training images."""
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("name", EXACT)
def test_files_without_loss_keep_their_bits(name: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode(written(tmp_path, EXACT[name]())), picture())


@pytest.mark.parametrize("name", GREYS)
def test_greys_look_the_same_at_every_depth(name: str, tmp_path: Path) -> None:
    pixels = decode(written(tmp_path, GREYS[name]()))
    np.testing.assert_allclose(pixels, np.repeat(grey()[..., None], 3, axis=2), atol=0.51)


def test_colours_of_12_bits_in_16_are_not_black(tmp_path: Path) -> None:
    for suffix in (".png", ".tiff"):
        pixels = decode(written(tmp_path, by_opencv(deep(picture(), 12), suffix)))
        np.testing.assert_allclose(pixels, picture(), atol=0.51)


@pytest.mark.parametrize("name", OTHERS)
def test_lossy_files_look_alike(name: str, tmp_path: Path) -> None:
    pixels = decode(written(tmp_path, OTHERS[name]()))
    wanted = np.repeat(grey()[..., None], 3, axis=2) if name.endswith("-la") else picture()
    half = slice(0, WIDTH // 2 - 8 if name.endswith("clear") else WIDTH)  # clear pixels are lost
    assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - wanted)[:, half].mean() < 12


@pytest.mark.parametrize("bits", [8, 16])
def test_clear_pixels_are_white(bits: int, tmp_path: Path) -> None:
    pixels = with_alpha(picture()) if bits == 8 else deep(with_alpha(picture()), 16)
    read = decode(written(tmp_path, by_opencv(pixels, ".png")))
    np.testing.assert_array_equal(read[:, : WIDTH // 2], picture()[:, : WIDTH // 2])
    assert (read[:, WIDTH // 2 :] == 255).all()


def test_clear_greys_and_palettes_are_white(tmp_path: Path) -> None:
    la = np.dstack([grey(), np.zeros_like(grey())])
    palette = Image.fromarray(grey()).convert("P")
    for content in (saved(Image.fromarray(la), "PNG"), saved(palette, "PNG", transparency=bytes(256))):
        assert (decode(written(tmp_path, content)) == 255).all()
    one_clear = saved(deep(grey(), 16), "PNG", transparency=0)
    read = decode(written(tmp_path, one_clear))[..., 0]
    assert (read == np.where(grey() == 0, 255, grey())).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_that_stands_for_nothing_is_white(bits: int, tmp_path: Path) -> None:
    rows = deep(np.array([[[255, 0, 255], [0, 0, 255]]], np.uint8), bits)
    data = b"\0" + (rows.astype(np.uint8) if bits == 8 else rows.astype(">u2")).tobytes()
    content = png(2, 1, bits, 2, data, clear=struct.pack(">HHH", 2**bits - 1, 0, 2**bits - 1))
    assert decode(written(tmp_path, content)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def png(width: int, height: int, bits: int, colours: int, rows: bytes, clear: bytes = b"") -> bytes:
    """A PNG file by hand: of kinds that no library here writes, or with a size that is a lie."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    nothing = chunk(b"tRNS", clear) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + head + nothing + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_grey_with_alpha(tmp_path: Path) -> None:
    alpha = np.full((HEIGHT, WIDTH), 65535, np.uint16)
    alpha[: HEIGHT // 2] = 0
    rows = np.dstack([deep(grey(), 12), alpha]).astype(">u2").reshape(HEIGHT, -1)
    read = decode(written(tmp_path, png(WIDTH, HEIGHT, 16, 4, b"".join(b"\0" + row.tobytes() for row in rows))))
    assert (read[: HEIGHT // 2] == 255).all()
    np.testing.assert_allclose(read[HEIGHT // 2 :, :, 0], grey()[HEIGHT // 2 :], atol=0.51)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    square = np.zeros((32, 48, 3), np.uint8)
    square[:16, :16], square[16:, :16] = 255, (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, saved(square, kind, exif=exif))
    upright = np.asarray(Image.fromarray(square))
    turns = {1: 0, 3: 2, 6: 3, 8: 1}
    if orientation in turns:
        wanted = np.rot90(upright, turns[orientation])
    else:
        flipped = {2: upright[:, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2)}
        wanted = flipped.get(orientation, np.rot90(upright, 2).transpose(1, 0, 2))
    read = decode(path)
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).mean() < 5
    assert not stores_as_it_is(path) or orientation == 1


def test_damaged_metadata_hide_no_picture(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40):
        np.testing.assert_array_equal(decode(written(tmp_path, saved(picture(), "PNG", exif=exif))), picture())


@pytest.mark.parametrize("name", EVERY)
def test_what_a_dataset_stores_as_it_is_everybody_reads_alike(name: str, tmp_path: Path) -> None:
    content = EVERY[name]()
    kind = "jpeg" if name == "mpo" else name.removeprefix("grey-").split("-")[0].replace("apng", "png")
    path = written(tmp_path, content, f"a.{kind}")
    if stores_as_it_is(path):
        np.testing.assert_array_equal(read_by_opencv(path), decode(path))
    plain = "png bmp webp-lossless webp jpeg jpeg-progressive mpo grey-png-8 grey-png-palette".split()
    assert stores_as_it_is(path) == (name in plain)


def test_a_wrong_suffix_or_a_missing_end_is_not_stored_as_it_is(tmp_path: Path) -> None:
    assert stores_as_it_is(written(tmp_path, EXACT["png"](), "a.PNG"))
    assert not stores_as_it_is(written(tmp_path, EXACT["png"](), "a.jpg"))
    assert not stores_as_it_is(written(tmp_path, OTHERS["jpeg"]() + b"more", "a.jpg"))  # ultralytics would rewrite it


@pytest.mark.parametrize(
    ("low", "high", "whole", "wanted"),
    [
        (0, 65535, True, (0, 65535)),
        (3, 4000, True, (0, 4095)),
        (0, 200, True, (0, 255)),
        (29_000, 31_000, True, (29_000, 31_000)),  # a thermal camera
        (-40, 120, True, (-40, 120)),
        (700, 700, True, (0, 1023)),
        (0, 1, False, (0, 1)),
        (0, 255, False, (0, 255)),
        (0, 3.5, False, (0, 3.5)),
        (0.2, 0.25, False, (0.2, 0.25)),
    ],
)
def test_the_range_of_deep_values(low: float, high: float, whole: bool, wanted: tuple[float, float]) -> None:
    assert display_range(low, high, whole=whole) == wanted


def test_values_that_are_not_finite_are_scaled_too() -> None:
    values = np.array([[0.0, 0.5, 1.0], [np.nan, np.inf, -np.inf]], np.float32)
    assert to_8_bits(values).tolist() == [[0, 128, 255], [0, 255, 0]]
    assert to_8_bits(np.full((2, 2), np.nan, np.float32)).max() == 0
    assert to_8_bits(np.full((2, 2), -5, np.int32)).max() == 0


def test_only_files_are_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.png"))
    with listener:
        for path in (*tmp_path.iterdir(), Path("/dev/zero"), Path("/dev/stdin")):
            with pytest.raises(UserError, match=r"cannot be read .*no regular file"):
                decode(path)


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's EPS plugin starts whatever is called gs."""
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it looks for it once
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
    for suffix in (".png", ".jpg", ".eps"):
        with pytest.raises(UserError, match="no image of a known format"):
            decode(written(tmp_path, eps, f"a{suffix}"))
    assert not started.exists()
    with contextlib.suppress(OSError), Image.open(tmp_path / "a.eps") as image:
        image.load()
    assert started.exists(), "else this test could not fail"


def test_other_decoders_of_pillow_are_not_called(tmp_path: Path) -> None:
    for kind in ("PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "ICNS", "IM"):
        side = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
        with pytest.raises(UserError, match="no image of a known format"):
            decode(written(tmp_path, saved(side, kind)))


def test_an_image_may_be_so_large_and_no_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width, height in ((70_000, 70_000), (250_001, 1000)):
        path = written(tmp_path, png(width, height, 8, 0, b"\0"))
        with pytest.raises(UserError, match=r"has more than 250000000 pixels; make it smaller, or set .*MAX_PIXELS"):
            decode(path)
    small = written(tmp_path, EXACT["png"]())
    for setting, sentence in (("959", "has more than 959 pixels"), ("-1", "MAX_PIXELS is '-1'"), ("x", "is 'x'")):
        monkeypatch.setenv("DIFFUGEN_MAX_PIXELS", setting)
        max_pixels.cache_clear()
        with pytest.raises(UserError, match=sentence):
            decode(small)
    monkeypatch.setenv("DIFFUGEN_MAX_PIXELS", "960")
    max_pixels.cache_clear()
    assert decode(small).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.undo()
    max_pixels.cache_clear()
    max_pixels()


@pytest.mark.parametrize("name", ["png", "bmp", "tiff", "jp2", "jpeg", "webp", "avif", "grey-tiff-16", "grey-gif"])
def test_a_file_that_was_cut_off_is_one_sentence(name: str, tmp_path: Path) -> None:
    content = EVERY[name]()
    for length in (0, 9, len(content) // 2):
        with pytest.raises(UserError, match=r"image .*a\.png cannot be read .*; replace or remove it"):
            decode(written(tmp_path, content[:length]))


def test_a_tiff_that_is_higher_than_its_strips_is_refused(tmp_path: Path) -> None:
    """Pillow alone reads black rows."""
    content = bytearray(EXACT["tiff"]())
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (WIDTH, HEIGHT)
    fields = [struct.pack("<HHI", 257, kind, 1) for kind in (3, 4)]  # the height, as short or long
    place = max(content.find(field) for field in fields) + 8
    content[place : place + 2] = struct.pack("<H", 2 * HEIGHT)
    with pytest.raises(UserError, match="its strips do not cover it"):
        decode(written(tmp_path, bytes(content)))


def test_heic_is_read_with_the_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = (200, 40, 30)
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=95)
    read = decode(tmp_path / "a.heic")
    assert read.shape == (64, 96, 3) and ".heic" in known_suffixes()
    np.testing.assert_allclose(read.astype(int), pixels, atol=12)


def test_heic_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for function in (decoding._has_heif, known_suffixes):
        function.cache_clear()
    path = written(tmp_path, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.heic")
    with pytest.raises(UserError, match=r"HEIC needs `pip install 'diffugen\[heif\]'`"):
        decode(path)
    assert ".heic" not in known_suffixes()

    there = ModuleType("pillow_heif")
    there.register_heif_opener = lambda: registered.append(True)  # type: ignore[attr-defined]
    registered: list[bool] = []
    monkeypatch.setitem(sys.modules, "pillow_heif", there)
    for function in (decoding._has_heif, known_suffixes):
        function.cache_clear()
    assert ".heic" in known_suffixes() and registered
    monkeypatch.undo()
    for function in (decoding._has_heif, known_suffixes):
        function.cache_clear()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(EVERY)), data=st.data())
def test_damaged_files_are_read_or_refused_in_a_sentence(name: str, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(EVERY[name]())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(64, len(content) - 1)))
        what = data.draw(st.sampled_from(["change", "insert", "delete", "cut"]))
        if what == "change":
            content[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        elif what == "insert":
            content[place:place] = data.draw(st.binary(max_size=20))
        elif what == "delete":
            del content[place : place + data.draw(st.integers(1, 20))]
        else:
            del content[place:]
        if not content:
            break
    path = written(tmp_path, bytes(content))
    try:
        pixels = decode(path)
    except UserError as error:
        assert "\n" not in str(error) and "a.png" in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        stores_as_it_is(path)
