"""What every weighting has to satisfy, written once; the test of a weighting derives from it."""

import copy
from itertools import permutations

import pytest
import torch
from torch import Tensor

from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting

TASKS = ("segmentation", "depth", "normals")


def some_losses(*, without: str | None = None, images: float = 4.0) -> dict[str, Loss]:
    """A step's losses, one of them of no task; ``without`` names a task that no sample carries."""
    values = {"segmentation/source": 6.0, "depth/source": 2.0, "normals/source": 1.0, "consistency/source": 3.0}
    losses = {}
    for name, value in values.items():
        if name.split("/")[0] == without:
            losses[name] = Loss.absent(torch.device("cpu"), weight=images)
        else:
            per_sample = torch.tensor([value, value / 2], requires_grad=True)
            losses[name] = Loss.of(per_sample, images, samples=2.0, mass=1.5)
    return losses


def step(*processes: dict[str, Loss]) -> dict[str, Tensor]:
    """What each loss adds to the step: sums over processes, divided as the engine does."""
    added = {}
    for name in processes[0]:
        weight = sum(float(losses[name].weight) for losses in processes)
        total = sum(losses[name].sum * losses[name].coefficient for losses in processes)
        added[name] = total / (weight or 1.0)
    return added


class WeightingTester:
    """Derive, and say how to build the weighting; ``trained`` has seen something and weighs tasks differently."""

    def build(self) -> Weighting:
        raise NotImplementedError

    def trained(self) -> Weighting:
        raise NotImplementedError

    def test_losses_of_no_task_pass_untouched(self) -> None:
        losses = some_losses()
        assert self.trained()(losses)["consistency/source"] is losses["consistency/source"]

    def test_an_absent_task_adds_nothing_and_leaves_the_others_alone(self) -> None:
        weighting = self.trained()
        whole, part = step(weighting(some_losses())), step(weighting(some_losses(without="depth")))
        assert whole.keys() == part.keys()
        for name in whole:
            expected = 0.0 if "depth" in name else whole[name]
            torch.testing.assert_close(part[name], torch.as_tensor(expected), check_dtype=False)

    def test_two_processes_equal_one(self) -> None:
        weighting = self.trained()
        one = some_losses()
        first = {name: loss._replace(sum=loss.sum * 0.25, weight=loss.weight * 0.5) for name, loss in one.items()}
        second = {name: loss._replace(sum=loss.sum * 0.75, weight=loss.weight * 0.5) for name, loss in one.items()}
        halves = [
            {n: loss._replace(samples=loss.taking_part * share, mass=loss.entering * share) for n, loss in part.items()}
            for part, share in ((first, 0.75), (second, 0.25))
        ]
        alone, together = step(weighting(one)), step(*(weighting(part) for part in halves))
        for name in alone:
            torch.testing.assert_close(together[name], alone[name])

    def test_a_checkpoint_holds_all_of_its_state(self) -> None:
        weighting, resumed = self.trained(), self.build()
        resumed.load_state_dict(copy.deepcopy(weighting.state_dict()))
        for name, value in step(weighting(some_losses())).items():
            assert torch.equal(step(resumed(some_losses()))[name], value)


class CombiningTester(WeightingTester):
    """For weightings that combine gradients."""

    parallel_for_one_task = True

    def combined(self, rows: Tensor, tasks: tuple[str, ...] = TASKS, means: Tensor | None = None) -> Tensor:
        weighting = self.build()
        assert weighting.needs_gradients
        return weighting.combine(rows, tasks, torch.ones(len(rows)) if means is None else means)

    @pytest.mark.parametrize("task", TASKS)
    def test_one_task_keeps_its_direction(self, task: str) -> None:
        row = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
        direction = self.combined(row, (task,), torch.tensor([0.7]))
        assert float(torch.cosine_similarity(direction, row[0], dim=0)) == pytest.approx(1.0, abs=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("count", [2, 3])
    def test_the_order_of_tasks_does_not_matter(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(count, 12, generator=generator)
        means = torch.rand(count, generator=generator) + 0.1
        expected = self.combined(rows, TASKS[:count], means)
        for order in permutations(range(count)):
            tasks = tuple(TASKS[index] for index in order)
            found = self.combined(rows[list(order)], tasks, means[list(order)])
            torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-5)

    @pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
    @pytest.mark.parametrize("form", ["random", "equal", "opposed", "one zero", "unlike sizes"])
    def test_it_is_finite_at_every_scale(self, form: str, scale: float) -> None:
        rows = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
        match form:
            case "equal":
                rows = rows[:1].expand(3, 12)
            case "opposed":
                rows = torch.stack([rows[0], -rows[0], 0.5 * rows[0]])
            case "one zero":
                rows = rows * torch.tensor([1.0, 0.0, 1.0])[:, None]
            case "unlike sizes":
                rows = rows * torch.tensor([1e-3, 1.0, 1e3])[:, None]
        weighting = self.build()
        for _ in range(3):
            direction = weighting.combine(rows * scale, TASKS, torch.full((3,), scale))
            assert direction.shape == (12,) and direction.isfinite().all()
        for name, value in step(weighting(some_losses())).items():
            assert value.isfinite(), name
