"""Time two sides turn by turn in one process, and measure the peak memory of each in a fresh one.

A benchmark module has ``SIDES`` (name to a function that makes the thing to time) and calls :func:`compare`. The
ratio is that of the minima: both sides see the same machine, and whatever else runs on it only adds time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
Step = Callable[[], object]

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def compare(
    sides: Mapping[str, Callable[[], Step]],
    script: str,
    name: str,
    ours: str,
    reference: str,
    *,
    rounds: int,
    note: str = "",
) -> Row:
    """One row: seconds and MiB of both sides, and how many times faster ours is."""
    torch.set_num_threads(THREADS)
    steps = sides[ours](), sides[reference]()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for step, taken in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    fastest = [min(taken[1:]) for taken in seconds]  # the first round compiles and allocates
    return {
        "name": name,
        "ours_s": fastest[0],
        "reference_s": fastest[1],
        "ratio": fastest[1] / fastest[0],
        "ours_mib": peak_mib(script, ours),
        "reference_mib": peak_mib(script, reference),
        "note": f"{note}minima of {rounds} rounds; threads: {THREADS}; memory: peak of one call, fresh process",
    }


def peak_mib(script: str, side: str) -> float:
    """Peak resident set of one call above what was resident before, in MiB, in a process started for it."""
    command = [sys.executable, str(Path(script).resolve()), "--peak", side]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure_peak(make: Callable[[], Step]) -> float:
    """What the fresh process measures."""
    torch.set_num_threads(THREADS)
    step = make()
    before = _resident_mib("VmRSS")
    step()
    return _resident_mib("VmHWM") - before


def _resident_mib(field: str) -> float:
    # Not getrusage: its peak survives exec, so a fresh process would start with that of its parent.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; memory can be measured on Linux only")
