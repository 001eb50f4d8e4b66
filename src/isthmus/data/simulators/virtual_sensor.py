"""A virtual depth camera for the clouds of another reader.

They have no surfaces to cast rays at, only points, so :mod:`isthmus.geometry.visibility` removes the hidden
ones. The camera's place, its axial noise, its gaps and its uneven density are those of
:mod:`isthmus.data.simulators.depth_sensor`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.data.clouds import Part, Reader, Sample, Unreadable
from isthmus.data.simulators.depth_sensor import standing_eyes, thinned, without_patches
from isthmus.errors import DataError
from isthmus.geometry.visibility import hidden_point_removal


def share_of(name: str, purpose: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the two strings (SHA-256)."""
    digest = hashlib.sha256(f"{purpose}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class VirtualSensor:
    """Partial, noisy views of another reader's clouds: each as one depth camera might have seen it.

    Every cloud is set on a floor, 0.7 to 2 m across, often beside a wall or a box; a camera at human height
    sees it; hidden points go, noise, thinning and gaps come; the result is cropped to the loosened box of the
    object and returned in the cloud's own units. Clouds keep their label, name, part and group, and their
    order. A cloud depends on ``seed`` and its own name and points only. Clouds with other than three columns,
    values that are not finite or fewer than 16 different points are handed on as they are: refusing them is
    the store's part.

    Attributes:
        reader: where the clouds come from; z up, any unit, preferably 1,000 points or more.
        seed: 0 or more; another seed gives other views.
        test_share: None keeps the parts. Otherwise parts are dealt anew by a hash of the group (of the name,
            where there is no group), whatever the seed: this share, above 0 and below 1, becomes ``"test"``,
            the rest is dealt 80 to 20 to ``"train"`` and ``"val"``.
        exponent: as in :func:`~isthmus.geometry.visibility.hidden_point_removal`.
    """

    reader: Reader
    seed: int = 0
    test_share: float | None = None
    exponent: float = 2.2

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise DataError(f"VirtualSensor.seed: expected 0 or more, found {self.seed}")
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise DataError(f"VirtualSensor.test_share: expected above 0 and below 1, found {self.test_share}")
        if not 0 < self.exponent <= 6:
            raise DataError(f"VirtualSensor.exponent: expected above 0, at most 6, found {self.exponent}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the reader inside."""
        return self.reader.classes

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on."""
        return {
            "reader": "virtual-sensor",
            "version": 1,
            "seed": self.seed,
            "test_share": self.test_share,
            "exponent": self.exponent,
            "inner": self.reader.fingerprint(),
        }

    def samples(self) -> Iterator[Sample | Unreadable]:
        """All objects of the reader inside, in its order, as the sensor sees them; the unreadable pass through."""
        for sample in self.reader.samples():
            if isinstance(sample, Unreadable):
                yield sample
            else:
                yield sample._replace(points=self._seen(sample), part=self._part(sample))

    def _part(self, sample: Sample) -> Part:
        if self.test_share is None:
            return sample.part
        whole = sample.group or sample.name
        if share_of(whole, "test") < self.test_share:
            return "test"
        return "train" if share_of(whole, "train") < 0.8 else "val"

    def _seen(self, sample: Sample) -> np.ndarray:
        cloud = sample.points
        usable = cloud.ndim == 2 and cloud.shape[1] == 3 and bool(np.isfinite(cloud).all())
        if not usable or len(np.unique(cloud, axis=0)) < 16:
            return cloud
        key = int.from_bytes(hashlib.sha256(sample.name.encode()).digest()[:16], "big")
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, key])))
        own = cloud.astype(np.float64)
        base = np.append((own[:, :2].min(axis=0) + own[:, :2].max(axis=0)) / 2, own[:, 2].min())
        scale = rng.uniform(0.7, 2.0) / np.linalg.norm(np.ptp(own, axis=0))
        seen = _view_of_cloud((own - base) * scale, self.exponent, rng)
        return (seen / scale + base).astype(np.float32)


def _view_of_cloud(own: np.ndarray, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Return one camera's view of a cloud (n, 3) that stands on the floor ``z = 0``, in metres."""
    low, high = own.min(axis=0), own.max(axis=0)
    margin = rng.uniform(0.03, 0.12) * (high - low).max()
    low, high = low - margin, high + margin
    eye = standing_eyes(low, high, 1, rng)[0]
    scene = np.concatenate([own, _clutter(own, low, high, eye, rng)])
    visible = hidden_point_removal(scene, eye, exponent)
    towards = scene - eye
    depth = np.linalg.norm(towards, axis=1)
    sigma = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    measured = scene + towards / depth[:, None] * (rng.normal(size=len(scene)) * sigma)[:, None]
    measured = measured[visible]
    on_object = visible < len(own)
    inside = ((measured >= low) & (measured <= high)).all(axis=1)
    target = without_patches(thinned(measured[on_object], rng, strength=0.8), rng)
    target = target[rng.random(len(target)) >= 0.05]
    rest = measured[inside & ~on_object]
    share = rng.uniform(0.10, 0.25)
    rest = rng.permutation(rest)[: int(share / (1 - share) * len(target))]
    seen = np.concatenate([target, rest])
    return seen if len(seen) >= 16 else measured


def _clutter(
    own: np.ndarray, low: np.ndarray, high: np.ndarray, eye: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return points of a floor and at times a wall behind or a box beside a cloud, about as dense as it."""
    size = high - low
    count = max(len(own) // 3, 64)
    floor = rng.uniform(low, high, size=(count, 3)) * [1, 1, 0]
    pieces = [floor]
    side = np.sign((low + high) / 2 - eye)[:2]
    axis = int(rng.integers(2))
    if rng.random() < 0.4:
        wall = rng.uniform(low, high, size=(count, 3))
        behind = high if side[axis] > 0 else low
        wall[:, axis] = behind[axis] - 0.3 * side[axis] * (high - own.max(axis=0))[axis]
        pieces.append(wall)
    if rng.random() < 0.4:
        corner = np.where(rng.random(2) < 0.5, low[:2], high[:2])
        extent = rng.uniform(0.1, 0.3, size=3) * size
        block = rng.uniform(-0.5, 0.5, size=(count // 2, 3))
        face = rng.integers(3, size=len(block))
        block[np.arange(len(block)), face] = rng.choice([-0.5, 0.5], size=len(block))
        pieces.append(block * extent + [*corner, extent[2] / 2])
    return np.concatenate(pieces)
