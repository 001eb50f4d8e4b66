"""The runs of a suite spread over processes, of this machine or of a Ray cluster.

Each run is one task of Ray. What is finished is skipped, what was interrupted goes on from its checkpoint, and a task
whose process or machine is lost is started anew by Ray and does the same. Two processes never train into one folder:
whoever trains holds a lock of the kernel's on a folder beside the runs, which is given back however the process ends.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from isthmus.data.folder_lock import hold
from isthmus.errors import IsthmusError, RecipeError, RunError
from isthmus.training.engine import train
from isthmus.training.problem import open_problem
from isthmus.training.recipe import Recipe
from isthmus.training.run import Run

RETRIES = 3
"""How often a run is started anew whose process was lost."""

LOCKS = ".training"
"""Folder below the suite's, with one folder for each run that a process trains."""

_PATIENCE = 60.0
"""Seconds that a lost process may take to give back its lock, and a stopped one to write its checkpoint."""


class Cell(NamedTuple):
    """One run of a suite: its folder below the suite's, and its recipe."""

    name: str
    recipe: Recipe

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.recipe.stages)


class Reporter(Protocol):
    """Where finished runs are shown."""

    def skip(self, steps: int) -> None:
        """A run of so many steps is finished."""

    def message(self, text: str) -> None:
        """Something worth a line happened."""


def train_spread(
    cells: Sequence[Cell], out: Path, *, workers: int, address: str | None = None, reporter: Reporter
) -> list[Run[Any]]:
    """Train what is missing of ``cells`` below ``out``, ``workers`` at a time, and return all runs in order.

    Without ``address`` Ray starts on this machine, and ends with the call; else it is that of a running cluster
    (``ray start --head``; ``"auto"`` finds it), all machines of which see ``out`` under the same path. The CPUs are
    shared out evenly: with as many workers as CPUs each computes with one thread, unless ``OMP_NUM_THREADS`` says
    with how many. Where runs fail, the others are finished first; then RunError names each with its error.
    """
    out = out.resolve()
    waiting = []
    for cell in cells:
        if _done(cell, out):
            reporter.skip(cell.steps)
        else:
            waiting.append(cell)
    if waiting:
        _check(waiting)
        with _cluster(workers, address) as ray:
            _prepare(waiting, reporter)
            problems = _train_all(ray, waiting, out, workers, reporter)
        if problems:
            text = "\n".join(f"{name}: {problem}" for name, problem in problems.items())
            raise RunError(
                f"{len(problems)} of {len(cells)} runs are missing, so no table is written:\n{text}\n"
                f"The other {len(cells) - len(problems)} are finished. The same command goes on with what is missing"
            )
    return [Run.open(out / cell.name) for cell in cells]


def _check(cells: Iterable[Cell]) -> None:
    for name, recipe in cells:
        if recipe.engine.devices * recipe.engine.num_nodes > 1:
            raise RecipeError(
                f"{name}: engine.devices, engine.num_nodes: expected 1 of each where runs are spread over processes, "
                f"found {recipe.engine.devices} and {recipe.engine.num_nodes}"
            )


def _prepare(cells: Iterable[Cell], reporter: Reporter) -> None:
    """Prepare all data once, before several processes ask for it."""
    seen = set()
    for name, recipe in cells:
        data = recipe.model_dump_json(exclude={"name", "seed", "method", "stages", "engine"})
        if data not in seen:
            seen.add(data)
            reporter.message(f"{name}: preparing or opening its data")
            open_problem(recipe)


def _done(cell: Cell, out: Path) -> bool:
    """Whether this very recipe has been trained; a run of another one is left to training to complain of."""
    if not (out / cell.name / "recipe.yaml").exists():
        return False
    run = Run.open(out / cell.name)
    skipped = {"engine"}
    return run.finished and run.recipe.model_dump(exclude=skipped) == cell.recipe.model_dump(exclude=skipped)


@contextmanager
def _cluster(workers: int, address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, or started on this machine without dashboard and usage reports."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise IsthmusError(
            "several workers need Ray, found not installed: pip install 'isthmus[cluster]', or leave out --workers"
        ) from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        cpus = max(workers, os.cpu_count() or 1)
        # Runs pass through folders, not through Ray's memory.
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
    else:
        try:
            host, colon, port = address.rpartition(":")
            if colon and port.isdigit() and "/" not in host:  # Ray itself would go on trying for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunError(
                f"--ray {address}: expected a running Ray cluster (ray start --head), found {error}"
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _train_all(ray: Any, cells: Sequence[Cell], out: Path, workers: int, reporter: Reporter) -> dict[str, str]:
    """Train all cells, ``workers`` at a time; what went wrong by name."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    share = max(1, min(sum(cpus) // workers, max(cpus)))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() and int(asked) > 0 else share
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    shared = {name: os.environ[name] for name in ("ISTHMUS_CACHE", "ISTHMUS_DATA") if name in os.environ}
    # OpenMP reads its variable when it is loaded, before any code of ours.
    environment = {**shared, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    task = ray.remote(_train_cell)
    options = {"num_cpus": share, "max_retries": RETRIES, "runtime_env": {"env_vars": environment}}
    queue, running, problems = list(cells), dict[Any, Cell](), dict[str, str]()
    try:
        while queue or running:
            while queue and len(running) < workers:
                cell = queue.pop(0)
                on_gpu = gpus > 0 and cell.recipe.engine.accelerator != "cpu"
                sized = task.options(num_gpus=min(1.0, gpus / workers) if on_gpu else 0, **options)
                running[sized.remote(cell.recipe, str(out), cell.name, os.getcwd(), threads)] = cell
                reporter.message(f"{cell.name}: started")
            ready, _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(ready[0])
            problem = _result(ray, ready[0])
            if problem is None:
                reporter.skip(cell.steps)
            else:
                problems[cell.name] = problem
            left = len(queue) + len(running)
            reporter.message(f"{cell.name}: {'finished' if problem is None else 'failed'}; {left} runs to go")
    except KeyboardInterrupt:
        for reference in running:
            ray.cancel(reference)  # what Ctrl-C is to a run: it writes a checkpoint and stops
        ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE)
        raise
    return problems


def _result(ray: Any, reference: Any) -> str | None:
    """What went wrong with a task, if anything."""
    try:
        problem: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"its process was lost {RETRIES + 1} times or stopped: {str(error).strip().splitlines()[0]}"
    return problem


def _train_cell(recipe: Recipe, out: str, name: str, directory: str, threads: int) -> str | None:
    """Train one cell in a process of Ray's, from the beginning or from its checkpoint; what went wrong, if anything."""
    if os.path.isdir(directory):
        os.chdir(directory)  # paths of data may be relative
    torch.set_num_threads(threads)
    try:
        with _alone(Path(out), name):
            train(recipe, Path(out) / name, resume=True)
    except IsthmusError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return None


@contextmanager
def _alone(out: Path, name: str) -> Iterator[None]:
    """Hold the lock of a run's folder; whoever holds it writes its machine and process there."""
    folder = out / LOCKS / name
    folder.mkdir(parents=True, exist_ok=True)
    said, deadline = folder / "process", time.monotonic() + _PATIENCE
    while (lock := hold(folder)) is None:
        if time.monotonic() > deadline:
            holder = said.read_text() if said.exists() else "unknown"
            raise RunError(
                f"{out / name}: expected that no other process trains it, found {folder} locked (process {holder}), "
                "or on a file system without locks"
            )
        time.sleep(0.5)
    with lock:
        said.write_text(f"{os.getpid()} on {socket.gethostname()}")
        yield
