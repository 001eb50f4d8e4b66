"""Optimiser, parameter groups, schedules and frozen parts of a stage."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isthmus.errors import RecipeError
from isthmus.training.recipe import StageSpec

T = TypeVar("T")


def frozen_parts(method: nn.Module, stage: StageSpec) -> tuple[str, ...]:
    """Prefixes of all that the stage does not train: ``frozen``, and what lies behind ``frozen_after``."""
    for prefix in stage.frozen:
        _check_prefix(method, prefix, f"{stage.name}.frozen")
    if stage.frozen_after is None:
        return stage.frozen
    try:
        return (*stage.frozen, *method.after(stage.frozen_after))  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{stage.name}.frozen_after: {error}") from None


def freeze(method: nn.Module, stage: StageSpec) -> None:
    """Mark which parameters the stage trains."""
    frozen = frozen_parts(method, stage)
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(not any(_under(name, prefix) for prefix in frozen))


def training_mode(method: nn.Module, stage: StageSpec) -> None:
    """Training mode, but eval mode for frozen parts and, with ``batch_norm="frozen"``, for all BatchNorm layers."""
    method.train()
    prefixes = frozen_parts(method, stage)
    for name, module in method.named_modules():
        frozen = any(_under(name, prefix) for prefix in prefixes)
        if frozen or (stage.batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()


def build_optimizers(method: nn.Module, stage: StageSpec) -> list[torch.optim.Optimizer]:
    """One optimiser per kind, with a parameter group per rate scale; each group remembers its ``scale``."""
    for field in ("learning_rate_scale", "optimizers"):
        for prefix in getattr(stage, field):
            _check_prefix(method, prefix, f"{stage.name}.{field}")
    groups: dict[str, dict[float, list[nn.Parameter]]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            kind = _of_longest(stage.optimizers, name, stage.optimizer)
            scale = _of_longest(stage.learning_rate_scale, name, 1.0)
            groups.setdefault(kind, {}).setdefault(scale, []).append(parameter)
    if not groups:
        raise RecipeError(f"{stage.name}.frozen: nothing is left to train")
    return [_optimizer(kind, scales, stage) for kind, scales in sorted(groups.items())]


def _of_longest(values: Mapping[str, T], name: str, default: T) -> T:
    """The value of the longest prefix that the parameter lies under."""
    matching = [prefix for prefix in values if _under(name, prefix)]
    return values[max(matching, key=len)] if matching else default


def _optimizer(kind: str, scales: dict[float, list[nn.Parameter]], stage: StageSpec) -> torch.optim.Optimizer:
    groups = [{"params": params, "scale": scale} for scale, params in sorted(scales.items())]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=0.9, weight_decay=stage.weight_decay)
    adam = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return adam(groups, lr=stage.learning_rate, weight_decay=stage.weight_decay)


Moments = dict[str, dict[str, Any]]
"""What optimisers remember (running moments, step counts) by parameter name."""


def moments(method: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Moments:
    """What the optimisers remember of each parameter that they train."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in method.named_parameters()}
    return {names[parameter]: state for each in optimizers for parameter, state in each.state.items()}


def load_moments(method: nn.Module, optimizers: Sequence[torch.optim.Optimizer], saved: Moments) -> None:
    """Let optimisers go on from ``saved`` where they train a parameter of that name; settings are the stage's own."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    for each in optimizers:
        for parameter in (parameter for group in each.param_groups for parameter in group["params"]):
            state = saved.get(names[parameter])
            if state is not None:
                # Step counts stay where they were: on the CPU.
                each.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                    for key, value in state.items()
                }


def check_stages(method: nn.Module, stages: Sequence[StageSpec]) -> None:
    """Find mistakes of later stages before the first one runs: prefixes, nothing to train, optimisers to keep."""
    for index, stage in enumerate(stages):
        freeze(method, stage)
        build_optimizers(method, stage)
        if stage.keep_optimizer:
            before = stages[index - 1] if index else None
            if before is None or any(getattr(before, f) != getattr(stage, f) for f in ("optimizer", "optimizers")):
                raise RecipeError(
                    f"{stage.name}.keep_optimizer: expected an earlier stage with the same optimizers, found "
                    f"{'others' if before else 'no stage before it'}"
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


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Give every group the rate times its scale."""
    for each in optimizers:
        for group in each.param_groups:
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
