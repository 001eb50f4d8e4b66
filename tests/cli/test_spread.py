"""A benchmark spread over processes by Ray: as from one process, whatever happens to the workers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from isthmus.errors import RunError
from isthmus.evaluation.spread import LOCKS, _alone
from isthmus.training.run import Run, read_checkpoint

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(900)

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
CELLS = [f"tiny/{method}/seed{seed}" for method in ("host", "gated") for seed in (0, 1)]


def start(suite: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "isthmus.cli.main", "benchmark", str(suite), "--out", str(out)]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        [*command, *map(str, options)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    try:
        said, complained = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == status, said + complained
    return said, complained


@pytest.fixture(scope="module")
def suite(tiny_values: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    for name in ("host", "gated"):
        gate = {} if name == "gated" else {"gate": None}
        values = {**tiny_values, "name": f"tiny/{name}", "method": {**tiny_values["method"], **gate}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    content = {
        "name": "tiny", "recipes": [str(folder / "host.yaml"), str(folder / "gated.yaml")], "seeds": [0, 1],
        "set": {"stages.0.steps": 30, "stages.1.steps": 4, "evaluate_every": 10}, "baseline": "host",
    }  # fmt: skip
    (folder / "suite.yaml").write_text(yaml.safe_dump(content))
    return folder / "suite.yaml"


@pytest.fixture(scope="module")
def serial(suite: Path) -> Path:
    end(start(suite, suite.parent / "serial"))
    return suite.parent / "serial"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one machine that lives as long as the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={100 * 2**20}"]
    head = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert head.stdout is not None
    said = []
    for line in head.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            break
    assert head.poll() is None, "".join(said)
    yield f"127.0.0.1:{port}"
    head.terminate()
    head.wait(timeout=60)


def assert_same(out: Path, serial: Path) -> None:
    for table in ("table.md", "table.csv", "table.tex"):
        assert (out / table).read_bytes() == (serial / table).read_bytes()
    for cell in CELLS:
        ours, theirs = Run.open(out / cell), Run.open(serial / cell)
        assert (out / cell / "metrics.csv").read_bytes() == (serial / cell / "metrics.csv").read_bytes()
        for file in sorted((theirs.path / "checkpoints").glob("*.pt")):
            if file.name != "last.pt":  # which holds the time it took
                one = read_checkpoint(ours.path / "checkpoints" / file.name)["weights"]
                other = read_checkpoint(file)["weights"]
                assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_workers_on_this_machine_train_what_one_process_trains(suite: Path, serial: Path) -> None:
    out = suite.parent / "parallel"
    said, _ = end(start(suite, out, "--workers", 2))
    assert "0 runs to go" in said and all(f"{cell}: finished" in said for cell in CELLS)
    assert_same(out, serial)
    times = {file: file.stat().st_mtime_ns for file in out.rglob("last.pt")}
    said, _ = end(start(suite, out, "--workers", 2))
    assert "started" not in said
    assert times == {file: file.stat().st_mtime_ns for file in out.rglob("last.pt")}


def test_a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint(suite: Path, serial: Path, address: str) -> None:
    out = suite.parent / "killed"
    process = start(suite, out, "--workers", 2, "--ray", address)
    checkpoint, said = out / CELLS[0] / "checkpoints" / "last.pt", out / LOCKS / CELLS[0] / "process"
    deadline = time.monotonic() + 400
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed = int(said.read_text().split()[0])
    os.kill(killed, signal.SIGKILL)
    assert not Run.open(out / CELLS[0]).finished
    end(process)
    assert int(said.read_text().split()[0]) != killed
    assert_same(out, serial)


def test_a_run_that_fails_is_named_while_the_others_finish(suite: Path, serial: Path, address: str) -> None:
    out = suite.parent / "failing"
    (out / CELLS[1]).mkdir(parents=True)
    (out / CELLS[1] / "notes.txt").write_text("mine")
    _, complained = end(start(suite, out, "--workers", 2, "--ray", address), status=2)
    assert "1 of 4 runs are missing" in complained and "Traceback" not in complained
    assert f"{CELLS[1]}: " in complained and "expected a new or empty folder" in complained
    assert "The same command goes on" in complained and not (out / "table.md").exists()
    assert all(Run.open(out / cell).finished for cell in CELLS if cell != CELLS[1])
    (out / CELLS[1] / "notes.txt").unlink()
    said, _ = end(start(suite, out, "--workers", 2, "--ray", address))
    assert [cell for cell in CELLS if f"{cell}: started" in said] == [CELLS[1]]
    assert_same(out, serial)


def test_stopped_by_ctrl_c_it_goes_on(suite: Path, serial: Path, address: str) -> None:
    out = suite.parent / "stopped"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    process = start(suite, out, "--workers", 1, "--ray", address)
    deadline = time.monotonic() + 400
    while not (out / CELLS[0] / "checkpoints" / "last.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complained = end(process, status=130)
    assert "To go on: run the same command again" in complained
    assert not all((out / cell / "recipe.yaml").exists() for cell in CELLS)
    end(start(suite, out, "--workers", 1, "--ray", address))
    assert_same(out, serial)


def test_an_address_without_a_cluster_is_one_message(suite: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    _, complained = end(start(suite, suite.parent / "nobody", "--ray", nobody), status=2)
    assert f"--ray {nobody}: expected a running Ray cluster" in complained and "Traceback" not in complained


def test_a_folder_has_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.evaluation.spread._PATIENCE", 0.0)
    locked = rf"expected that no other process.*\(process {os.getpid()} on "
    with _alone(tmp_path, "a/seed0"), _alone(tmp_path, "a/seed1"), pytest.raises(RunError, match=locked):
        _alone(tmp_path, "a/seed0").__enter__()
    with _alone(tmp_path, "a/seed0"):
        pass


def test_without_ray_the_message_says_what_to_install(suite: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; sys.argv[0] = 'isthmus'\nfrom isthmus.cli.main import main; main()"
    command = [sys.executable, "-c", code, "benchmark", str(suite), "--out", str(tmp_path), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "pip install 'isthmus[cluster]'" in done.stderr
