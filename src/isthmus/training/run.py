"""A run is a folder from which everything can be resumed, evaluated, compared and reported.

``recipe.yaml`` the resolved recipe; ``run.json`` status and versions; ``metrics.jsonl`` and ``metrics.csv`` the log;
``gate.jsonl`` what the gate saw and let through; ``checkpoints/last.pt`` the state to resume from, and
``checkpoints/<stage>.<rule>.pt`` the weights each selection rule chose; ``evaluations/<stage>-<step>.npz`` predictions
without target labels, from which accuracies are worked out only when an evaluation asks; ``pseudo_labels.<stage>.npz``.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch

from isthmus.errors import RunError
from isthmus.training.recipe import Recipe, Rule, load

R = TypeVar("R", bound=Recipe)


class Run(Generic[R]):
    """The folder of one run. Make one with :meth:`create`, open one with :meth:`open`."""

    def __init__(self, path: Path, recipe: R) -> None:
        self.path = path
        self.recipe = recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Run[Any]:
        """Start a folder; refuses one that holds anything, so that no run is ever overwritten."""
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        run: Run[Any] = Run(path, recipe)
        run.update(status="new", versions=versions())
        write_atomically(path / "recipe.yaml", recipe.dump().encode())
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Run[Any]:
        """Open a run that exists."""
        if not (path / "recipe.yaml").is_file():
            raise RunError(f"{path}: expected a run folder with recipe.yaml, found none")
        run: Run[Any] = Run(path, load(path / "recipe.yaml"))
        for folder in ("checkpoints", "evaluations"):
            (path / folder).mkdir(exist_ok=True)
        return run

    @property
    def state(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        file = self.path / "run.json"
        if not file.is_file():
            return {}
        state: dict[str, Any] = json.loads(file.read_text())
        return state

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json``."""
        text = json.dumps({**self.state, **fields}, indent=1, sort_keys=True)
        write_atomically(self.path / "run.json", text.encode())

    def check_store(self, domain: str, names: Sequence[str]) -> None:
        """Whether the prepared data of a domain is what the run saw; remembers it at the first call of a new run.

        ``names`` is what that data is known by; the first is remembered.
        """
        stores = self.state.get("stores", {})
        if domain not in stores:
            self.update(stores={**stores, domain: names[0]})
        elif stores[domain] not in names:
            raise RunError(
                f"{self.path}: the {domain} data has changed since the run started: expected the prepared data "
                f"{stores[domain][:12]}, found {names[0][:12]}; its predictions belong to other rows"
            )

    @property
    def finished(self) -> bool:
        """Whether the run reached the end of its last stage."""
        return self.state.get("status") == "finished"

    def weights_file(self, stage: str, rule: str) -> Path:
        """Where the weights that ``rule`` chose in ``stage`` lie."""
        return self.path / "checkpoints" / f"{stage}.{rule}.pt"

    def weights(self, rule: Rule = "last", stage: str | None = None) -> dict[str, torch.Tensor]:
        """Weights of the method, as chosen by ``rule`` in ``stage`` (the last one by default)."""
        file = self.weights_file(stage or self.recipe.stages[-1].name, rule)
        if not file.is_file():
            raise RunError(f"{file}: expected the weights of a finished stage, found none; is the run finished?")
        weights: dict[str, torch.Tensor] = read_checkpoint(file)["weights"]
        return weights

    def pseudo_labels(self, stage: str, step: int) -> Path:
        """Where the labels lie that a stage began with (``step`` 0) or that were made anew in it."""
        return self.path / (f"pseudo_labels.{stage}.npz" if step == 0 else f"pseudo_labels.{stage}-{step:08d}.npz")

    def keep_initial_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Write the weights that the run begins with."""
        write_checkpoint(self._initial, {"weights": weights})

    def initial_weights(self) -> dict[str, torch.Tensor]:
        """What :meth:`keep_initial_weights` wrote."""
        weights: dict[str, torch.Tensor] = read_checkpoint(self._initial)["weights"]
        return weights

    @property
    def _initial(self) -> Path:
        return self.path / "checkpoints" / "initial.pt"

    def weights_before_overfit(self, stage: str) -> tuple[dict[str, torch.Tensor], int]:
        """Weights of ``stage`` before any task overfits: the earliest of the tasks' best checkpoints; and its step."""
        files = sorted((self.path / "checkpoints").glob(f"{stage}.val-*.pt"))
        if not files:
            raise RunError(f"{self.path}: expected the best checkpoint of every task in {stage}, found none")
        found = [read_checkpoint(file) for file in files]
        earliest = min(found, key=lambda content: content["step"])
        return earliest["weights"], earliest["step"]

    def log(self, file: Literal["metrics", "gate"], row: dict[str, Any]) -> None:
        """Append a row to ``<file>.jsonl``."""
        with (self.path / f"{file}.jsonl").open("a") as out:
            out.write(json.dumps(row) + "\n")

    def rows(self, file: Literal["metrics", "gate"]) -> Iterator[dict[str, Any]]:
        """The rows of ``<file>.jsonl``; a last line that a kill cut short is left out."""
        path = self.path / f"{file}.jsonl"
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return

    def rewind(self, global_step: int) -> None:
        """Forget what was logged after ``global_step``: a resumed run logs it again."""
        for file in ("metrics", "gate"):
            kept = [row for row in self.rows(file) if row["global_step"] <= global_step]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomically(self.path / f"{file}.jsonl", text.encode())

    def write_csv(self) -> None:
        """Write ``metrics.csv`` from ``metrics.jsonl``: one row per logged step, one column per metric."""
        rows = list(self.rows("metrics"))
        columns = list(dict.fromkeys(name for row in rows for name in row))
        temporary = self.path / "metrics.csv.part"
        with temporary.open("w", newline="") as out:
            writer = csv.DictWriter(out, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path / "metrics.csv")

    def evaluations(self, stage: str | None = None) -> list[Path]:
        """Files of predictions in the order of training, of one stage or of all."""
        names = [stage] if stage else [s.name for s in self.recipe.stages]
        return [file for name in names for file in sorted((self.path / "evaluations").glob(f"{name}-*.npz"))]


def check_free(path: Path) -> None:
    """Raises RunError where a new run cannot begin because something is there."""
    unfinished = {"run.json", "run.json.part", "recipe.yaml.part"}  # what a kill in Run.create leaves
    if path.exists() and (not path.is_dir() or any(file.name not in unfinished for file in path.iterdir())):
        raise RunError(
            f"{path}: expected a new or empty folder, found files: choose another, or isthmus train --resume {path}"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the new content is there."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain containers atomically."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as out:
        torch.save(content, out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`write_checkpoint` wrote; nothing but tensors and plain containers is admitted."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"{path}: expected a checkpoint of tensors, found {type(error).__name__}: {error}") from None
    return content


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed ``.npz`` atomically."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as out:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an ``.npz`` without ever unpickling."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: expected arrays (.npz), found {error}") from None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import platform

    import scipy

    import isthmus

    return {
        "isthmus": isthmus.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def is_main_process() -> bool:
    """Whether this process is the one that writes, by the variables that launchers of several processes set."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
