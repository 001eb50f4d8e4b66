"""Optimiser, parameter groups, schedules and frozen parts of a stage."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from isthmus.errors import RecipeError
from isthmus.training.recipe import StageSpec


def freeze(method: nn.Module, stage: StageSpec) -> None:
    """Mark which parameters the stage trains."""
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(not any(_under(name, prefix) for prefix in stage.frozen))
    for prefix in stage.frozen:
        _check_prefix(method, prefix, f"{stage.name}.frozen")


def training_mode(method: nn.Module, stage: StageSpec) -> None:
    """Training mode, but eval mode for frozen parts and, with ``batch_norm="frozen"``, for all BatchNorm layers."""
    method.train()
    for name, module in method.named_modules():
        frozen = any(_under(name, prefix) for prefix in stage.frozen)
        if frozen or (stage.batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()


def build_optimizer(method: nn.Module, stage: StageSpec) -> torch.optim.Optimizer:
    """One parameter group per rate scale; each group remembers its ``scale``."""
    for prefix in stage.learning_rate_scale:
        _check_prefix(method, prefix, f"{stage.name}.learning_rate_scale")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            matching = [prefix for prefix in stage.learning_rate_scale if _under(name, prefix)]
            scale = stage.learning_rate_scale[max(matching, key=len)] if matching else 1.0
            groups.setdefault(scale, []).append(parameter)
    if not groups:
        raise RecipeError(f"{stage.name}.frozen: nothing is left to train")
    sorted_groups = [{"params": params, "scale": scale} for scale, params in sorted(groups.items())]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(sorted_groups, lr=stage.learning_rate, momentum=0.9, weight_decay=stage.weight_decay)
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(sorted_groups, lr=stage.learning_rate, weight_decay=stage.weight_decay)


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over an optimiser's running moments, but none of its settings: those are the stage's own."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)


def check_stages(method: nn.Module, stages: Sequence[StageSpec]) -> None:
    """Find mistakes of later stages before the first one runs: prefixes, nothing to train, optimisers to keep."""
    for index, stage in enumerate(stages):
        freeze(method, stage)
        build_optimizer(method, stage)
        if stage.keep_optimizer:
            before = stages[index - 1] if index else None
            same = before is not None and all(
                getattr(before, field) == getattr(stage, field)
                for field in ("optimizer", "frozen", "learning_rate_scale")
            )
            if not same:
                raise RecipeError(
                    f"{stage.name}.keep_optimizer: expected an earlier stage with the same optimizer, frozen parts and "
                    f"learning_rate_scale, found {'another' if before else 'no stage before it'}"
                )


def learning_rate(stage: StageSpec, step: int) -> float:
    """The rate of step ``step`` (from 0): a pure function, so a resumed run needs no scheduler state.

    ``step`` and ``poly`` are described with the stage's fields; ``cosine`` falls to 0 at the end of the stage;
    ``onecycle`` climbs by a cosine over the first 30 % from 1/25 of the rate and falls to 1/250,000 of it, as
    ``torch.optim.lr_scheduler.OneCycleLR`` does.
    """
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / (stage.warmup_steps + 1)
    if stage.schedule == "constant":
        return stage.learning_rate
    if stage.schedule == "step":
        assert stage.decay_every is not None
        return stage.learning_rate * 0.5 ** (step // stage.decay_every)
    if stage.schedule == "poly":
        return stage.learning_rate * (1 - step / stage.steps) ** 0.9
    if stage.schedule == "cosine":
        done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
        return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    peak = 0.3 * stage.steps - 1
    if step <= peak:
        return _between(stage.learning_rate / 25, stage.learning_rate, step / peak if peak > 0 else 1.0)
    return _between(stage.learning_rate, stage.learning_rate / 25e4, (step - peak) / (stage.steps - 1 - peak))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _check_prefix(method: nn.Module, prefix: str, field: str) -> None:
    known = {name for name, _ in method.named_modules() if name} | {name for name, _ in method.named_parameters()}
    if prefix not in known:
        close = difflib.get_close_matches(prefix, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RecipeError(f"{field}: no part of the method is called {prefix!r}{hint}")
