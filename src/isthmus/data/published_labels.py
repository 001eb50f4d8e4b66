"""Published lists of partial labels: those of MTPSL for NYUv2, Cityscapes and PASCAL.

They belong to Li, Liu, Bilen, "Learning Multiple Dense Prediction Tasks from Partially Annotated Data", CVPR 2022, and
are pickles of two kinds. Neither is ever unpickled with the right to run code: a ``.pth`` file goes through
``torch.load(weights_only=True)``, and the pickle inside an object ``.npy`` through an unpickler for which nothing but
stand-ins of NumPy's arrays has a name.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from isthmus.data.label_table import LabelTable, are_names, shortened
from isthmus.errors import DataError

MTPSL_COLUMNS: dict[str, tuple[str, ...]] = {
    "nyuv2": ("segmentation", "depth", "normals"),
    "cityscapes": ("segmentation", "inverse_depth"),
}
"""Tasks of the columns in MTPSL's ``.pth`` files, by data set."""

MTPSL_PASCAL: dict[str, str] = {
    "semseg": "segmentation",
    "human_parts": "parts",
    "sal": "saliency",
    "normals": "normals",
    "edge": "edges",
}
"""Tasks of the keys in MTPSL's PASCAL ``.npy`` files."""


def read_mtpsl_pth(path: Path, dataset: str) -> LabelTable:
    """MTPSL's lists for NYUv2 and Cityscapes (``data/nyuv2_settings/onelabel.pth`` and its like).

    The file is a dictionary ``{"labels_weights": float32 (N, K)}`` of ones and zeros in torch's old format. Its rows
    are the numbers of MTAN's training files, so images are named ``train/0`` and on, as
    :class:`isthmus.data.readers.mtan.MTAN` names them; its columns are :data:`MTPSL_COLUMNS`.

    Raises:
        DataError: the file cannot be read or is not of that form.
    """
    path = Path(path)
    if dataset not in MTPSL_COLUMNS:
        raise DataError(f"dataset: expected one of {', '.join(MTPSL_COLUMNS)}, found {dataset!r}")
    tasks = MTPSL_COLUMNS[dataset]
    if not path.is_file():
        raise DataError(f"{path}: expected a .pth file of partial labels, found no file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Both of torch's formats fail in many ways on other files; refused code is an UnpicklingError.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: expected a .pth file of tensors only, found {reason}") from error
    weights = content.get("labels_weights") if isinstance(content, dict) else None
    if not isinstance(weights, torch.Tensor) or weights.ndim != 2 or weights.shape[1] != len(tasks):
        found = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise DataError(
            f"{path}: labels_weights: expected a tensor of shape (N, {len(tasks)}) for {', '.join(tasks)}, "
            f"found {found}"
        )
    values = weights.to(torch.float64).numpy()
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            f"{path}: labels_weights: expected zeros and ones, found {values[~np.isin(values, (0, 1))][0]:g}"
        )
    labels = LabelTable.of(tasks, [f"train/{row}" for row in range(len(values))], values == 1)
    return LabelTable(labels.tasks, labels.images, str(path))


def read_mtpsl_npy(path: Path) -> LabelTable:
    """MTPSL's lists for PASCAL (``data/pascal_settings/onelabel.npy``), also as ``np.save`` of any such dictionary.

    The file is a pickled dictionary: a key of :data:`MTPSL_PASCAL` and a list (or array) of image ids
    (``2008_000008``) that keep the label of that task. Only texts, numbers, lists, tuples and dictionaries come out of
    the pickle; NumPy's arrays are not made but recognised, and any other class or function it names is refused.

    Raises:
        DataError: the file cannot be read or is not of that form.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected an .npy file of partial labels, found no file")
    try:
        with open(path, "rb") as file:
            content = _pickled_dictionary(file)
    except Exception as error:
        # A pickle is a program; a broken one fails in any way at all.
        raise DataError(f"{path}: expected a dictionary saved by numpy.save, found {error}") from error
    unknown = [key for key in content if key not in MTPSL_PASCAL]
    missing = [key for key in MTPSL_PASCAL if key not in content]
    if unknown or missing:
        raise DataError(
            f"{path}: expected the keys {', '.join(MTPSL_PASCAL)}, found {shortened(sorted(map(str, content)))}"
        )
    images: dict[str, list[str]] = {}
    for key, ids in content.items():
        if not are_names(ids):
            raise DataError(f"{path}: {key}: expected a list of different image ids, found {shortened(ids)}")
        for name in ids:
            images.setdefault(name, []).append(MTPSL_PASCAL[key])
    tasks = tuple(MTPSL_PASCAL.values())
    return LabelTable(
        tasks, {name: tuple(task for task in tasks if task in images[name]) for name in sorted(images)}, str(path)
    )


def _pickled_dictionary(file: BinaryIO) -> dict[Any, Any]:
    """The dictionary in an object array without dimensions."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if not dtype.hasobject or shape != ():
        raise ValueError(f"an array {dtype} {shape}")
    # The stand-ins belong to this call alone, so a pickle that writes to them reaches nothing else.
    content = _unpickler(file).load()
    elements = content.elements() if hasattr(content, "elements") else None
    if not isinstance(elements, list) or len(elements) != 1 or not isinstance(elements[0], dict):
        raise ValueError("something else in it")
    return {key: value.elements() if hasattr(value, "elements") else value for key, value in elements[0].items()}


def _unpickler(file: BinaryIO) -> pickle.Unpickler:
    """An unpickler for which stand-ins of NumPy's arrays, dtypes and texts have a name, and nothing else."""

    class DType:
        def __init__(self, code: str = "", *_: Any) -> None:
            self.code = code

        def __setstate__(self, state: Any) -> None:
            if state[1] == ">":
                raise ValueError("big-endian numbers")

        def texts(self, content: bytes) -> list[str]:
            if not re.fullmatch(r"U[1-9]\d{0,5}", self.code):
                raise ValueError(f"an array {self.code}")
            step = 4 * int(self.code[1:])
            cut = (content[at : at + step] for at in range(0, len(content), step))
            return [piece.decode("utf-32-le").rstrip("\0") for piece in cut]

    class Array:
        state: tuple[Any, ...] = ()

        def __setstate__(self, state: Any) -> None:
            self.state = state

        def elements(self) -> list[Any]:
            _, _, dtype, _, content = self.state
            return content if isinstance(content, list) else dtype.texts(content)

    def reconstruct(*_: Any) -> Array:
        return Array()

    def scalar(dtype: DType, content: bytes) -> str:
        return dtype.texts(content)[0]

    def encode(text: str, _: str) -> bytes:
        # How Python 3 writes bytes in a pickle that Python 2 can read.
        return text.encode("latin-1")

    named: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): DType,
        ("_codecs", "encode"): encode,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        named |= {(module, "_reconstruct"): reconstruct, (module, "scalar"): scalar}

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in named:
                raise pickle.UnpicklingError(f"the name {module}.{name}, which is not allowed")
            return named[module, name]

    return Restricted(file)
