"""Small labelled images and tiny recipes: what the tests of dense prediction share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.clouds import Part
from isthmus.data.images import ImageSample
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.models.mapping import MappingNetwork
from isthmus.models.segnet import SegNet
from isthmus.tasks.dense import DenseTask
from isthmus.tasks.depth import Depth
from isthmus.tasks.normals import Normals
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse

CLASSES = ("bed", "chair", "floor", "wall")
LETTERS = {"S": "segmentation", "D": "depth", "N": "normals"}
NAMES = tuple(LETTERS.values())
HEIGHT, WIDTH = 16, 24
PROGRESS = Progress(3, 1, 4, 10)

M = TypeVar("M", bound=nn.Module)


def tasks() -> dict[str, DenseTask]:
    return {"segmentation": Segmentation(CLASSES), "depth": Depth(), "normals": Normals()}


def channels() -> dict[str, int]:
    return {name: task.channels for name, task in tasks().items()}


def batch(kept: Sequence[str], *, seed: int = 0, first: int = 0) -> Batch:
    """An image per entry of ``kept``, which names its labels by their initials: ``["SD", "N", ""]``.

    About a fifth of the pixels have no label. What is absent is zero, as a stream hands it out.
    """
    generator = torch.Generator().manual_seed(seed)
    size = len(kept)
    image = torch.rand(size, 3, HEIGHT, WIDTH, generator=generator)
    labels = {
        "segmentation": torch.randint(0, len(CLASSES), (size, HEIGHT, WIDTH), generator=generator),
        "depth": 0.5 + 4 * torch.rand(size, 1, HEIGHT, WIDTH, generator=generator),
        "normals": F.normalize(torch.randn(size, 3, HEIGHT, WIDTH, generator=generator), dim=1),
    }
    present = {name: torch.tensor([letter in names for names in kept]) for letter, name in LETTERS.items()}
    valid = {name: torch.rand(size, HEIGHT, WIDTH, generator=generator) > 0.2 for name in NAMES}
    valid = {name: mask & present[name][:, None, None] for name, mask in valid.items()}
    for name, label in labels.items():
        mask = valid[name] if label.dim() == 3 else valid[name][:, None]
        labels[name] = torch.where(mask, label, torch.zeros((), dtype=label.dtype))
    return Batch("source", {"image": image}, labels, present, torch.arange(size) + first, valid)


def poisoned(batch: Batch) -> Batch:
    """The same with NaN and impossible classes in every absent label, all of whose pixels claim to be valid."""
    labels, valid = {}, {}
    for name, label in batch.labels.items():
        absent = ~batch.present[name]
        labels[name] = label.clone()
        labels[name][absent] = torch.nan if label.is_floating_point() else 999
        valid[name] = batch.valid[name].clone()
        valid[name][absent] = True
    return replace(batch, labels=labels, valid=valid)


def rows(batch: Batch, chosen: slice) -> Batch:
    """Some of the samples."""
    return Batch(
        batch.domain,
        {name: tensor[chosen] for name, tensor in batch.inputs.items()},
        {name: tensor[chosen] for name, tensor in batch.labels.items()},
        {name: tensor[chosen] for name, tensor in batch.present.items()},
        batch.sample_id[chosen],
        {name: tensor[chosen] for name, tensor in batch.valid.items()},
    )


def segnet(wanted: dict[str, int] | None = None, in_channels: int = 3) -> SegNet:
    """A small network that predicts depths of both signs; one that is nowhere positive passes no gradient on."""
    network = SegNet(wanted or channels(), in_channels=in_channels, width=0.125, stages=2)
    if "depth" in network.heads:
        nn.init.constant_(network.heads["depth"][1].bias, 0.7)
    return network


def mapping(codes: int | None = 6, *, film_inputs: bool = True) -> MappingNetwork:
    """One whose modulations tell the pairs apart."""
    network = MappingNetwork(channels(), codes=codes, width=0.125, stages=2, film_inputs=film_inputs)
    for table in network.film.parameters():
        table.data += 0.5 * torch.randn_like(table)
    return network


def settled(model: M, *, training: bool = True) -> M:
    """BatchNorm in eval mode with statistics and weights as after some training, everything else as asked."""
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.eval()
    return model


def total(losses: dict[str, Loss]) -> Tensor:
    """What one process makes of the losses of a step."""
    return sum(
        (each.coefficient * each.sum / each.weight for each in losses.values() if each.weight > 0), torch.zeros(())
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients that are there and not zero everywhere."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: gradient for name, gradient in found.items() if gradient.any()}


def tiny(name: str, **changes: object) -> DenseRecipe:
    """A named recipe for rooms on few and small images: six steps in a fraction of a second."""
    values = {
        "source.data.train": 24, "source.data.val": 8, "source.data.test": 8, "source.data.size": [24, 32],
        "source.size": [24, 32], "network.width": 0.125, "network.stages": 2, "batch_size": 4, "log_every": 1,
        "evaluate_every": 3, "checkpoint_every": 2, "stages.0.steps": 6,
    }  # fmt: skip
    return changed(named(name), **{key.replace(".", "__"): value for key, value in values.items()}, **changes)


def changed(recipe: Any, **changes: object) -> DenseRecipe:
    """The recipe with fields set, dots written as two underscores."""
    pairs = [(name.replace("__", "."), yaml.safe_dump(value)) for name, value in changes.items()]
    result = parse(override(recipe.model_dump(mode="json"), pairs))
    assert isinstance(result, DenseRecipe)
    return result


class Few:
    """A reader of a few random images of 8 x 12 with three labels each, in rooms of two.

    The colour of an image is its number, so that an image can be told by its content.
    """

    tasks = {"segmentation": CLASSES, "depth": (), "normals": ()}  # noqa: RUF012

    def __init__(self, train: int = 10, val: int = 3, test: int = 4, *, seed: int = 0) -> None:
        self.counts: dict[Part, int] = {"train": train, "val": val, "test": test}
        self.seed = seed

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "few", "counts": self.counts, "seed": self.seed}

    def samples(self) -> Iterator[ImageSample]:
        number = 0
        for part, count in self.counts.items():
            rng = np.random.default_rng([self.seed, len(part)])
            for index in range(count):
                image = np.full((8, 12, 3), number, np.uint8)
                normals = rng.normal(size=(8, 12, 3))
                normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
                labels = {
                    "segmentation": rng.integers(0, len(CLASSES), (8, 12)).astype(np.uint8),
                    "depth": rng.uniform(1, 4, (8, 12)).astype(np.float32),
                    "normals": normals.astype(np.float16),
                }
                labels["segmentation"][rng.uniform(size=(8, 12)) < 0.2] = 255
                labels["depth"][rng.uniform(size=(8, 12)) < 0.2] = 0
                labels["normals"][rng.uniform(size=(8, 12)) < 0.2] = 0
                yield ImageSample(image, labels, f"{part}/{index}", part, f"{part}-room{index // 2}")
                number += 1
