"""Every Python example of the README and the architecture page runs, and so does the README's diff."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_examples_run_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "example"}
    assert blocks(page, "python")
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), namespace)
    assert namespace["run"].finished


def test_the_diff_turns_an_ordinary_loop_into_a_gated_one() -> None:
    (diff,) = blocks("README.md", "diff")
    sizes: list[int] = []

    class Pretext(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            sizes.append(len(points))
            return (self.layer(points) - points).square().mean(dim=(1, 2))

    def run(kept: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
        pretext = Pretext()
        parameters = [*model.parameters(), *pretext.parameters()]
        names = {
            "model": model, "pretext": pretext, "cross_entropy": nn.functional.cross_entropy,
            "loader": [(torch.randn(10, 16, 3), torch.arange(10) % 5) for _ in range(2)],
            "optimizer": torch.optim.SGD(parameters, lr=0.1),
        }  # fmt: skip
        before = parameters[0].detach().clone()
        exec("\n".join(line[1:] for line in diff.splitlines() if line[0] in kept), names)
        assert not torch.equal(before, parameters[0])

    run(" -")
    assert sizes == [10, 10]
    run(" +")
    assert sizes[2:] == [7, 7]


def test_every_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from isthmus.cli.main import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    used = set(re.findall(r"^isthmus (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert used >= {"train", "evaluate", "predict", "report", "compare", "benchmark", "export", "recipes"}
    assert used <= set(known)


def test_every_page_that_is_linked_to_is_there() -> None:
    for page in ("README.md", "docs/architecture.md", "results/README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
