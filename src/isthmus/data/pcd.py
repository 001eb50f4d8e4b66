"""Point Cloud Data 0.7 with fields x, y and z: ascii, binary or binary_compressed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from isthmus.errors import DataError


def read_pcd(path: Path) -> np.ndarray:
    """Points ``(n, 3)``, numbers as stored and not checked further.

    Raises:
        DataError: a field is missing, or header and data do not agree. Other broken input ends in any exception.
    """
    header, body = _pcd_header(path)
    names = header["FIELDS"]
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise DataError(f"{path}: FIELDS: expected x, y and z, found {' '.join(names)}")
    widths = [int(width) for width in header.get("COUNT", ["1"] * len(names))]
    kinds = {"F": "f", "I": "i", "U": "u"}
    # Padding fields all have the same name "_", so columns go by their number.
    layout = [
        (str(column), f"<{kinds[kind]}{size}", (width,))
        for column, (kind, size, width) in enumerate(zip(header["TYPE"], header["SIZE"], widths, strict=True))
    ]
    if len(layout) != len(names):
        raise DataError(f"{path}: TYPE: expected one for each of the {len(names)} fields, found {len(layout)}")
    count = int(header["POINTS"][0])
    columns = [names.index(axis) for axis in "xyz"]
    encoding = header["DATA"][0]
    if encoding == "ascii":
        table = np.loadtxt(io.BytesIO(body), ndmin=2)
        starts = np.concatenate([[0], np.cumsum(widths)])
        if table.shape != (count, starts[-1]):
            raise DataError(
                f"{path}: expected {count} points of {starts[-1]} numbers, found {table.shape[0]} of {table.shape[1]}"
            )
        return table[:, starts[columns]]
    record = np.dtype(layout)
    if encoding == "binary_compressed":
        packed, unpacked = (int(size) for size in np.frombuffer(body[:8], "<u4", 2))
        body = _lzf(body[8 : 8 + packed], unpacked)
    elif encoding != "binary":
        raise DataError(f"{path}: DATA: expected ascii, binary or binary_compressed, found {encoding}")
    if len(body) < count * record.itemsize:
        raise DataError(f"{path}: expected {count} points of {record.itemsize} bytes, found {len(body)} bytes of data")
    if encoding == "binary":
        rows = np.frombuffer(body, record, count)
        return np.stack([rows[str(column)][:, 0] for column in columns], axis=1).astype(np.float64)
    # The compressed form stores one whole field after the other.
    out = np.empty((count, 3))
    for axis, column in enumerate(columns):
        start = count * sum(record[other].itemsize for other in range(column))
        values = np.frombuffer(body, record[column].base, count * widths[column], start)
        out[:, axis] = values.reshape(count, widths[column])[:, 0]
    return out


def _pcd_header(path: Path) -> tuple[dict[str, list[str]], bytes]:
    """Words of every header line by their keyword, and the bytes after the DATA line."""
    content = path.read_bytes()
    match = re.search(rb"^DATA[ \t]+\S+[ \t]*\r?\n", content, re.MULTILINE)
    lines = content[: match.end()].decode("ascii").splitlines() if match else []
    header = {words[0]: words[1:] for words in map(str.split, lines) if len(words) > 1 and words[0][0] != "#"}
    for keyword in ("FIELDS", "SIZE", "TYPE", "POINTS", "DATA"):
        if keyword not in header:
            raise DataError(f"{path}: expected a PCD header with {keyword}, found {', '.join(header) or 'none'}")
    return header, content[match.end() :] if match else b""


def _lzf(packed: bytes, size: int) -> bytes:
    """Unpack LZF: a control byte below 32 announces literal bytes, any other a copy of earlier output."""
    out = bytearray()
    at = 0
    while at < len(packed):
        control = packed[at]
        at += 1
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - packed[at] - 1
        at += 1
        if start < 0:
            raise ValueError("LZF copy from before the beginning")
        for offset in range(start, start + length + 2):
            out.append(out[offset])
    if len(out) != size:
        raise ValueError(f"LZF data unpacked to {len(out)} bytes where {size} were announced")
    return bytes(out)
