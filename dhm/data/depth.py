"""Pictures of any depth as RGB of 8 bits."""

import numpy as np
from PIL import Image

_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 281, 258, 262  # tags of TIFF
_SCALED_BY_PILLOW = ("PPM", "JPEG2000")  # formats that say which value is white
_FULL = 65535
_SENSORS = 2**14  # cameras, microscopes and scanners that store fewer than 16 bits store 14 or less


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture as Pillow's `convert("RGB")` gives it, which cuts what has more than 8 bits a channel off at 255: of
    16 bits the range there is becomes 0 to 255.

    That range is 0 to 65,535 unless the file says otherwise (TIFF's MaxSampleValue or BitsPerSample, the maximum of
    PGM and JPEG 2000). A file that says nothing and whose values all lie in the lowest quarter may be dark, or be 12
    bits in a container of 16; that cannot be told from it, and no guess is made.

    Raises:
        ValueError: the range cannot be told, or pixels have 32 bits (or a sign, which Pillow reads so).
    """
    wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    wide = wide or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # what Pillow narrows to 8
    if not wide:
        if image.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits; save it with 8 or 16 bits a channel")
        return image.convert("RGB")
    white = _white(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        _see_range(int(values.max()), white)
        values = np.minimum(values, white or _FULL)
        if _tag(image, _PHOTOMETRIC) == 0:
            values = (white or _FULL) - values
        return Image.fromarray((values * 256 // ((white or _FULL) + 1)).astype(np.uint8)).convert("RGB")
    rgb = image.convert("RGB")  # of each value the upper byte
    if white not in (None, _FULL):
        raise ValueError(
            f"its colours end at {white:,} of 16 bits, of which Pillow keeps 8; save it with 8 bits a channel"
        )
    _see_range(256 * max(most for _, most in rgb.getextrema()) + 255, white)  # type: ignore[misc]
    return rgb


def _white(image: Image.Image) -> int | None:
    """The value that is white; None if the file does not say."""
    if image.format in _SCALED_BY_PILLOW:
        return _FULL
    bits, most = _tag(image, _BITS_PER_SAMPLE), _tag(image, _MAX_SAMPLE_VALUE)
    return most if most else 2**bits - 1 if bits and bits < 16 else None


def _tag(image: Image.Image, number: int) -> int | None:
    """A number of a TIFF file, the first where each channel has its own."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _see_range(most: int, white: int | None) -> None:
    if white is None and 0 < most < _SENSORS:
        raise ValueError(
            f"its 16-bit values end at {most:,}, so it may be dark or hold fewer bits, and which value is white is not "
            "said; save it with 8 bits a channel, or scaled to all 16"
        )
