"""Images with labelled points, shared by the tests of what such labels go through."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from isthmus.data.batch import Batch
from isthmus.data.images import ImageSample

POINTS = ("left_eye", "nose", "right_eye", "chin")
PARTNERS = (2, 1, 0, 3)


def points_batch(label: Any, valid: Any = None, height: int = 16, width: int = 24) -> Batch:
    """A batch with nothing but labelled points; those that are not valid are 0."""
    label = torch.as_tensor(label, dtype=torch.float32)
    mask = torch.ones(label.shape[:2], dtype=torch.bool) if valid is None else torch.as_tensor(valid)
    label = torch.where(mask[..., None], label, 0.0)
    image = torch.zeros(len(label), 3, height, width)
    present = {"keypoints": mask.any(dim=1)}
    return Batch(
        "source", {"image": image}, {"keypoints": label}, present, torch.arange(len(label)), {"keypoints": mask}
    )


class Faces:
    """A reader of random pictures; every third has no points, every other lacks one of them."""

    tasks = {"keypoints": POINTS, "depth": ()}  # noqa: RUF012

    def __init__(self, count: int = 12, size: tuple[int, int] = (16, 24)) -> None:
        self.count, self.size = count, size

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "faces", "count": self.count, "size": list(self.size)}

    def samples(self) -> Iterator[ImageSample]:
        for index in range(self.count):
            rng = np.random.default_rng(index)
            labels = {"depth": rng.uniform(1, 2, self.size).astype(np.float32)}
            if index % 3:
                points = rng.uniform(0, 1, (4, 3)).astype(np.float32)
                if index % 2:
                    points[index % 4] = np.nan
                known = np.isfinite(points[:, 2])
                points[known, 2] -= points[known, 2].mean()
                labels["keypoints"] = points
            image = rng.integers(0, 255, (*self.size, 3), dtype=np.uint8)
            yield ImageSample(image, labels, f"{index:02d}", "train" if index < self.count - 2 else "test")
