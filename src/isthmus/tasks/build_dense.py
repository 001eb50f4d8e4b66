"""From a task's name to the task."""

from __future__ import annotations

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.depth import Depth
from isthmus.tasks.edges import Edges
from isthmus.tasks.inverse_depth import InverseDepth
from isthmus.tasks.keypoints import Keypoints
from isthmus.tasks.normals import Normals
from isthmus.tasks.parts import Parts
from isthmus.tasks.saliency import Saliency
from isthmus.tasks.segmentation import Segmentation


def dense_task(name: str, classes: tuple[str, ...] = (), *, size: tuple[int, int] | None = None) -> DenseTask:
    """The task that ``isthmus.data.images.ENCODINGS`` calls ``name``, with the classes of a data set.

    Args:
        name: of the task.
        classes: names of its classes, or of its points.
        size: of the images, which keypoints need where their labels become maps (``DenseTask.label_map``).

    Raises:
        ValueError: if there is no such task, or if it needs classes and has none, or the other way round.
    """
    if bool(classes) != (name in ("segmentation", "parts", "keypoints")):
        expected = "no classes" if classes else "names of classes"
        raise ValueError(f"task {name!r}: expected {expected}, found {classes}")
    match name:
        case "segmentation":
            return Segmentation(classes)
        case "parts":
            return Parts(classes)
        case "depth":
            return Depth()
        case "inverse_depth":
            return InverseDepth()
        case "normals":
            return Normals()
        case "saliency":
            return Saliency()
        case "edges":
            return Edges()
        case "keypoints":
            return Keypoints(classes, size=size)
    raise ValueError(f"task: expected a kind of dense prediction, found {name!r}")
