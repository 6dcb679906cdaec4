"""Every kind of picture file, pixel by pixel against what was put into it or another program's reading of it."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

import dhm
from dhm.data.folders import decode, extensions, open_image

H, W = 24, 32


def noise(channels: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    high = np.random.default_rng(seed).integers(0, 2**bits, (H, W, channels))
    high[0, 0], high[0, 1] = 2**bits - 1, 0
    return high.squeeze().astype(np.uint8 if bits <= 8 else np.uint16)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def png(file: Path, values: np.ndarray, colour: int) -> None:
    """A PNG of 16 bits a channel, by its specification: Pillow writes grey ones alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", W, H, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def tiff(file: Path, values: np.ndarray, bits: int, photometric: int = 1, most: int | None = None) -> None:
    """An uncompressed TIFF of 12 or 16 bits a sample, by its specification."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        data = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
        content = data.astype(np.uint8).tobytes()
    else:
        content = values.astype("<u2").tobytes()
    tags = {256: W, 257: H, 258: bits, 259: 1, 262: photometric, 273: 0, 277: channels, 278: H, 279: len(content)}
    if most is not None:
        tags[281] = most
    end = 8 + 2 + 12 * len(tags) + 4
    tags[273] = end + 2 * channels
    entries = b"".join(
        struct.pack("<HHIHH", tag, 3, channels, end, 0) if tag == 258 and channels > 1
        else struct.pack("<HHII", tag, 4, 1, value) if tag in (273, 279)
        else struct.pack("<HHIHH", tag, 3, 1, value, 0)
        for tag, value in sorted(tags.items())
    )  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    file.write_bytes(head + struct.pack(f"<{channels}H", *[bits] * channels) + content)


def saved(name: str, mode: str, values: np.ndarray, expected: np.ndarray, **how) -> tuple:
    def write(file: Path) -> None:
        image = Image.fromarray(values) if mode in ("I;16",) else Image.fromarray(values).convert(mode)
        image.save(file, **how)

    return name, write, expected


RGB, L = noise(3), noise(1)
RGBA, LA = noise(4, seed=1), noise(2, seed=2)
PALETTE = Image.fromarray(RGB).quantize(17)
COLOURS = np.array(PALETTE.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(PALETTE)]
CMYK = noise(4, seed=3)
INK = CMYK.astype(float)
FROM_INK = np.clip(255 - INK[..., 3:] - INK[..., :3] * (255 - INK[..., 3:]) / 255, 0, 255)
G16, C16 = noise(1, 16, 4), noise(3, 16, 5)
G12 = noise(1, 12, 6)
TURNED = Image.Exif()
TURNED[0x0112] = 6


def frames(*arrays: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(array) for array in arrays]


LOSSLESS: list[tuple[str, Callable[[Path], None], np.ndarray]] = [
    *(
        saved(f"rgb.{kind}", "RGB", RGB, RGB)
        for kind in ("png", "bmp", "tif", "tiff", "ppm", "pnm", "tga", "pcx", "dib")
    ),
    *(saved(f"rgb.{kind}", "RGB", RGB, RGB) for kind in ("PNG", "Tif", "sgi", "im", "dds", "qoi")),
    *(
        saved(f"grey.{kind}", "L", L, grey(L))
        for kind in ("png", "bmp", "tif", "pgm", "pnm", "tga", "pcx", "gif", "im")
    ),
    saved("rgb.webp", "RGB", RGB, RGB, lossless=True),
    saved("rgb.jp2", "RGB", RGB, RGB, irreversible=False),
    saved("grey.jp2", "L", L, grey(L), irreversible=False),
    saved("rgb-lzw.tif", "RGB", RGB, RGB, compression="tiff_lzw"),
    saved("rgba.png", "RGBA", RGBA, RGBA[..., :3]),
    saved("rgba.tif", "RGBA", RGBA, RGBA[..., :3]),
    saved("rgba.tga", "RGBA", RGBA, RGBA[..., :3]),
    saved("la.png", "LA", LA, grey(LA[..., 0])),
    ("bits.png", lambda f: Image.fromarray(L > 127).save(f), grey(np.where(L > 127, 255, 0))),
    ("bits.pbm", lambda f: Image.fromarray(L > 127).save(f), grey(np.where(L > 127, 255, 0))),
    ("bits.tif", lambda f: Image.fromarray(L > 127).save(f), grey(np.where(L > 127, 255, 0))),
    ("palette.png", PALETTE.save, COLOURS),
    ("palette.gif", PALETTE.save, COLOURS),
    ("palette-clear.png", lambda f: PALETTE.save(f, transparency=3), COLOURS),
    ("cmyk.tif", lambda f: Image.fromarray(CMYK, "CMYK").save(f), FROM_INK),
    ("turned.png", lambda f: Image.fromarray(RGB).save(f, exif=TURNED), RGB),
    ("turned.tif", lambda f: Image.fromarray(RGB).save(f, exif=TURNED), np.rot90(RGB, -1)),  # Pillow's own doing
    ("film.gif", lambda f: frames(L, 255 - L)[0].save(f, save_all=True, append_images=frames(255 - L)), grey(L)),
    ("film.png", lambda f: frames(RGB)[0].save(f, save_all=True, append_images=frames(255 - RGB)), RGB),
    ("pages.tif", lambda f: frames(RGB)[0].save(f, save_all=True, append_images=frames(255 - RGB)), RGB),
    saved("16.png", "I;16", G16, grey(G16 >> 8)),
    saved("16.tif", "I;16", G16, grey(G16 >> 8)),
    ("16.pgm", lambda f: f.write_bytes(b"P5 32 24 65535\n" + G16.astype(">u2").tobytes()), grey(G16 >> 8)),
    ("12.pgm", lambda f: f.write_bytes(b"P5 32 24 4095\n" + G12.astype(">u2").tobytes()), grey(G12 >> 4)),
    ("16-rgb.png", lambda f: png(f, C16, 2), C16 >> 8),
    ("16-rgb.tif", lambda f: tiff(f, C16, 16, 2), C16 >> 8),
    ("16-inverse.tif", lambda f: tiff(f, G16, 16, 0), grey((65535 - G16) >> 8)),
    ("12-packed.tif", lambda f: tiff(f, G12, 12), grey(G12 >> 4)),
    ("12-declared.tif", lambda f: tiff(f, G12, 16, most=4095), grey(G12 >> 4)),
    ("16-dark.tif", lambda f: tiff(f, G12, 16, most=65535), grey(G12 >> 8)),
    ("16-black.png", lambda f: Image.fromarray(G16 * 0).save(f), grey(G16 * 0)),
]


@pytest.mark.parametrize(("name", "write", "expected"), LOSSLESS, ids=[name for name, *_ in LOSSLESS])
def test_pixels_are_those_that_were_written(
    name: str, write: Callable[[Path], None], expected: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / name
    write(file)
    assert file.suffix.lower() in extensions()
    seen = decode([str(file)])[0].permute(1, 2, 0).numpy()
    most = 1 if "cmyk" in name or name == "12.pgm" else 0  # rounding of the inks, and of Pillow's 12 to 16 bits
    assert np.abs(seen.astype(int) - expected).max() <= most


@pytest.mark.parametrize("how", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}, {"exif": TURNED}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["jpg", "JPEG", "jfif"])
def test_jpegs_are_what_another_decoder_reads(kind: str, mode: str, how: dict, tmp_path: Path) -> None:
    """torchvision's, which follows no orientation either."""
    file = tmp_path / f"x.{kind}"
    Image.fromarray(np.linspace(0, 255, H * W * 3).reshape(H, W, 3).astype(np.uint8)).convert(mode).save(
        file, "JPEG", **how
    )
    other = torchvision.io.decode_image(str(file), torchvision.io.ImageReadMode.RGB)
    assert (decode([str(file)])[0].int() - other.int()).abs().max() <= 2


