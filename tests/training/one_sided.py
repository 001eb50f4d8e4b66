"""Run by test_processes.py, alone or as several processes: a method whose second loss exists for few samples only."""

import sys
from pathlib import Path

import torch
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.tasks.classification import Classification
from isthmus.training.engine import train
from isthmus.training.recipe import load


class OneSided(Method):
    """Two linear heads on the mean point; the second is trained by samples of one parity of a rare id only."""

    uses_target = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 10), nn.Linear(3, 10)
        task = Classification(tuple("abcdefghij"))
        self.tasks = {"class": task}

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        batch = batches["source"]
        points, labels = batch.inputs["points"].mean(1), batch.labels["class"]
        rare = batch.sample_id % 8 == 3
        task = self.tasks["class"]
        losses = {"class/source": Loss.of(task.loss(self.first(points), labels), len(batch))}
        if rare.any():
            losses["rare/source"] = Loss.of(task.loss(self.second(points), labels)[rare], rare.sum(), 0.5)
        else:
            losses["rare/source"] = Loss.absent(points.device, 0.5)
        return losses

    def predict(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        points = inputs["points"].mean(1)
        return {"class": self.first(points) + self.second(points)}


if __name__ == "__main__":
    train(load(Path(sys.argv[1])), Path(sys.argv[2]), method=OneSided())
