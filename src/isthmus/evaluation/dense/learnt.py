"""What a run of dense predictions learnt to predict, from as little as it takes to know."""

from __future__ import annotations

from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.build import build_tasks
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRun


def learnt(run: DenseRun) -> tuple[dict[str, DenseTask], tuple[int, int]]:
    """The tasks of a run with their classes, and the height and width that it was trained at.

    They come from ``run.json`` (``outputs``), so that a run folder can predict without the data it was trained on; a
    run that has not noted them needs its data prepared.
    """
    noted = run.state.get("outputs")
    if noted is None:
        problem = DenseProblem(run.recipe)
        return problem.tasks, problem.tested.size
    # A mapping, or pairs, which keep the data set's order: a recipe that names no tasks learns them in that order.
    classes = {name: tuple(names) for name, names in dict(noted["tasks"]).items()}
    height, width = noted["size"]
    return build_tasks(run.recipe, classes), (height, width)
