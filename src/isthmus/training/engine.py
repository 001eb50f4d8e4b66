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
from isthmus.data.stream import KnownLabels, Stream
from isthmus.errors import RunError
from isthmus.losses.weighted import Loss
from isthmus.methods.base import GateRecord, Method
from isthmus.training import pseudo_labels
from isthmus.training.build import build_method, build_streams, open_domains
from isthmus.training.loggers import open_loggers
from isthmus.training.monitor import Monitor
from isthmus.training.optimisation import (
    build_optimizer,
    check_stages,
    freeze,
    learning_rate,
    load_moments,
    set_learning_rate,
    training_mode,
)
from isthmus.training.recipe import EngineSpec, Recipe, StageSpec
from isthmus.training.run import Run, read_arrays, read_checkpoint, write_arrays, write_checkpoint
from isthmus.training.weights import load_encoder


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


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has written a checkpoint first."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    method: Method | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Train a recipe into the folder ``out`` and return the run.

    With ``resume`` an interrupted run in ``out`` goes on where its last checkpoint was. A ``method`` of the user's
    own takes the place of the recipe's. Raises RunError if ``out`` holds another run and ``resume`` is not set.
    """
    fabric = _fabric(recipe.engine)
    fabric.launch()
    shown = reporter if reporter is not None and fabric.global_rank == 0 else Silent()
    run = _open_run(fabric, recipe, out, resume)
    if run.finished:
        shown.message(f"{out} is finished already")
        return run
    return _Training(fabric, run, method or build_method(recipe), shown).execute()


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


def _open_run(fabric: Fabric, recipe: Recipe, out: Path, resume: bool) -> Run:
    if fabric.global_rank == 0 and not (resume and (out / "recipe.yaml").exists()):
        Run.create(out, recipe)
    fabric.barrier()
    run = Run.open(out)
    if run.recipe.model_dump(exclude={"engine"}) != recipe.model_dump(exclude={"engine"}):
        raise RunError(f"{out}: expected the recipe that the run was started with, found another; see recipe.yaml")
    return run


class Logged(NamedTuple):
    """A loss as it is logged: its mean over all processes, the count behind it, its coefficient in the total."""

    mean: Tensor
    weight: Tensor
    coefficient: float


class _Step(nn.Module):
    """What data-parallel training wraps: one call per step, whose result always carries a gradient."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        losses = self.method(batches, progress)
        if not any(loss.sum.requires_grad for loss in losses.values()):
            # Other processes may have a gradient, and wait for this one's share of zeros.
            name, loss = next(iter(losses.items()))
            anchor = next(p for p in self.method.parameters() if p.requires_grad)
            losses[name] = loss._replace(sum=loss.sum + 0.0 * anchor.sum())
        return losses


