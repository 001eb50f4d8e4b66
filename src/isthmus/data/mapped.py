"""A reader seen through a class map: classes renamed, merged or left out before anything is stored.

The mapping happens here rather than at training time, so that a prepared target domain holds the right clouds
without its labels ever being opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.data.class_map import ClassMap
from isthmus.data.clouds import NO_POINT_LABEL, Reader, Sample, Unreadable


@dataclass(frozen=True)
class Mapped:
    """``reader`` with the classes of ``class_map``; ``source`` demands that every class receives something."""

    reader: Reader
    class_map: ClassMap
    source: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The recipe's classes."""
        return self.class_map.classes

    @property
    def left_out(self) -> tuple[str, ...]:
        """The reader's classes whose samples, or points, are left out."""
        labels = self.class_map.apply(self.reader.classes, source=self.source)
        return tuple(name for name, label in zip(self.reader.classes, labels) if label < 0)

    def fingerprint(self) -> dict[str, Any]:
        """The reader's own, and what becomes of each of its classes."""
        labels = self.class_map.apply(self.reader.classes, source=self.source)
        return {"mapped": self.reader.fingerprint(), "classes": list(self.classes), "labels": labels.tolist()}

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The reader's samples with mapped labels, without those of classes that are left out.

        A target keeps clouds without a label (-1); a source has no use for them.
        """
        labels = self.class_map.apply(self.reader.classes, source=self.source)
        for sample in self.reader.samples():
            if isinstance(sample, Unreadable):
                yield sample
            elif sample.point_labels is not None:
                # Labels out of range stay so, and the store names the sample; points of a dropped class have none.
                table = np.arange(256)
                table[: len(labels)] = np.where(labels < 0, NO_POINT_LABEL, labels)
                yield sample._replace(point_labels=table[sample.point_labels].astype(np.uint8))
            elif 0 <= sample.label < len(labels):
                if labels[sample.label] >= 0:
                    yield sample._replace(label=int(labels[sample.label]))
            elif sample.label == -1 and not self.source:
                yield sample  # without a label, as target clouds usually are
            elif sample.label != -1:
                yield sample  # out of range: the store says so, with the sample's name
