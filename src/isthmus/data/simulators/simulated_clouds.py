"""What the simulators of point clouds share: domains, and samples that are made one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from isthmus.data.clouds import PARTS, Part, Sample
from isthmus.data.simulators.sampling import check_counts, check_whole, stream
from isthmus.errors import DataError


@dataclass(frozen=True)
class SimulatedClouds(ABC):
    """One simulated domain, as a reader.

    Every sample depends on ``(seed, domain, part, index)`` only: asking for more samples, or for other parts, changes
    none, and nothing occurs in two parts or two domains.

    Attributes:
        domain: one of ``DOMAINS``.
        train: number of training samples, 0 or more.
        val: number of validation samples, 0 or more.
        test: number of test samples, 0 or more.
        seed: 0 or more.
        points: points per sample, 64 or more.

    Raises:
        DataError: a field is out of range, or all counts are 0.
    """

    domain: str
    train: int
    val: int
    test: int
    seed: int = 0
    points: int = 2048

    KIND: ClassVar[str]
    """Name of the reader in fingerprints."""
    DOMAINS: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        if self.domain not in self.DOMAINS:
            expected = ", ".join(self.DOMAINS)
            raise DataError(f"{type(self).__name__}.domain: expected one of {expected}, found {self.domain!r}")
        check_counts(self)
        check_whole(self, "points", 64)

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @abstractmethod
    def sample(self, part: Part, index: int) -> Sample:
        """Return one sample without making those before it; ``index`` may exceed the count of the part."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on."""
        return {"reader": self.KIND, "version": 1, **asdict(self)}

    def samples(self) -> Iterator[Sample]:
        """All samples: training, validation, test, each by index."""
        for part, count in zip(PARTS, (self.train, self.val, self.test)):
            for index in range(count):
                yield self.sample(part, index)

    def random(self, part: Part, *index: int) -> np.random.Generator:
        """Random numbers of a part, or of one sample in it."""
        return stream(self.seed, self.DOMAINS.index(self.domain), PARTS.index(part), *index)