class _Training:
    """The state of one call of :func:`train`."""

    def __init__(self, fabric: Fabric, run: Run, method: Method, reporter: Reporter) -> None:
        self.fabric = fabric
        self.run = run
        self.recipe = run.recipe
        self.method = method.to(fabric.device)
        self.reporter = reporter
        if fabric.global_rank == 0:
            open_domains(self.recipe, progress=not isinstance(reporter, Silent))
        fabric.barrier()
        self.domains = open_domains(self.recipe)
        if fabric.global_rank == 0:
            run.check_store("source", self.domains.source.path.name)
            run.check_store("target", self.domains.target.path.name)
        check_stages(self.method, self.recipe.stages)
        self.streams = build_streams(self.recipe, self.domains, method)
        self.monitor = Monitor(self.recipe, run, self.domains)
        self.averaged: AveragedModel | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.best: dict[str, dict[str, float]] = {}
        self.started, self.seconds_before = time.monotonic(), 0.0
        self.loggers = open_loggers(self.recipe, run.path) if fabric.global_rank == 0 else []

    def _seconds(self) -> float:
        """Training time over all sessions of the run."""
        return self.seconds_before + time.monotonic() - self.started

    def execute(self) -> Run:
        """Train all stages that are not done yet."""
        recipe, network = self.recipe, getattr(self.method, "network", None)
        total = sum(stage.steps for stage in recipe.stages)
        if recipe.engine.compile and isinstance(network, nn.Module):
            for part in network.children():  # the encoder is also called on its own, by pretexts
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
        if step == 0 and index > 0 and stage.start_from != "last":
            self.method.load_state_dict(self.run.weights(stage.start_from, recipe.stages[index - 1].name))
            self.averaged = None
        if stage.pseudo_labels is not None:
            self._pseudo_label(index, fresh=step == 0)
        if recipe.ema is not None and step == 0:
            self.averaged = self._average()
        freeze(self.method, stage)
        previous, optimizer = self.optimizer, build_optimizer(self.method, stage)
        if saved is not None and (step > 0 or stage.keep_optimizer):
            load_moments(optimizer, saved["optimizer"])
        elif stage.keep_optimizer and previous is not None:
            load_moments(optimizer, previous.state_dict())
        self.optimizer = optimizer
        self.monitor.best = dict(self.best.get(stage.name, {}))
        wrapped = self.fabric.setup_module(_Step(self.method))
        prepared = self.fabric.setup_optimizers(optimizer)
        training_mode(self.method, stage)
        for current in range(step, stage.steps):
            progress = Progress(recipe.seed, index, current, stage.steps)
            rate = learning_rate(stage, current)
            set_learning_rate(optimizer, rate)
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
        self, wrapped: nn.Module, optimizer: Any, stage: StageSpec, progress: Progress, position: int
    ) -> dict[str, Logged]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(progress.torch_seed(rank))
        batches = {
            name: stream.batch(progress, position, rank=rank, world=world).to(self.fabric.device)
            for name, stream in self.streams.items()
        }
        total, values = self._combine(wrapped(batches, progress))
        self.fabric.backward(total)
        if stage.clip_norm is not None:
            self.fabric.clip_gradients(wrapped, optimizer, max_norm=stage.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if self.averaged is not None:
            self.averaged.update_parameters(self.method)
        return values

    def _combine(self, losses: dict[str, Loss]) -> tuple[Tensor, dict[str, Logged]]:
        """The step's total, each loss divided by its weight over all processes; and each mean with its coefficient."""
        weights = torch.stack([loss.weight.float() for loss in losses.values()])
        sums = torch.stack([loss.sum.detach().float() for loss in losses.values()])
        world = self.fabric.world_size
        if world > 1:
            shared = self.fabric.all_reduce(torch.stack([weights, sums]), reduce_op="sum")
            weights, sums = shared[0], shared[1]
        total = torch.zeros((), device=weights.device)
        values = {}
        for position, (name, loss) in enumerate(losses.items()):
            weight = torch.where(weights[position] > 0, weights[position], 1.0)
            # Data-parallel training averages gradients over processes; the sum is what is wanted.
            total = total + loss.coefficient * loss.sum * world / weight
            values[name] = Logged(sums[position] / weight, weights[position], loss.coefficient)
        return total, values

    def _log(self, losses: dict[str, Logged], stage: StageSpec, step: int, global_step: int, rate: float) -> None:
        metrics: dict[str, float] = {"learning_rate": rate}
        for name, loss in losses.items():
            if loss.weight > 0:
                value = float(loss.mean)
                if not math.isfinite(value) and self.recipe.engine.precision != "16-mixed":
                    raise RunError(
                        f"{self.run.path}: {stage.name} step {step}: loss {name}: expected a number, "
                        f"found {value}; a new run with a lower stages.*.learning_rate or a clip_norm may help"
                    )
                metrics[f"loss/{name}"] = value
                metrics[f"weighted/{name}"] = loss.coefficient * value
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
            scores = self.monitor.evaluate(self._predict, stage.name, step)
            chosen = self.monitor.improved(scores)
            if last:
                chosen.append("last")
                if "label-free" not in self.monitor.best:
                    chosen.append("label-free")  # every prediction had collapsed; the last is no worse a choice
            for rule in chosen:
                file = self.run.weights_file(stage.name, rule)  # type: ignore[arg-type]
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
            self.reporter.message(
                f"{stage.name} step {step}: source-val {scores['source-val']:.3f}, "
                f"im {scores['im']:.3f}, bnm {scores['bnm']:.3f}" + (" (collapsed)" if scores["collapsed"] else "")
            )
        self.fabric.barrier()

    def _current(self) -> Method:
        """The method whose predictions count: the moving average where there is one."""
        return self.averaged.module if self.averaged is not None else self.method  # type: ignore[return-value]

    @torch.no_grad()
    def _predict(self, points: Tensor) -> Tensor:
        method = self._current().eval()
        with self.fabric.autocast():
            outputs = method.predict({"points": points.to(self.fabric.device)})
        return outputs[next(iter(method.tasks))]

    def _pseudo_label(self, index: int, *, fresh: bool) -> None:
        """Give the target stream the labels that the model of the stage before predicts."""
        stage = self.recipe.stages[index]
        spec, file = stage.pseudo_labels, self.run.path / f"pseudo_labels.{stage.name}.npz"
        assert spec is not None
        stream: Stream = self.streams["target"]
        if fresh and self.fabric.global_rank == 0:
            logits = self.monitor.logits(self._predict, stream.store, stream.rows).numpy()
            known = pseudo_labels.choose(
                logits,
                stream.rows,
                len(stream.store),
                min_confidence=spec.min_confidence,
                class_share=spec.class_share,
            )
            write_arrays(file, labels=known.labels, present=known.present)
            self.reporter.message(f"{stage.name}: {known.present.sum()} of {len(stream.rows)} pseudo-labels")
        self.fabric.barrier()
        stream.known[next(iter(self.method.tasks))] = KnownLabels(**read_arrays(file))

    def _average(self) -> AveragedModel:
        assert self.recipe.ema is not None
        return AveragedModel(self.method, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema), use_buffers=True)

    def _checkpoint(self, stage: int, step: int) -> None:
        if self.fabric.global_rank == 0:
            assert self.optimizer is not None
            if not all(parameter.isfinite().all() for parameter in self.method.parameters()):
                raise RunError(
                    f"{self.run.path}: {self.recipe.stages[min(stage, len(self.recipe.stages) - 1)].name}: expected "
                    "finite weights, found NaN or Inf; the last good checkpoint is kept. A new run with a lower "
                    "stages.*.learning_rate or a clip_norm may help"
                )
            content: dict[str, Any] = {
                "weights": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
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
        if self.recipe.encoder_weights is not None:
            encoder = self.method.get_submodule("network.encoder")
            account = load_encoder(encoder, self.recipe.encoder_weights)
            self.reporter.message(f"encoder_weights: {account}")
            if self.fabric.global_rank == 0:
                self.run.update(encoder_weights=str(account))
        return None


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
