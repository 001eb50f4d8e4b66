"""The training loop: stages in order, one forward and one backward per step, resumable at every checkpoint.

Devices, precision, processes and launching are Lightning Fabric's. Everything random is a function of (seed, stage,
step, sample id), the learning rate of the step, and a batch of its number; so what a checkpoint has to hold is
weights, optimiser state and a position, and a run killed at any moment resumes to the same result, bit for bit on CPU.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.errors import RecipeError, RunError
from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting
from isthmus.methods.base import GateRecord, Method
from isthmus.training.gradients import combined_gradients
from isthmus.training.loggers import open_loggers
from isthmus.training.optimisation import (
    build_optimizers,
    check_stages,
    freeze,
    learning_rate,
    load_moments,
    moments,
    set_learning_rate,
    training_mode,
)
from isthmus.training.problem import open_problem
from isthmus.training.recipe import EngineSpec, Recipe, StageSpec
from isthmus.training.run import Run, check_free, read_checkpoint, write_checkpoint


class Reporter(Protocol):
    """Where progress is shown."""

    def start(self, done: int, total: int) -> None:
        """A run of ``total`` steps begins, or goes on, after ``done``."""

    def advance(self) -> None:
        """One more step is done."""

    def message(self, text: str) -> None:
        """Something worth a line happened."""


class Silent:
    """Shows nothing."""

    def start(self, done: int, total: int) -> None:
        """Ignore."""

    def advance(self) -> None:
        """Ignore."""

    def message(self, text: str) -> None:
        """Ignore."""


class Observer(Protocol):
    """Looks at training from within; what it does must leave weights, buffers and gradients as they are."""

    def __call__(self, method: Method, batches: dict[str, Batch], progress: Progress) -> None:
        """Called in every step between the backward pass and the update.

        The parameters are those that the step's gradients, in ``.grad``, belong to, and ``method.gate_records`` are of
        this step.
        """


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has written a checkpoint first."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    method: Method | None = None,
    reporter: Reporter | None = None,
    observer: Observer | None = None,
) -> Run:
    """Train a recipe into the folder ``out`` and return the run.

    With ``resume`` an interrupted run in ``out`` goes on where its last checkpoint was. A ``method`` of the user's
    own takes the place of the recipe's. An ``observer`` sees every step on every process. Raises RunError if ``out``
    holds another run and ``resume`` is not set.
    """
    fabric = _fabric(recipe.engine)
    fabric.launch()
    shown = reporter if reporter is not None and fabric.global_rank == 0 else Silent()
    run = _open_run(fabric, recipe, out, resume, method, shown)
    if run.finished:
        shown.message(f"{out} is finished already")
        return run
    return _Training(fabric, run, method, shown, observer).execute()


def _fabric(engine: EngineSpec) -> Fabric:
    strategy: Any = engine.strategy
    if engine.strategy == "ddp" or engine.devices * engine.num_nodes > 1:
        strategy = DDPStrategy(find_unused_parameters=True)
    return Fabric(
        accelerator=engine.accelerator,
        devices=engine.devices,
        num_nodes=engine.num_nodes,
        strategy=strategy,
        precision=engine.precision,
    )


def _open_run(
    fabric: Fabric, recipe: Recipe, out: Path, resume: bool, method: Method | None, reporter: Reporter
) -> Run:
    if fabric.global_rank == 0 and not (resume and (out / "recipe.yaml").exists()):
        check_free(out)
        # Data is prepared and the method built before the folder is taken: most mistakes show there.
        problem = open_problem(recipe, progress=not isinstance(reporter, Silent))
        problem.check()
        for line in problem.left_out():
            reporter.message(line)
        check_stages(method or problem.build_method(), recipe.stages)
        Run.create(out, recipe)
    fabric.barrier()
    run = Run.open(out)
    if run.recipe.model_dump(exclude={"engine"}) != recipe.model_dump(exclude={"engine"}):
        raise RunError(f"{out}: expected the recipe that the run was started with, found another; see recipe.yaml")
    return run


class Logged(NamedTuple):
    """A loss over all processes as it is logged.

    The mean of the samples that take part, what it adds to the step's total, how many take part, and how much of the
    batch they are.
    """

    mean: Tensor
    weighted: Tensor
    samples: Tensor
    share: Tensor


class _Step(nn.Module):
    """What data-parallel training wraps: one call per step, whose result always carries a gradient."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batches: dict[str, Batch], progress: Progress) -> tuple[dict[str, Loss], dict[str, Tensor]]:
        """The losses as they are to be added up, and the sums of the method's own before any weighting."""
        losses = self.method(batches, progress)
        sums = {name: loss.sum.detach() for name, loss in losses.items()}
        if self.method.weighting is not None:
            losses = self.method.weighting(losses)
        if not any(loss.sum.requires_grad for loss in losses.values()):
            # Other processes may have a gradient, and wait for this one's share of zeros.
            name, loss = next(iter(losses.items()))
            anchor = next(p for p in self.method.parameters() if p.requires_grad)
            losses[name] = loss._replace(sum=loss.sum + 0.0 * anchor.sum())
        return losses, sums


