"""PNG files of 16 bits per channel, which Pillow writes for grey only (ISO/IEC 15948; W3C, "PNG", third edition)."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 3: 2}
_LEFT = 1
"""Filter: each byte less that of the pixel to its left, which smooth maps make small."""


def png16(values: np.ndarray) -> bytes:
    """A PNG file of grey or RGB numbers.

    Shape: ``(H, W)`` or ``(H, W, 3)`` uint16.

    Raises:
        ValueError: another shape or dtype.
    """
    if values.dtype != np.uint16 or values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"values must be uint16 (H, W) or (H, W, 3), found {values.dtype} {values.shape}")
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else 3
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), _LEFT, dtype=np.uint8)
    pixel = 2 * channels
    filtered[:, 1 : 1 + pixel] = rows[:, :pixel]
    filtered[:, 1 + pixel :] = rows[:, pixel:] - rows[:, :-pixel]
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPE[channels], 0, 0, 0)
    compressed = zlib.compress(filtered.tobytes(), 6)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", compressed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
