"""The rival that needs no split network: each input as a picture file, and the whole network.

JPEG and WebP through Pillow, at its most frugal settings. Files of one setting repeat what two
ends that know each other need not send: signatures, sizes and tables. So each size is told twice,
of the file as it is and without that.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowerpress.compression import ConfigError
from flowerpress.simulations.tasks import Samples

__all__ = ["FORMATS", "Pictures", "as_pictures", "is_images"]

FORMATS = ("jpeg", "webp")

_COLOURS = 3
_SOS, _DHT = 0xDA, 0xC4
# RIFF and its size, WEBP, the chunk's name and size; then a start code and the picture's sides.
_WEBP_SHARED = 12 + 8 + 7


@dataclass(frozen=True, eq=False)
class Pictures:
    """Inputs as they come out of picture files.

    ``samples``: decoded inputs, with their labels. ``files``: bytes of all files. ``bare``: bytes
    of what is each picture's own, without what all files have in common; how long each one is
    would have to be told too, and is not counted.
    """

    samples: Samples
    files: int
    bare: int


def is_images(samples: Samples) -> bool:
    """Whether ``as_pictures`` takes these inputs: uint8, (N, H, W) or (N, H, W, 3)."""
    inputs = samples.inputs
    colours = inputs.dim() == 4 and inputs.shape[3] == _COLOURS
    return inputs.dtype == torch.uint8 and (colours or (inputs.dim() == 3 and inputs.shape[1] > 1))


def as_pictures(samples: Samples, form: str, quality: int, *, count: bool = True) -> Pictures:
    """Write each input as a file and read it again.

    Grey levels that do not reach to 255 are stretched before and shrunk after, as a camera's
    exposure would. Colours of both formats have half the resolution.

    Args:
        samples: inputs uint8, (N, H, W) or (N, H, W, 3).
        form: ``jpeg``, with Huffman tables of its own or the standard ones, whichever is smaller;
            or ``webp``, with its slowest search.
        quality: 1 to 100, as Pillow takes it.
        count: whether bytes are counted, which takes time; else they are 0.

    Raises:
        ConfigError: inputs that are no images, an unknown format or quality, or no Pillow.
    """
    if form not in FORMATS:
        raise ConfigError(f"pictures are {' or '.join(FORMATS)}, not {form!r}")
    if not 1 <= quality <= 100:
        raise ConfigError(f"the quality of a picture is from 1 to 100, not {quality}")
    if not is_images(samples):
        raise ConfigError(
            f"inputs of shape {tuple(samples.inputs.shape)}, {samples.inputs.dtype}, are no "
            "pictures; uint8 of (N, H, W) or (N, H, W, 3) are"
        )
    pillow = _pillow()
    arrays = samples.inputs.numpy()
    scale = 255 / max(1, int(arrays.max(initial=0))) if arrays.ndim == 3 else 1.0
    decoded = np.empty_like(arrays)
    files = bare = 0
    for index, array in enumerate(arrays):
        shown = np.ascontiguousarray(_scaled(array, scale))
        data = _write(pillow, shown, form, quality)
        decoded[index] = _scaled(_read(pillow, data, array.ndim), 1 / scale)
        if count:
            size, own = _sizes(pillow, shown, data, form, quality)
            files += size
            bare += own
    made = Samples(torch.from_numpy(decoded), samples.labels, samples.groups)
    return Pictures(made, files, bare)


def _scaled(array: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    return array if scale == 1.0 else np.rint(array * scale).clip(0, 255).astype(np.uint8)


def _sizes(
    pillow: ModuleType, shown: NDArray[np.uint8], data: bytes, form: str, quality: int
) -> tuple[int, int]:
    """Return bytes of the smallest file, and at the least those of its own part."""
    if form == "webp":
        return len(data), len(data) - _WEBP_SHARED
    # The pixels are the same; only how their coefficients are written differs.
    tuned = _write(pillow, shown, form, quality, optimize=True)
    own, _ = _jpeg_parts(data)
    own_tuned, tables = _jpeg_parts(tuned)
    return min(len(data), len(tuned)), min(own, own_tuned + tables)


def _jpeg_parts(data: bytes) -> tuple[int, int]:
    """Return the bytes of a JPEG file's coefficients, and those of its Huffman tables."""
    at, tables = 2, 0
    while data[at + 1] != _SOS:
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        tables += size if data[at + 1] == _DHT else 0
        at += size
    header = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data) - at - header - 2, tables  # the file ends with a mark of two bytes


def _write(
    pillow: ModuleType, array: NDArray[np.uint8], form: str, quality: int, **options: Any
) -> bytes:
    out = io.BytesIO()
    effort = (
        {"method": 6} if form == "webp" else {"subsampling": "4:2:0"} if array.ndim == 3 else {}
    )
    pillow.fromarray(array).save(out, form, quality=quality, **effort, **options)
    return out.getvalue()


def _read(pillow: ModuleType, data: bytes, axes: int) -> NDArray[np.uint8]:
    with pillow.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB" if axes == 3 else "L"))  # WebP knows no grey


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(
            "pictures are written with Pillow, which is not installed: "
            "pip install 'flowerpress[simulation]' -c constraints.txt"
        ) from error
    return Image
