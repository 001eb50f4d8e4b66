"""What every dense task has to satisfy; written once; the test of a task derives from it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from isthmus.data.images import ENCODINGS
from isthmus.tasks.dense import DenseTask

SIZE = (12, 16)


def example(task: DenseTask, batch: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, labels and masks of a few samples; about a third of the pixels (or points) carry no label."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(batch, task.channels + task.vector_channels, *SIZE, generator=generator)
    elements = (task.channels,) if ENCODINGS[task.name].points else SIZE
    valid = torch.rand(batch, *elements, generator=generator) < 0.7
    return output, label_for(task, batch, generator), valid


def label_for(task: DenseTask, batch: int, generator: torch.Generator) -> Tensor:
    if ENCODINGS[task.name].points:
        return torch.rand(batch, task.channels, 3, generator=generator)
    if task.classes:
        return torch.randint(task.channels, (batch, *SIZE), generator=generator)
    raw = torch.randn(batch, task.channels, *SIZE, generator=generator)
    if task.name == "normals":
        return raw / raw.norm(dim=1, keepdim=True)
    return (raw > 0.8).float() if task.name in ("saliency", "edges") else raw.abs() + 0.1


def as_label(valid: Tensor, label: Tensor) -> Tensor:
    """A mask with dimensions of 1 where the label has channels."""
    if label.dim() == valid.dim():
        return valid
    return valid[..., None] if label.dim() == 3 else valid[:, None]


def garbage(label: Tensor) -> Tensor:
    return torch.full_like(label, 255 if label.dtype == torch.int64 else torch.nan)


class DenseTaskTester:
    """Derive, and set ``task``."""

    task: DenseTask

    def test_its_name_has_an_encoding(self) -> None:
        assert self.task.name in ENCODINGS and self.task.heading and self.task.display_factor > 0

    def test_a_label_without_a_valid_pixel_counts_nothing(self) -> None:
        task = self.task
        output, label, valid = example(task)
        label[1], valid[1] = garbage(label[1]), False
        for zero in (False, True):
            raw = (output * (not zero)).requires_grad_()
            loss = task.loss(raw, label, valid)
            loss.sum().backward()
            assert loss[1] == 0 and loss.isfinite().all()
            assert raw.grad[1].count_nonzero() == 0 and raw.grad.isfinite().all()
        statistics = task.statistics(output, label, valid)
        assert statistics[1].count_nonzero() == 0 and statistics.isfinite().all()

    def test_pixels_without_a_label_are_never_read(self) -> None:
        task = self.task
        output, label, valid = example(task)
        spoilt = torch.where(as_label(valid, label), label, garbage(label))
        for function in (task.loss, task.statistics):
            torch.testing.assert_close(function(output, spoilt, valid), function(output, label, valid), rtol=0, atol=0)
        torch.testing.assert_close(task.label_map(spoilt, valid), task.label_map(label, valid), rtol=0, atol=0)

    def test_the_loss_is_float32_and_per_sample(self) -> None:
        task = self.task
        output, label, valid = example(task)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            together = task.loss(output.bfloat16(), label, valid)
        assert together.dtype == torch.float32 and together.shape == (5,)
        alone = [task.loss(output[i : i + 1].bfloat16(), label[i : i + 1], valid[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone))
        everywhere = torch.ones_like(valid)
        torch.testing.assert_close(task.loss(output, label), task.loss(output, label, everywhere), rtol=0, atol=0)

    def test_statistics_are_per_sample(self) -> None:
        task = self.task
        output, label, valid = example(task)
        together = task.statistics(output, label, valid)
        assert together.dtype == torch.float64 and together.shape[0] == 5 and together.dim() == 2
        alone = [task.statistics(output[i : i + 1], label[i : i + 1], valid[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=0)

    def test_scores_keep_leading_dimensions(self) -> None:
        task = self.task
        statistics = task.statistics(*example(task))
        draws = torch.from_numpy(np.random.default_rng(0).integers(5, size=(2, 3, 5)))
        resampled = statistics[draws].sum(dim=2)
        scores = task.scores(resampled)
        assert task.headline in scores
        for name, score in scores.items():
            assert score.shape == (2, 3), name
            alone = [[float(task.scores(resampled[i, j])[name]) for j in range(3)] for i in range(2)]
            np.testing.assert_allclose(score.numpy(), alone, rtol=1e-12)

    def test_nothing_measured_is_nan(self) -> None:
        task = self.task
        empty = torch.zeros_like(task.statistics(*example(task))[0])
        assert all(score.isnan() for score in task.scores(empty).values())

    def test_the_metric_accumulates(self) -> None:
        task = self.task
        output, label, valid = example(task)
        metric = task.metric()
        for rows in (slice(0, 2), slice(2, 5)):
            metric.update(output[rows], label[rows], valid[rows])
        expected = task.scores(task.statistics(output, label, valid).sum(dim=0))
        np.testing.assert_allclose(
            [metric.compute()[name] for name in expected], [float(value) for value in expected.values()], rtol=1e-12
        )

    def test_maps_are_finite_and_between_0_and_1(self) -> None:
        task = self.task
        output, label, valid = example(task)
        label[2], valid[2] = garbage(label[2]), False
        raw = output.clone().requires_grad_()
        uniform = torch.rand(output.shape)
        maps: list[Callable[[], Tensor]] = [
            lambda: task.prediction_map(raw),
            lambda: task.prediction_map(raw, uniform),
            lambda: task.label_map(label, valid),
        ]
        for make in maps:
            made = make()
            assert made.shape == output[:, : task.channels].shape and made.dtype == torch.float32
            assert made.isfinite().all() and made.min() >= 0 and made.max() <= 1
        assert not task.label_map(label, valid).requires_grad
        task.prediction_map(raw, uniform).square().sum().backward()
        assert raw.grad.isfinite().all() and raw.grad.count_nonzero() > 0
        assert task.activate(output).shape == self.activated(output)

    def activated(self, output: Tensor) -> torch.Size:
        return output.shape
