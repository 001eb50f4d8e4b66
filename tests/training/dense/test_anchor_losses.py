"""TADA's Eq. 4, 5 and 6: what a step of a recipe adds up, against sums over single images in plain NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anchor_runs import copied, small
from torch import Tensor

from dense_testing import settled, total
from isthmus.data.batch import Batch
from isthmus.data.image_store import ImageStore
from isthmus.data.randomness import Progress
from isthmus.methods.multi_task import MultiTask
from isthmus.training.dense.problem import DenseProblem

STEP = Progress(0, 0, 1, 10)
LAMBDA = 0.3
EQUATIONS = {
    "baseline": ["m/source"],
    "mtl-source": ["m/source", "a/source"],
    "mtl-target": ["m/source", "a/target"],
    "mtl-both": ["m/source", "a/source", "a/target"],
}


def made(row: str, **changes: object) -> tuple[MultiTask, dict[str, Batch]]:
    weights = {} if row == "baseline" else {"task_weights": {"anchor": LAMBDA}}
    problem = DenseProblem(small(f"{row}/rooms", (2,), **weights, **changes))
    method = problem.build_method()
    assert isinstance(method, MultiTask)
    torch.manual_seed(1)
    return method, {domain: stream.batch(STEP, 1) for domain, stream in problem.streams(method).items()}


def main_loss(output: Tensor, label: Tensor, valid: Tensor) -> float:
    """One minus the cosine, pixel by pixel, of one image."""
    found = []
    for row, column in np.argwhere(valid.numpy()):
        one, other = output[:, row, column].double().numpy(), label[:, row, column].double().numpy()
        found.append(1 - one @ other / max(np.linalg.norm(one), 1e-4) / np.linalg.norm(other))
    return float(np.mean(found))


def anchor_loss(output: Tensor, label: Tensor, valid: Tensor) -> float:
    """Cross-entropy, pixel by pixel, of one image."""
    found = []
    for row, column in np.argwhere(valid.numpy()):
        logits = output[:, row, column].double().numpy()
        found.append(np.log(np.exp(logits).sum()) - logits[int(label[row, column])])
    return float(np.mean(found))


def slow(outputs: dict[str, dict[str, Tensor]], batches: dict[str, Batch], terms: list[str]) -> float:
    """L_Sm + lambda L_Sa + lambda L_Ta, or those of them that the row has; each a mean over its domain's images."""
    result = 0.0
    for term in terms:
        kind, domain = term.split("/")
        task, loss, weight = ("normals", main_loss, 1.0) if kind == "m" else ("segmentation", anchor_loss, LAMBDA)
        batch, losses = batches[domain], []
        for index in range(len(batch)):
            if batch.present[task][index]:
                output = outputs[domain][task][index]
                losses.append(loss(output, batch.labels[task][index], batch.valid[task][index]))
        labelled = sum(any(bool(batch.present[t][i]) for t in batch.present) for i in range(len(batch)))
        result += weight * sum(losses) / labelled
    return result


@pytest.mark.parametrize("row", EQUATIONS)
def test_a_step_is_the_sum_of_its_equation(row: str) -> None:
    """With BatchNorm's running statistics, image by image through the network, so neither domain sees the other."""
    method, batches = made(row)
    assert set(batches) == ({"source", "target"} if any("target" in term for term in EQUATIONS[row]) else {"source"})
    settled(method)
    outputs: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for domain, batch in batches.items():
            single = [method.network(image[None]).outputs for image in batch.inputs["image"]]
            outputs[domain] = {task: torch.cat([each[task] for each in single]) for task in method.tasks}
        found = total(method(batches, STEP))
    assert float(found) == pytest.approx(slow(outputs, batches, EQUATIONS[row]), rel=1e-5)


@pytest.mark.parametrize("joint", [True, False])
def test_both_domains_go_through_the_network_together_or_one_after_the_other(joint: bool) -> None:
    """In training mode: BatchNorm normalises by both domains, or by each alone."""
    method, batches = made("mtl-both", method__joint_batches=joint)
    assert method.joint_batches == joint
    method.train()
    images = [batches[domain].inputs["image"] for domain in ("source", "target")]
    with torch.no_grad():
        if joint:
            together = method.network(torch.cat(images)).outputs
            parts = {task: output.split([len(each) for each in images]) for task, output in together.items()}
            outputs = [{task: part[index] for task, part in parts.items()} for index in (0, 1)]
        else:
            outputs = [method.network(each).outputs for each in images]
        found = total(method(batches, STEP))
    by_domain = dict(zip(("source", "target"), outputs))
    assert float(found) == pytest.approx(slow(by_domain, batches, EQUATIONS["mtl-both"]), rel=1e-5)


def test_an_image_without_an_anchor_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the source it still has its main label, and L_Sa is over all images; in the target it is not there at all.

    What stands in place of the labels is not read.
    """
    recipe = small("mtl-both/rooms", (2,), task_weights={"anchor": LAMBDA})
    target = copied(recipe, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    (source,) = (folder for folder in (tmp_path / "cache").iterdir() if folder != target)
    for folder, without in ((source, slice(0, 12, 2)), (target, slice(1, 12, 2))):
        store = ImageStore(folder)
        present = np.load(folder / "present.npy", mmap_mode="r+")
        present[store.indices("train")[without], list(store.tasks).index("segmentation")] = False
        present.flush()
    method, batches = made("mtl-both", batch_size=6)
    counts = {domain: int(batch.present["segmentation"].sum()) for domain, batch in batches.items()}
    assert all(0 < count < 6 for count in counts.values()) and batches["source"].present["normals"].all()
    settled(method)
    for batch in batches.values():
        batch.labels["segmentation"][~batch.present["segmentation"]] = 999
    losses = method(batches, STEP)
    with torch.no_grad():
        outputs = {domain: method.network(batch.inputs["image"]).outputs for domain, batch in batches.items()}
    assert float(total(losses).detach()) == pytest.approx(slow(outputs, batches, EQUATIONS["mtl-both"]), rel=1e-5)
    assert int(losses["segmentation/source"].weight) == 6
    assert int(losses["segmentation/target"].weight) == counts["target"]


def test_a_batch_without_any_anchor_label_has_no_such_loss_and_no_gradient_for_its_head() -> None:
    method, batches = made("mtl-both")
    for batch in batches.values():
        batch.present["segmentation"][:] = False
        batch.labels["segmentation"][:] = 999
    losses = method(batches, STEP)
    assert float(losses["segmentation/target"].taking_part) == 0
    total(losses).backward()
    assert not any(p.grad is not None and p.grad.any() for p in method.network.heads["segmentation"].parameters())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in method.parameters())
