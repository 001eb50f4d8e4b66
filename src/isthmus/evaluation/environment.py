"""What Isthmus finds on this machine: versions, devices, optional parts and folders, each with advice if it is amiss.

Nothing is computed and nothing is downloaded. What this module imports at its top is little, because it has to work
where the rest cannot be imported: that is one of the checks, and those that need the rest come after it.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from isthmus import __version__
from isthmus.data.data_directory import DATA_VARIABLE

State = Literal["ok", "missing", "problem"]

PACKAGE = "isthmus"

OPTIONAL = {
    "onnx": "isthmus export to ONNX",
    "tensorboard": "engine.loggers=[tensorboard]",
    "wandb": "engine.loggers=[wandb]",
}
"""What each optional part of the installation is for."""

GIB = 2**30
LITTLE_ROOM = GIB
"""Free space below which preparing a data set is likely to fail, bytes."""


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    ``state`` is "ok", "missing" (something optional is not there) or "problem" (something will fail); ``advice`` is
    empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def report_environment() -> list[Check]:
    """All checks, in the order in which a person wants to read them; takes seconds, for the imports.

    If Isthmus cannot be imported, the checks end with the one that says so.
    """
    checks = [
        _python(),
        Check(PACKAGE, "ok", __version__),
        *_required(),
        *_optional(),
        _torchvision(),
        _imports("isthmus.training.engine"),
    ]
    if checks[-1].state == "ok":
        checks += [_cpu(), *_cuda(), _ray_casting(), _data(), _cache()]
    return checks


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("python", "ok", found)


def _required() -> Iterator[Check]:
    """The packages that Isthmus needs, held against the versions it asks for."""
    for requirement in _requirements(None):
        yield _package(requirement, f"pip install '{_without_marker(requirement)}'", absent="problem")


def _optional() -> Iterator[Check]:
    """The optional parts: one check each, ok if all of its packages are there."""
    for extra, purpose in OPTIONAL.items():
        install = f"for {purpose}: pip install '{PACKAGE}[{extra}]'"
        checks = [_package(requirement, install, absent="missing") for requirement in _requirements(extra)]
        if not checks:
            # Isthmus is imported from a folder, not installed: nobody says what the part consists of.
            found = find_spec(extra) is not None
            yield Check(
                f"{extra} (optional)", "ok" if found else "missing", "found" if found else "not installed", install
            )
            continue
        worst = max(checks, key=lambda check: ("ok", "missing", "problem").index(check.state))
        found_text = ", ".join(f"{check.name} {check.found}" for check in checks)
        yield Check(f"{extra} (optional)", worst.state, found_text, worst.advice)


def _requirements(extra: str | None) -> list[Requirement]:
    """What the installed package declares to need, in general or for one of its extras, on this machine."""
    try:
        declared = [Requirement(line) for line in requires(PACKAGE) or []]
    except PackageNotFoundError:
        return []
    if extra is None:
        return [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in declared
        if each.marker is not None
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    ]


def _package(requirement: Requirement, advice: str, *, absent: State) -> Check:
    name = requirement.name
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, absent, "not installed", advice)
    try:
        fits = requirement.specifier.contains(Version(found), prereleases=True)
    except InvalidVersion:
        fits = True
    if not fits:
        return Check(name, "problem", f"{found}, expected {requirement.specifier}", advice)
    return Check(name, "ok", found)


def _without_marker(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _torchvision() -> Check:
    """Isthmus does not use it, but torchmetrics imports it if it is there, and one built for another torch raises."""
    name = "torchvision (not needed)"
    if find_spec("torchvision") is None:
        return Check(name, "ok", "not installed")
    try:
        found, ours = version("torchvision"), version("torch")
        needed = [Requirement(line) for line in requires("torchvision") or []]
    except PackageNotFoundError as error:
        return Check(name, "problem", f"found without its version ({error})", "pip uninstall torchvision")
    wrong = ""
    for requirement in needed:
        if requirement.name == "torch" and not requirement.specifier.contains(Version(ours).public, prereleases=True):
            wrong = f"needs torch {requirement.specifier}"
    # The wheels of torch for CPU carry this mark; beside one, a torchvision with CUDA cannot load its operators.
    if (Version(found).local == "cpu") != (Version(ours).local == "cpu"):
        wrong = "one is built for CPU and the other is not"
    if wrong:
        return Check(
            name,
            "problem",
            f"{found} beside torch {ours}: {wrong}",
            "it can break torchmetrics: pip uninstall torchvision, or install both from one index",
        )
    return Check(name, "ok", found)


def _imports(module: str) -> Check:
    """Whether the code itself can be imported, with everything that it needs."""
    name = "import"
    try:
        import_module(module)
    except Exception as error:
        # A library that does not fit raises anything, RuntimeError and OSError as often as ImportError.
        lines = str(error).splitlines() or [""]
        found = f"{module}: {type(error).__name__}: {lines[0]}"
        return Check(name, "problem", found, "mend the problems above, or install into a fresh environment")
    return Check(name, "ok", "everything can be imported")


def _cpu() -> Check:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} usable, {threads} threads of torch (OMP_NUM_THREADS {asked or 'not set'})"
    if threads > usable:
        return Check("CPUs", "problem", found, f"more threads than CPUs are slow: set OMP_NUM_THREADS={usable} or less")
    return Check("CPUs", "ok", found)


def _cuda() -> Iterator[Check]:
    import torch

    built_for = torch.version.cuda
    if not torch.cuda.is_available():
        if built_for is None and shutil.which("nvidia-smi") is not None:
            yield Check(
                "GPU", "problem", "nvidia-smi is there, but this torch is built for CPU", "install torch with CUDA"
            )
        elif built_for is not None:
            advice = "training runs on the CPU; if there should be a GPU, look at nvidia-smi and the driver's version"
            yield Check("GPU", "missing", f"torch is built for CUDA {built_for}, but finds no device", advice)
        else:
            yield Check("GPU", "missing", "none, torch is built for CPU", "not needed for the demo and small runs")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = "bf16-mixed is fast" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        found = f"{device.name}, {device.total_memory / GIB:.0f} GiB, CUDA {built_for}, {bf16}"
        yield Check(f"GPU {index}", "ok", found)


def _ray_casting() -> Check:
    from isthmus.data.simulators import depth_sensor

    name = "ray casting"
    if depth_sensor.EmbreeScene is not None:
        return Check(name, "ok", "Embree")
    advice = "simulated scans take a hundred times as long: pip install embreex (wheels for x86_64 only)"
    return Check(name, "missing", "NumPy", advice)


def _data() -> Check:
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        advice = "only needed for kinds 'objects' and 'scannet-views': the folder with objects/ and dense/ in it"
        return Check(DATA_VARIABLE, "missing", "not set", advice)
    if not (Path(value) / "objects").is_dir():
        found = "no folder objects/ in it" if Path(value).is_dir() else "no such folder"
        return Check(DATA_VARIABLE, "problem", f"{value}: {found}", "set it to the folder that has objects/ in it")
    return Check(DATA_VARIABLE, "ok", value)


def _cache() -> Check:
    from isthmus.training.cache import cache_folder

    name = "ISTHMUS_CACHE"
    folder = cache_folder().absolute()
    shown = f"{folder}{'' if os.environ.get(name) else ' (not set)'}"
    advice = f"set {name} to a folder on a disk with room"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        return Check(name, "problem", f"{shown}: {existing} is a file", advice)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "problem", f"{shown}: {existing} is not writable", advice)
    free = shutil.disk_usage(existing).free
    used = _size(folder) if existing == folder else 0
    stored = f"{used / GIB:.1f} GiB" if existing == folder else "not there yet"
    found = f"{shown}: {stored}, {free / GIB:.1f} GiB free"
    if free < LITTLE_ROOM:
        return Check(name, "problem", found, advice)
    return Check(name, "ok", found)


def _size(folder: Path) -> int:
    """Bytes in the files of a folder; what another process removes meanwhile does not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(parent, file)).st_size
            except FileNotFoundError:
                continue
    return total
