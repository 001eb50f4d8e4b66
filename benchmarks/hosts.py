"""What a gate costs each host of the point-cloud tables, and what refining pseudo-labels by a graph network costs.

A host's step (``sim/<host>``: half-width PointNet, 16 clouds per domain, here of 1,024 points) with SM-DSB's gate
against the same step without; forward, backward and optimiser. In stage 1 the source carries labels, in stage 2 the
target does as well. ``memory`` is the cheap mode: scores are taken in every tenth step, and those between rank by what
is remembered; its rows time ten steps in a row.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle

import torch
from timing import THREADS, Row, Step, compare, measure_peak, peak_mib

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.training.points.build_method import build_method
from isthmus.training.points.graph_refinement import refine
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse

POINTS, BATCH, STEPS, EVERY = 1024, 16, 1000, 10
PRETEXTS = ("defrec", "defrec-pcm", "gast", "mlsp", "implicit")
MODES: dict[str, tuple[tuple[str, str], ...]] = {
    "coupled": (),
    "eval": (("method.gating.saliency", "eval"),),
    "memory": (("method.memory", "{}"), ("method.refresh_every", str(EVERY))),
}
SAMPLES, CHANNELS, CLASSES = 17_378, 1024, 10


def batch(domain: str, labelled: bool) -> Batch:
    """Random clouds in the unit sphere; labels present or not."""
    points = torch.randn(BATCH, POINTS, 3, generator=torch.Generator().manual_seed(int(domain == "target")))
    points = points / points.norm(dim=-1).amax(dim=1)[:, None, None]
    labels, present = torch.arange(BATCH) % CLASSES, torch.full((BATCH,), labelled)
    return Batch(domain, {"points": points}, {"class": labels}, {"class": present}, torch.arange(BATCH))


def training(row: str, stage: int, changes: tuple[tuple[str, str], ...] = (), *, times: int = 1) -> Step:
    """``times`` steps of a row in one call. They go round from the middle of the stage, where all losses count."""
    torch.manual_seed(0)
    recipe = parse(override(named(f"sim/{row}").model_dump(mode="json"), list(changes)))
    method = build_method(recipe, {"source": BATCH, "target": BATCH}).train()  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([weight for weight in method.parameters() if weight.requires_grad], lr=1e-4)
    batches = {"source": batch("source", True), "target": batch("target", stage == 2)}
    positions = cycle(range(STEPS // 2, STEPS // 2 + EVERY))

    def run() -> None:
        for _ in range(times):
            losses = method(batches, Progress(0, stage - 1, next(positions), STEPS))
            sum(loss.coefficient * loss.sum / loss.weight.clamp(min=1) for loss in losses.values()).backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def refinement(steps: int) -> Step:
    """17,378 embeddings of 1,024 channels in 60 groups, each with 10 neighbours: graph, steps, prediction."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, CHANNELS, generator=generator)[torch.arange(SAMPLES) % 60]
    embeddings = (centres + 0.25 * torch.randn(SAMPLES, CHANNELS, generator=generator)).relu()
    scores = torch.rand(SAMPLES, CLASSES, generator=generator).softmax(dim=1)
    return partial(refine, embeddings, scores, seed=0, steps=steps)


SIDES = {f"{row} 1": partial(training, row, 1) for host in PRETEXTS for row in (host, f"smdsb/{host}")}
SIDES |= {"selfdist 2": partial(training, "selfdist", 2), "selfdist 1": partial(training, "selfdist", 1)}
SIDES["refinement, 20 steps"] = partial(refinement, 20)
for _stage in (1, 2):
    for _mode, _changes in MODES.items():
        _times = EVERY if _mode == "memory" else 1
        SIDES[f"smdsb/selfdist {_stage} {_mode}"] = partial(training, "smdsb/selfdist", _stage, _changes, times=_times)
    SIDES[f"selfdist {_stage}, ten"] = partial(training, "selfdist", _stage, times=EVERY)


def _cost(name: str, ours: str, host: str, rounds: int, aim: str = "") -> Row:
    row = compare(SIDES, __file__, name, ours, host, rounds=rounds)
    return {**row, "note": f"costs {row['ours_s'] / row['reference_s']:.2f} of the host{aim}; {row['note']}"}


def pretext_steps() -> Iterator[Row]:
    """A step of each pretext's host with SM-DSB's gate (coupled) against the step without, stage 1."""
    for host in PRETEXTS:
        yield _cost(f"gated step, {host}, stage 1", f"smdsb/{host} 1", f"{host} 1", rounds=6)


def self_distillation_steps() -> Iterator[Row]:
    """A step of self-distillation with the gate against the step without: classification and pretext share a pass."""
    for stage in (1, 2):
        for mode in MODES:
            name = f"gated step, selfdist, stage {stage}, {mode}"
            host, rounds, aim = f"selfdist {stage}", 12, ", aim: at most 1.2"
            if mode == "memory":
                host, rounds, aim = f"selfdist {stage}, ten", 3, ", aim: at most 1.05; ten steps, scores in one"
            yield _cost(name, f"smdsb/selfdist {stage} {mode}", host, rounds, aim)


def graph_refinement() -> Iterator[Row]:
    """Pseudo-labels of 17,378 clouds, refined from 1,024 channels: aim 300 s and 8,192 MiB on two cores."""
    torch.set_num_threads(THREADS)
    run = refinement(1000)
    start, own = time.perf_counter(), time.process_time()
    run()
    seconds, own = time.perf_counter() - start, time.process_time() - own
    note = f"no reference; {own:.0f} s of processor time; threads: {THREADS}; memory: of 20 steps, fresh process"
    yield {
        "name": "graph refinement, 17,378 x 1,024",
        "ours_s": seconds,
        "reference_s": None,
        "ratio": None,
        "ours_mib": peak_mib(__file__, "refinement, 20 steps"),
        "reference_mib": None,
        "note": note,
    }


BENCHMARKS = (pretext_steps, self_distillation_steps, graph_refinement)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
