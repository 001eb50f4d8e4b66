"""Faces of the Extended Yale B database with normals by photometric stereo.

28 people, frontal and without expression, each under 16 lights; crops from the brows to the chin, 96 x 84 pixels, grey.
Normals were worked out from many lights of a person (Georghiades, Belhumeur and Kriegman, PAMI 2001, give the data; the
normals are a Lambertian fit to it): good, but not measured, and least so in the eyes and under the nose. They belong to
the person, so all 16 images of one carry the same label.

The file lies in the ``dense`` folder of the data directory that the environment variable ``ISTHMUS_DATA`` names; it may
not be redistributed.

============ ======================= =============================================================================
array        shape and type          what
============ ======================= =============================================================================
image        (n, 16, H, W) uint8     grey
normal       (n, H, W, 3) float16    unit normals: x to the right, y **up**, z **towards the camera**
mask         (n, H, W) bool          where the fit holds
light_domain (16,) text              ``front`` (at most 25 degrees from the camera's axis) or ``side``
light_az_el  (16, 2) int64           azimuth (positive: the light stands to the left of the picture) and elevation
subject      (n,) text               ``yaleB01``, ...
============ ======================= =============================================================================

The reader turns normals to the frame used here (x right, y down, z forward: y and z change sign). That the file's frame
is the one stated follows from shading: the normals times ``light_dir`` reproduce the images in this frame alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.data.clouds import Part
from isthmus.data.data_directory import data_file
from isthmus.data.derived_edges import RECIPE, image_edges
from isthmus.data.files import stamp
from isthmus.data.images import ImageSample
from isthmus.errors import DataError

FILE = Path("dense") / "yaleb_face_normals_96x84.npz"

Lights = Literal["front", "side", "all"]
LIGHTS: tuple[Lights, ...] = get_args(Lights)

_FIELDS = ("image", "normal", "mask", "light_domain", "light_az_el", "subject")
_TO_CAMERA = np.array([1.0, -1.0, -1.0], dtype=np.float32)


@dataclass(frozen=True)
class YaleBFaces:
    """The faces, as a reader.

    Tasks: ``normals`` (where the fit holds) and ``edges``, worked out from each image alone as
    ``isthmus.data.derived_edges`` says, so that a simulated face has the same task. An image's group is its person.

    Args:
        path: the file; ``None`` takes the one in the data directory that ``ISTHMUS_DATA`` names.
        test_subjects: people (``"yaleB01"``) whose images are the test part.
        val_subjects: people whose images are the validation part; all others are for training.
        lights: which images: ``"front"``, ``"side"`` or ``"all"``.

    Raises:
        DataError: a person is in both parts, or ``lights`` is none of the three.
    """

    path: Path | None = None
    test_subjects: tuple[str, ...] = field(kw_only=True)
    val_subjects: tuple[str, ...] = field(kw_only=True)
    lights: Lights = field(default="all", kw_only=True)

    def __post_init__(self) -> None:
        both = sorted(set(self.test_subjects) & set(self.val_subjects))
        if both:
            raise DataError(
                f"test_subjects and val_subjects: expected a person in one of them, found {both[0]!r} in both"
            )
        if self.lights not in LIGHTS:
            raise DataError(f"YaleBFaces.lights: expected one of {', '.join(LIGHTS)}, found {self.lights!r}")

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Normals and edges."""
        return {"normals": (), "edges": ()}

    def fingerprint(self) -> dict[str, Any]:
        """The file's name, size and modification time, the people of the parts, the lights."""
        path = faces_file(self.path)
        return {
            "reader": "yaleb_faces",
            "version": 1,
            "test_subjects": sorted(self.test_subjects),
            "val_subjects": sorted(self.val_subjects),
            "lights": self.lights,
            "edges": RECIPE,
            "files": stamp([path], path.parent),
        }

    def samples(self) -> Iterator[ImageSample]:
        """Person after person, light after light, named by person, azimuth and elevation: ``yaleB01/-025+00``.

        Raises:
            DataError: the file is not what it should be, or has no image of a person that was named.
        """
        path = faces_file(self.path)
        arrays = _arrays(path)
        subjects: list[str] = arrays["subject"].tolist()
        for name, given in (("test_subjects", self.test_subjects), ("val_subjects", self.val_subjects)):
            for subject in given:
                if subject not in subjects:
                    raise DataError(
                        f"{path}: {name}: expected some of {subjects[0]} to {subjects[-1]}, found "
                        f"{subject!r}{nearest(subject, subjects)}"
                    )
        chosen = [i for i, side in enumerate(arrays["light_domain"]) if self.lights in ("all", side)]
        for row, subject in enumerate(subjects):
            vectors = arrays["normal"][row].astype(np.float32) * _TO_CAMERA
            normals = np.where(arrays["mask"][row][..., None], vectors, 0).astype(np.float16)
            for light in chosen:
                image = np.repeat(arrays["image"][row, light][..., None], 3, axis=2)
                azimuth, elevation = arrays["light_az_el"][light]
                labels = {"normals": normals, "edges": image_edges(image)}
                name = f"{subject}/{azimuth:+04d}{elevation:+03d}"
                yield ImageSample(image, labels, name, self._part(subject), subject)

    def _part(self, subject: str) -> Part:
        return "test" if subject in self.test_subjects else "val" if subject in self.val_subjects else "train"