NARROW = {
    f"{bits} bits.{kind}": (bits, kind) for bits in (8, 10, 12, 14) for kind in ("png", "tif", "rgb.png", "rgb.tif")
}


@pytest.mark.parametrize("name", NARROW)
def test_fewer_bits_in_a_file_of_sixteen_are_not_guessed(name: str, tmp_path: Path) -> None:
    bits, kind = NARROW[name]
    file, colour = tmp_path / name, "rgb" in kind
    values = noise(3 if colour else 1, bits).astype(np.uint16)
    if kind == "png":
        Image.fromarray(values).save(file)
    elif kind == "rgb.png":
        png(file, values, 2)
    else:
        tiff(file, values, 16, 2 if colour else 1)
    with pytest.raises(dhm.InputError, match=r"16-bit values end at .* which value is white is not said"):
        open_image(str(file))


WRONG = {
    "empty.jpg": b"",
    "page.png": b"<html><body>404 Not Found</body></html>",
    "zeros.tif": bytes(5000),
    "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_picture_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WRONG[name])
    with pytest.raises(dhm.InputError, match=rf"{name} is no readable image: .*\Z"):
        open_image(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore")  # of Pillow, on what it finds damaged
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "gif", "bmp", "webp", "ppm", "tga", "jp2", "pcx", "sgi", "qoi"])
def test_damaged_files_are_read_or_told(kind: str, tmp_path: Path) -> None:
    """60 of each kind, cut short or with bytes overwritten: RGB of 8 bits, or one sentence with the file's name."""
    Image.fromarray(RGB).save(tmp_path / f"whole.{kind}")
    whole, rng = (tmp_path / f"whole.{kind}").read_bytes(), np.random.default_rng(len(kind))
    for i in range(60):
        content = bytearray(whole[: rng.integers(len(whole))] if i % 3 == 0 else whole)
        for place in rng.integers(0, min(len(content), 300), 4) if i % 3 and content else ():
            content[place] = rng.integers(256)
        file = tmp_path / f"{i}.{kind}"
        file.write_bytes(content)
        sentence = ""
        try:
            read = open_image(str(file))
        except dhm.InputError as error:
            sentence = str(error)
        assert read.mode == "RGB" if not sentence else sentence.startswith(f"{file} is no readable image: ")
        assert "\n" not in sentence
