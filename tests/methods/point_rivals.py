"""Batches and small networks for the tests of rivals on clouds."""

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn import DGCNN
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet
from isthmus.tasks.classification import Classification

CLASSES = ("chair", "lamp", "table")
TASK = Classification(CLASSES)


def encoder_of(kind: str) -> PointNet | DGCNN:
    return PointNet(width=0.125) if kind == "pointnet" else DGCNN(k=5, width=0.125)


def classifier(kind: str = "pointnet", *, more: int = 0) -> PointClassifier:
    encoder = encoder_of(kind)
    return PointClassifier(encoder, head_of(encoder, more))


def head_of(encoder: PointNet | DGCNN, more: int = 0) -> ClassificationHead:
    return ClassificationHead(encoder.pooled_channels + more, 3, width=0.125, dropout=0.0, slope=0.0)


def batch(domain: str, *, size: int = 6, points: int = 32, labelled: int | None = None) -> Batch:
    """Clouds of which the first ``labelled`` carry a label: all of the source, none of the target by default."""
    count = (size if domain == "source" else 0) if labelled is None else labelled
    generator = torch.Generator().manual_seed(size + 100 * (domain == "target"))
    values = torch.randn(size, points, 3, generator=generator) * 0.4 + 0.1 * (domain == "target")
    labels = torch.where(torch.arange(size) < count, torch.arange(size) % 3, -7)  # absent rows are never read
    return Batch(
        domain, {"points": values}, {"class": labels}, {"class": torch.arange(size) < count}, torch.arange(size)
    )


def pair(**options: int) -> dict[str, Batch]:
    return {"source": batch("source", **options), "target": batch("target", **options)}


def at(fraction: float) -> Progress:
    return Progress(0, 0, round(fraction * 100), 100)


def mean(loss: Loss) -> Tensor:
    return loss.coefficient * loss.sum / loss.weight


def value(number: Tensor) -> float:
    return float(number.detach())


def total(losses: dict[str, Loss]) -> Tensor:
    return sum((mean(each) for each in losses.values() if each.weight > 0), torch.zeros(()))


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """By name, of the parameters that the loss depends on."""
    names, parameters = zip(*module.named_parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {name: each for name, each in zip(names, found) if each is not None and bool(each.abs().sum() > 0)}


def parts(found: dict[str, Tensor]) -> set[str]:
    """The first two names of each parameter."""
    return {".".join(name.split(".")[:2]) for name in found}
