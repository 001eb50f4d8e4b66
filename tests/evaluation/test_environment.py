import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from isthmus import __version__
from isthmus.evaluation import environment
from isthmus.evaluation.environment import Check, report_environment


def the(name: str) -> Check:
    (found,) = [check for check in report_environment() if check.name == name]
    return found


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions to pretend; None is a package that is not installed."""
    pretended: dict[str, str | None] = {}
    real = environment.version

    def version(name: str) -> str:
        found = pretended[name] if name in pretended else real(name)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(environment, "version", version)
    return pretended


def pretend_torchvision(monkeypatch: pytest.MonkeyPatch, needs: str) -> None:
    find_spec, requires = environment.find_spec, environment.requires
    monkeypatch.setattr(environment, "find_spec", lambda n: object() if n == "torchvision" else find_spec(n))
    monkeypatch.setattr(environment, "requires", lambda n: [needs] if n == "torchvision" else requires(n))


def test_this_machine_is_described_without_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "objects").mkdir()
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    checks = {check.name: check for check in report_environment()}
    assert {name: check for name, check in checks.items() if check.state == "problem"} == {}
    assert checks["python"].found.startswith(sys.version.split()[0])
    assert checks["isthmus"].found == __version__
    assert torch.__version__.startswith(checks["torch"].found.split("+")[0])
    assert checks["ISTHMUS_DATA"].found == str(tmp_path)
    assert {"numpy", "lightning-fabric", "torchmetrics", "CPUs", "ISTHMUS_CACHE"} <= checks.keys()
    assert all(check.advice for check in checks.values() if check.state != "ok")


def test_names_come_once() -> None:
    names = [check.name for check in report_environment()]
    assert len(set(names)) == len(names)


def test_a_version_out_of_range_is_a_problem(versions: dict[str, str | None]) -> None:
    versions["torch"] = "2.3.1+cpu"
    found = the("torch")
    assert found.state == "problem"
    assert "2.3.1+cpu, expected" in found.found
    assert ">=2.11" in found.advice


def test_a_needed_package_that_is_absent_is_a_problem(versions: dict[str, str | None]) -> None:
    versions["h5py"] = None
    assert the("h5py") == Check("h5py", "problem", "not installed", "pip install 'h5py>=3.10'")


def test_an_absent_option_is_missing_and_says_what_for(versions: dict[str, str | None]) -> None:
    versions |= {"onnx": "1.99", "onnxruntime": None, "onnxscript": "0.9"}
    found = the("onnx (optional)")
    assert found.state == "missing"
    assert "onnx 1.99, onnxruntime not installed" in found.found
    assert found.advice == "for isthmus export to ONNX: pip install 'isthmus[onnx]'"
    versions["onnxruntime"] = "1.0"
    assert the("onnx (optional)").state == "problem"


def test_only_the_packages_of_the_extra_count_for_it() -> None:
    assert {each.name for each in environment._requirements("onnx")} == {"onnx", "onnxruntime", "onnxscript"}
    assert {each.name for each in environment._requirements(None)} & {"onnx", "pytest"} == set()


def test_isthmus_that_is_not_installed_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(environment, "requires", requires)
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    assert the("onnx (optional)").state == "missing"


@pytest.mark.parametrize(
    ("torchvision", "ours", "needs", "state", "text"),
    [
        ("0.28.0", "2.13.0+cpu", "torch==2.13.0", "problem", "one is built for CPU"),
        ("0.28.0+cpu", "2.13.0", "torch==2.13.0", "problem", "one is built for CPU"),
        ("0.27.0+cpu", "2.13.0+cpu", "torch==2.12.0", "problem", "needs torch ==2.12.0"),
        ("0.28.0+cpu", "2.13.0+cpu", "torch==2.13.0", "ok", "0.28.0+cpu"),
        ("0.28.0", "2.13.0", "torch==2.13.0", "ok", "0.28.0"),
    ],
)
def test_a_torchvision_that_does_not_fit_is_a_problem(
    torchvision: str,
    ours: str,
    needs: str,
    state: str,
    text: str,
    versions: dict[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_torchvision(monkeypatch, needs)
    versions |= {"torchvision": torchvision, "torch": ours}
    found = the("torchvision (not needed)")
    assert found.state == state
    assert text in found.found
    assert ("pip uninstall torchvision" in found.advice) == (state == "problem")


def test_code_that_cannot_be_imported_ends_the_checks_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(environment, "import_module", import_module)
    found = report_environment()[-1]
    assert (found.name, found.state) == ("import", "problem")
    assert found.found == "isthmus.training.engine: RuntimeError: operator torchvision::nms does not exist"


def test_the_module_itself_imports_little_so_that_it_works_where_the_rest_does_not() -> None:
    code = "import sys, isthmus.evaluation.environment as e; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_more_threads_than_processors_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    found = the("CPUs")
    assert found.state == "problem"
    assert "OMP_NUM_THREADS 4096" in found.found


def test_a_gpu_beside_a_torch_for_cpu_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "nvidia-smi")
    assert the("GPU").state == "problem"
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert the("GPU").state == "missing"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = the("GPU")
    assert (found.state, found.found) == ("missing", "torch is built for CUDA 13.0, but finds no device")


def test_gpus_are_listed_with_memory_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chosen:
        index = -1

        def __init__(self, index: int) -> None:
            self.here = index

        def __enter__(self) -> None:
            Chosen.index = self.here

        def __exit__(self, *error: object) -> None:
            Chosen.index = -1

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Chosen)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    properties = [SimpleNamespace(name="Big", total_memory=80 * 2**30), SimpleNamespace(name="Old", total_memory=2**33)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: Chosen.index == 0)
    assert the("GPU 0").found == "Big, 80 GiB, CUDA 13.0, bf16-mixed is fast"
    assert the("GPU 1").found == "Old, 8 GiB, CUDA 13.0, no bf16"


def test_slow_ray_casting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.data.simulators.depth_sensor.EmbreeScene", None)
    found = the("ray casting")
    assert (found.state, found.found) == ("missing", "NumPy")
    assert "embreex" in found.advice


def test_the_data_folder_may_be_unset_but_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    assert the("ISTHMUS_DATA").state == "missing"
    for folder, text in ((tmp_path, "no folder objects/ in it"), (tmp_path / "gone", "no such folder")):
        monkeypatch.setenv("ISTHMUS_DATA", str(folder))
        found = the("ISTHMUS_DATA")
        assert found.state == "problem"
        assert text in found.found


def test_the_cache_is_measured_and_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "new" / "cache"))
    assert the("ISTHMUS_CACHE").state == "ok"
    assert "not there yet" in the("ISTHMUS_CACHE").found
    assert not (tmp_path / "new").exists()
    (tmp_path / "new" / "cache" / "a").mkdir(parents=True)
    with (tmp_path / "new" / "cache" / "a" / "points.npy").open("wb") as file:
        file.truncate(3 * 2**30)
    assert "cache: 3.0 GiB" in the("ISTHMUS_CACHE").found


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "file" / "cache"))
    assert the("ISTHMUS_CACHE").state == "problem"
    assert "is a file" in the("ISTHMUS_CACHE").found
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    monkeypatch.setattr(environment.os, "access", lambda path, mode: False)
    assert "is not writable" in the("ISTHMUS_CACHE").found
    monkeypatch.undo()
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert the("ISTHMUS_CACHE").state == "problem"


def test_requirements_are_shown_as_they_are_installed() -> None:
    marked = Requirement("embreex>=2.17; platform_machine == 'x86_64'")
    assert environment._without_marker(marked) == "embreex>=2.17"
