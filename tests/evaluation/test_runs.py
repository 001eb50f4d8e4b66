from pathlib import Path

from isthmus.evaluation.runs import run_folders


def test_runs_are_found_at_any_depth_but_not_within_another_run(tmp_path: Path) -> None:
    for name in ("b/seed0", "a", "a/analysis/measured/replay", "b/seed1"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "recipe.yaml").touch()
    (tmp_path / "c").mkdir()
    assert run_folders([tmp_path]) == [tmp_path / "a", tmp_path / "b/seed0", tmp_path / "b/seed1"]
    assert run_folders([tmp_path / "b", tmp_path / "a", tmp_path / "c"])[-1] == tmp_path / "a"
    # Asked for by name, it is one.
    assert run_folders([tmp_path / "a/analysis/measured/replay"]) == [tmp_path / "a/analysis/measured/replay"]