def yaleb_subjects(path: Path | None = None) -> tuple[str, ...]:
    """All people of the file, in its order: ``("yaleB01", ...)``.

    Raises:
        DataError: there is no such file, or it is not what it should be.
    """
    return tuple(_arrays(faces_file(path))["subject"].tolist())


def fold(subjects: tuple[str, ...], folds: int, held_out: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Deal people to test and validation parts: every ``folds``-th from ``held_out`` is for testing, the next for val.

    Over all ``held_out`` in ``range(folds)`` every person is tested exactly once.

    Args:
        subjects: everybody, as :func:`yaleb_subjects` returns them.
        folds: 3 or more, so that somebody is left for training.
        held_out: 0 to ``folds - 1``.

    Returns:
        ``test_subjects`` and ``val_subjects``.

    Raises:
        DataError: ``folds`` or ``held_out`` is out of range.
    """
    if not 3 <= folds <= len(subjects):
        raise DataError(f"folds: expected 3 to {len(subjects)}, found {folds}")
    if not 0 <= held_out < folds:
        raise DataError(f"held_out: expected 0 to {folds - 1}, found {held_out}")
    return subjects[held_out::folds], subjects[(held_out + 1) % folds :: folds]


def faces_file(path: Path | None) -> Path:
    """The file of the faces: the one given, or that of the data directory which ``ISTHMUS_DATA`` names.

    Raises:
        DataError: there is none.
    """
    return data_file(FILE, "the file of Yale B faces", file=path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _FIELDS}
    # NumPy takes the content for what it is: an .npy has no context manager, a broken archive fails in many ways.
    except (AttributeError, TypeError, KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected the arrays {', '.join(_FIELDS)}, found {error}") from error
    shape = arrays["image"].shape
    people, lights, height, width = shape if len(shape) == 4 else (len(arrays["image"]), 0, 0, 0)
    expected = {
        "image": (np.uint8, (people, lights, height, width)),
        "normal": (np.float16, (people, height, width, 3)),
        "mask": (np.bool_, (people, height, width)),
        "light_az_el": (np.int64, (lights, 2)),
    }
    for name, (dtype, wanted) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].shape != wanted:
            raise DataError(
                f"{path}: {name}: expected {np.dtype(dtype)} {wanted}, found {arrays[name].dtype} {arrays[name].shape}"
            )
    for name, count in (("light_domain", lights), ("subject", people)):
        if arrays[name].shape != (count,) or arrays[name].dtype.kind != "U":
            raise DataError(
                f"{path}: {name}: expected {count} names, found {arrays[name].dtype} of shape {arrays[name].shape}"
            )
    unknown = sorted(set(arrays["light_domain"].tolist()) - {"front", "side"})
    if unknown:
        raise DataError(f"{path}: light_domain: expected front or side, found {unknown[0]!r}")
    if len(set(arrays["subject"].tolist())) < people:
        raise DataError(f"{path}: subject: expected {people} different names, found some twice")
    return arrays
