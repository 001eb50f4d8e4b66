import copy

import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.data.randomness import Progress
from isthmus.methods.single_task import SingleTask


def steps() -> list[tuple[str, ...]]:
    """Labels of a few batches; some tasks are missing in some of them."""
    return [("S", "D", "N", "SD"), ("S", "S", "S", ""), ("DN", "N", "", "S"), ("SDN", "SDN", "D", "D")]


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD])
def test_networks_side_by_side_are_runs_of_their_own(optimiser: type[torch.optim.Optimizer]) -> None:
    """Weights and running statistics after some steps, with BatchNorm in training mode."""
    together = METHODS["single-task"]()
    together.train()
    alone = {name: copy.deepcopy(network) for name, network in together.networks.items()}
    joint = optimiser(together.parameters(), lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]
    for step, kept in enumerate(steps()):
        total(together({"source": batch(kept, seed=step)}, Progress(0, 0, step, 4))).backward()
        joint.step()
        joint.zero_grad()
    for name, network in alone.items():
        own = optimiser(network.parameters(), lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]
        for step, kept in enumerate(steps()):
            data = batch(kept, seed=step)
            rows = [n for n in range(4) if data.present[name][n]]
            if not rows:
                continue
            output = network(data.inputs["image"][rows]).outputs[name]
            loss = together.tasks[name].loss(output, data.labels[name][rows], data.valid[name][rows]).sum()
            (loss / len(rows)).backward()
            own.step()
            own.zero_grad()
        trained = together.networks[name].state_dict()
        for key, value in network.state_dict().items():
            torch.testing.assert_close(trained[key], value, rtol=1e-6, atol=1e-7, msg=key)


def test_each_network_has_one_output_and_sees_the_images_of_its_task_only() -> None:
    model: SingleTask = METHODS["single-task"]()
    assert {name: list(network.channels) for name, network in model.networks.items()} == {n: [n] for n in NAMES}
    seen: dict[str, int] = {}
    for name, network in model.networks.items():
        network.register_forward_pre_hook(lambda module, given, name=name: seen.update({name: len(given[0])}))
    losses = model({"source": batch(("S", "SD", "", "D"))}, PROGRESS)
    assert seen == {"segmentation": 2, "depth": 2}
    assert losses["segmentation/source"].weight == 2 and losses["normals/source"].weight == 0
    total(losses).backward()
    assert not [name for name in gradients(model) if name.startswith("networks.normals")]
