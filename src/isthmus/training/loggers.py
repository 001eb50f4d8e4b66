"""Optional places for metrics beside the run's own JSONL and CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isthmus.errors import RunError
from isthmus.training.recipe import Recipe

Log = Callable[[dict[str, float], int], None]


def open_loggers(recipe: Recipe, path: Path) -> list[Log]:
    """A function per logger that takes metrics and the global step; raises RunError if one is not installed."""
    return [{"tensorboard": _tensorboard, "wandb": _wandb}[name](recipe, path) for name in recipe.engine.loggers]


def _tensorboard(recipe: Recipe, path: Path) -> Log:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RunError("engine.loggers: 'tensorboard' is not installed: pip install 'isthmus[tensorboard]'") from None
    writer = SummaryWriter(str(path / "tensorboard"))

    def log(metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def _wandb(recipe: Recipe, path: Path) -> Log:
    try:
        import wandb
    except ImportError:
        raise RunError("engine.loggers: 'wandb' is not installed: pip install 'isthmus[wandb]'") from None
    run = wandb.init(project="isthmus", name=recipe.name, dir=str(path), config=recipe.model_dump(mode="json"))
    return lambda metrics, step: run.log(metrics, step=step)