class _Training:
    """The state of one call of :func:`train`."""

    def __init__(
        self, fabric: Fabric, run: Run, method: Method | None, reporter: Reporter, observer: Observer | None
    ) -> None:
        self.fabric = fabric
        self.run = run
        self.recipe = run.recipe
        self.reporter = reporter
        self.observer = observer
        if fabric.global_rank == 0:
            open_problem(self.recipe, progress=not isinstance(reporter, Silent))
        fabric.barrier()
        self.problem = open_problem(self.recipe)
        if fabric.global_rank == 0:
            for domain, names in self.problem.stores.items():
                run.check_store(domain, names)
            run.update(**self.problem.description())
        if method is not None:
            self.problem.adopt(method)
        self.method = (method or self.problem.build_method()).to(fabric.device)
        check_stages(self.method, self.recipe.stages)
        self.streams = self.problem.streams(self.method)
        for stage in self.recipe.stages:
            if stage.domains and not self.streams.keys() & set(stage.domains):
                raise RecipeError(
                    f"{stage.name}.domains: expected some of {', '.join(self.streams)}, from which there is something "
                    f"to learn, found {', '.join(stage.domains)}"
                )
        self.monitor = self.problem.monitor(run)
        self.averaged: AveragedModel | None = None
        self.optimizers: list[torch.optim.Optimizer] = []
        self.best: dict[str, dict[str, float]] = {}
        self.started, self.seconds_before = time.monotonic(), 0.0
        self.loggers = open_loggers(self.recipe, run.path) if fabric.global_rank == 0 else []

    def _seconds(self) -> float:
        """Training time over all sessions of the run."""
        return self.seconds_before + time.monotonic() - self.started

    def execute(self) -> Run:
        """Train all stages that are not done yet."""
        recipe = self.recipe
        total = sum(stage.steps for stage in recipe.stages)
        if recipe.engine.compile:
            for part in self.method.compiled_parts():
                part.compile()
        saved = self._restore()
        first, step = (saved["stage"], saved["step"]) if saved else (0, 0)
        before = sum(stage.steps for stage in recipe.stages[:first])
        self.reporter.start(before + step, total)
        if self.fabric.global_rank == 0:
            self.run.rewind(before + step)
            self.run.update(status="training")
        with _stop_signals(self.fabric.world_size == 1) as stop_asked:
            for index in range(first, len(recipe.stages)):
                self._stage(index, step if index == first else 0, saved if index == first else None, stop_asked)
        if self.fabric.global_rank == 0:
            self.run.write_csv()
            self.run.update(status="finished", seconds=round(self._seconds(), 1))
        self.fabric.barrier()
        return self.run

    def _stage(self, index: int, step: int, saved: dict[str, Any] | None, stop_asked: Callable[[], bool]) -> None:
        stage, recipe = self.recipe.stages[index], self.recipe
        before = sum(earlier.steps for earlier in recipe.stages[:index])
        if step == 0 and index > 0 and stage.start_from not in ("last", "scratch"):
            before_it = recipe.stages[index - 1].name
            if stage.start_from == "before-overfit":
                weights, chosen = self.run.weights_before_overfit(before_it)
                self.reporter.message(f"{stage.name}: starts from step {chosen} of {before_it}")
            else:
                weights = self.run.weights(stage.start_from, before_it)
            self.method.load_state_dict(weights)
            self.averaged = None
        if stage.pseudo_labels is not None:
            self._pseudo_label(index, step)
        if step == 0 and stage.start_from == "scratch":
            self.method.load_state_dict(self.run.initial_weights())
            self.averaged = None
        if recipe.ema is not None and step == 0:
            self.averaged = self._average()
        freeze(self.method, stage)
        kept = moments(self.method, self.optimizers)
        self.optimizers = build_optimizers(self.method, stage)
        if saved is not None and (step > 0 or stage.keep_optimizer):
            load_moments(self.method, self.optimizers, saved["optimizer"])
        elif stage.keep_optimizer:
            load_moments(self.method, self.optimizers, kept)
        self.monitor.best = dict(self.best.get(stage.name, {}))
        wrapped = self.fabric.setup_module(_Step(self.method))
        prepared = [self.fabric.setup_optimizers(each) for each in self.optimizers]
        training_mode(self.method, stage)
        for current in range(step, stage.steps):
            progress = Progress(recipe.seed, index, current, stage.steps)
            self._refresh_pseudo_labels(stage, progress)
            rate = learning_rate(stage, current)
            set_learning_rate(self.optimizers, rate)
            losses = self._step(wrapped, prepared, stage, progress, before + current)
            done = current + 1
            self.reporter.advance()
            if done % recipe.log_every == 0 or done == stage.steps:
                self._log(losses, stage, done, before + done, rate)
            if done % recipe.evaluate_every == 0 or done == stage.steps:
                self._evaluate(stage, done, before + done, last=done == stage.steps)
                training_mode(self.method, stage)
            stopping = stop_asked()
            if done == stage.steps:
                self._checkpoint(index + 1, 0)
            elif done % recipe.checkpoint_every == 0 or stopping:
                self._checkpoint(index, done)
            if stopping and before + done < sum(each.steps for each in recipe.stages):
                raise Interrupted(f"{self.run.path}: stopped after {before + done} steps; a checkpoint is written")

    def _step(
        self, wrapped: nn.Module, optimizers: list[Any], stage: StageSpec, progress: Progress, position: int
    ) -> dict[str, Logged]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(progress.torch_seed(rank))
        batches = {
            name: stream.batch(progress, position, rank=rank, world=world).to(self.fabric.device)
            for name, stream in self.streams.items()
            if not stage.domains or name in stage.domains
        }
        weighting = self.method.weighting
        if weighting is not None and weighting.needs_gradients:
            with self.fabric.autocast():
                losses, sums = _Step(self.method)(batches, progress)
            means, values = self._means(losses, sums)
            labelled = {name: value.share for name, value in values.items()}
            combined_gradients(self.method, weighting, means, self.fabric, labelled)
        else:
            losses, sums = wrapped(batches, progress)
            means, values = self._means(losses, sums)
            # Data-parallel training averages gradients over processes; the sum is what is wanted.
            self.fabric.backward(sum(means.values(), torch.zeros((), device=self.fabric.device)) * world)
        if self.observer is not None:
            self.observer(self.method, batches, progress)
        for each in optimizers:
            if stage.clip_norm is not None:
                self.fabric.clip_gradients(wrapped, each, max_norm=stage.clip_norm)
        for each in optimizers:
            each.step()
            each.zero_grad()
        if weighting is not None:
            weighting.observe(_task_means(weighting, values))
        if self.averaged is not None:
            self.averaged.update_parameters(self.method)
        return values

    def _means(self, losses: dict[str, Loss], sums: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Logged]]:
        """This process's share of each mean loss times its coefficient, with its graph; and what is logged of it.

        A loss is divided by its weight over all processes, so the shares add up to the mean.
        """
        weights = torch.stack([loss.weight.float() for loss in losses.values()])
        samples = torch.stack([loss.taking_part.float() for loss in losses.values()])
        masses = torch.stack([loss.entering.float() for loss in losses.values()])
        scaled = torch.stack([loss.sum.detach().float() for loss in losses.values()])
        plain = torch.stack([sums.get(name, loss.sum.detach()).float() for name, loss in losses.items()])
        if self.fabric.world_size > 1:
            shared = self.fabric.all_reduce(torch.stack([weights, samples, masses, scaled, plain]), reduce_op="sum")
            assert isinstance(shared, Tensor)
            weights, samples, masses, scaled, plain = shared.unbind()
        shares, values = {}, {}
        for position, (name, loss) in enumerate(losses.items()):
            weight = torch.where(weights[position] > 0, weights[position], 1.0)
            shares[name] = loss.coefficient * loss.sum / weight
            values[name] = Logged(
                plain[position] / torch.where(masses[position] > 0, masses[position], 1.0),
                loss.coefficient * scaled[position] / weight,
                samples[position],
                masses[position] / weight,
            )
        return shares, values

    def _log(self, losses: dict[str, Logged], stage: StageSpec, step: int, global_step: int, rate: float) -> None:
        metrics: dict[str, float] = {"learning_rate": rate}
        for name, loss in losses.items():
            if loss.samples > 0:
                value = float(loss.mean)
                if not math.isfinite(value) and self.recipe.engine.precision != "16-mixed":
                    raise RunError(
                        f"{self.run.path}: {stage.name} step {step}: loss {name}: expected a number, "
                        f"found {value}; a new run with a lower stages.*.learning_rate or a clip_norm may help"
                    )
                metrics[f"loss/{name}"] = value
                metrics[f"weighted/{name}"] = float(loss.weighted)
        metrics |= {name: value for name, value in self.method.measures().items() if math.isfinite(value)}
        for domain, record in self.method.gate_records.items():
            scored = record.scores.isfinite()
            if scored.any():
                metrics[f"gate/{domain}/taking_part"] = float(record.taking_part[scored].float().mean())
                metrics[f"gate/{domain}/mean_score"] = float(record.scores[scored].mean())
        if self.fabric.global_rank != 0:
            return
        position = {"global_step": global_step, "stage": stage.name, "step": step}
        self.run.log("metrics", {**position, **metrics})
        for domain, record in self.method.gate_records.items():
            self._log_gate(domain, record, position)
        for log in self.loggers:
            log(metrics, global_step)

    def _log_gate(self, domain: str, record: GateRecord, position: dict[str, Any]) -> None:
        scored = record.scores.isfinite()
        if scored.any():
            row = {
                "domain": domain,
                "scores": [round(score, 4) for score in record.scores[scored].tolist()],
                "taking_part": record.taking_part[scored].int().tolist(),
                "labels": record.labels[scored].tolist(),
            }
            self.run.log("gate", {**position, **row})

    def _evaluate(self, stage: StageSpec, step: int, global_step: int, *, last: bool) -> None:
        if self.fabric.global_rank == 0:
            measures = self.method.measures()
            scores = self.monitor.evaluate(self._predict, stage.name, step, last=last, measures=measures)
            chosen = self.monitor.improved(scores)
            if last:
                chosen.append("last")
                # A rule that vetoed every step (every prediction had collapsed) has no better choice than the last.
                chosen += [rule for rule in self.recipe.rules if rule != "last" and rule not in self.monitor.best]
            for rule in chosen:
                file = self.run.weights_file(stage.name, rule)
                write_checkpoint(file, {"weights": self._current().state_dict(), "step": step})
            self.best[stage.name] = dict(self.monitor.best)
            self.run.log(
                "metrics",
                {
                    "global_step": global_step,
                    "stage": stage.name,
                    "step": step,
                    **{f"score/{name}": score for name, score in scores.items()},
                },
            )
            for log in self.loggers:
                log({f"score/{name}": score for name, score in scores.items()}, global_step)
            self.reporter.message(f"{stage.name} step {step}: {self.monitor.summary(scores)}")
        self.fabric.barrier()

    def _current(self) -> Method:
        """The method whose predictions count: the moving average where there is one."""
        return self.averaged.module if self.averaged is not None else self.method  # type: ignore[return-value]

    @torch.no_grad()
    def _predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        method = self._current().eval()
        with self.fabric.autocast():
            return method.predict({name: tensor.to(self.fabric.device) for name, tensor in inputs.items()})

    @torch.no_grad()
    def _embed(self, inputs: dict[str, Tensor]) -> Tensor:
        method = self._current().eval()
        with self.fabric.autocast():
            return method.embed({name: tensor.to(self.fabric.device) for name, tensor in inputs.items()})

    def _pseudo_label(self, index: int, step: int) -> None:
        """Give the target stream what the model of the stage before predicts, or what held in the step before."""
        stage = self.recipe.stages[index]
        assert stage.pseudo_labels is not None
        if step == 0 and self.fabric.global_rank == 0:
            file = self.run.pseudo_labels(stage.name, 0)
            account = self.problem.write_pseudo_labels(self._predict, stage.pseudo_labels, file)
            self.reporter.message(f"{stage.name}: {account}")
        self.fabric.barrier()
        held = _refreshed(stage, max(step - 1, 0))  # those of this step are made when the loop comes to it
        self.problem.use_pseudo_labels(self.run.pseudo_labels(stage.name, held), self.streams)

    def _refresh_pseudo_labels(self, stage: StageSpec, progress: Progress) -> None:
        """Make them anew where this step is due for it; the files of all times stay, so a resumed run finds its own."""
        if stage.pseudo_labels is None or progress.step == 0 or _refreshed(stage, progress.step) != progress.step:
            return
        file = self.run.pseudo_labels(stage.name, progress.step)
        if self.fabric.global_rank == 0:
            before = self.run.pseudo_labels(stage.name, _refreshed(stage, progress.step - 1))
            account = self.problem.refresh_pseudo_labels(
                self._predict, self._embed, stage.pseudo_labels, before, file, progress=progress
            )
            self.reporter.message(f"{stage.name} step {progress.step}: {account}")
        self.fabric.barrier()
        self.problem.use_pseudo_labels(file, self.streams)
        training_mode(self.method, stage)

    def _average(self) -> AveragedModel:
        assert self.recipe.ema is not None
        return AveragedModel(self.method, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema), use_buffers=True)

    def _checkpoint(self, stage: int, step: int) -> None:
        if self.fabric.global_rank == 0:
            if not all(parameter.isfinite().all() for parameter in self.method.parameters()):
                raise RunError(
                    f"{self.run.path}: {self.recipe.stages[min(stage, len(self.recipe.stages) - 1)].name}: expected "
                    "finite weights, found NaN or Inf; the last good checkpoint is kept. A new run with a lower "
                    "stages.*.learning_rate or a clip_norm may help"
                )
            content: dict[str, Any] = {
                "weights": self.method.state_dict(),
                "optimizer": moments(self.method, self.optimizers),
                "precision": self.fabric.strategy.precision.state_dict(),
                "stage": stage,
                "step": step,
                "best": self.best,
                "seconds": self._seconds(),
            }
            if self.averaged is not None:
                content["averaged"] = self.averaged.state_dict()
            write_checkpoint(self.run.path / "checkpoints" / "last.pt", content)
        self.fabric.barrier()

    def _restore(self) -> dict[str, Any] | None:
        """Load the last checkpoint, or the user's own encoder weights for a fresh run."""
        file = self.run.path / "checkpoints" / "last.pt"
        if file.is_file():
            saved = read_checkpoint(file)
            self.method.load_state_dict(saved["weights"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
            self.best = saved["best"]
            self.seconds_before = saved.get("seconds", 0.0)
            if "averaged" in saved:
                self.averaged = self._average()
                self.averaged.load_state_dict(saved["averaged"])
            return saved
        account = self.problem.initialise(self.method)
        if account is not None:
            self.reporter.message(f"initial weights: {account}")
            if self.fabric.global_rank == 0:
                self.run.update(initial_weights=account)
        if self.fabric.global_rank == 0 and any(stage.start_from == "scratch" for stage in self.recipe.stages):
            self.run.keep_initial_weights(self.method.state_dict())
        self.fabric.barrier()
        return None


def _refreshed(stage: StageSpec, step: int) -> int:
    """The step at or before ``step`` at which the stage's pseudo-labels were made last."""
    every = None if stage.pseudo_labels is None else stage.pseudo_labels.refresh_every
    return 0 if every is None else step // every * every


def _task_means(weighting: Weighting, values: dict[str, Logged]) -> dict[str, float]:
    """The mean loss of each task that was present, added up over domains."""
    means: dict[str, float] = {}
    for name, value in values.items():
        task = weighting.task_of(name)
        if task is not None and value.samples > 0:
            means[task] = means.get(task, 0.0) + float(value.mean)
    return means


@contextmanager
def _stop_signals(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a question that the loop asks after each step; the second one kills."""
    asked = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
