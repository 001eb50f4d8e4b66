"""How many images carry which labels, and who reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isthmus.data.clouds import PARTS
from isthmus.data.image_store import ImageStore
from isthmus.evaluation.dense.preview import title
from isthmus.evaluation.page import LISTED, Section
from isthmus.training.dense.problem import DenseProblem


def labels_section(problem: DenseProblem, setting: str) -> Section:
    """Labels of each domain by part and task: how many are read, of how many there are.

    The training parts are learnt from, the source's validation part chooses checkpoints, the test part that counts is
    measured on; the other parts of two domains are read by nothing.
    """
    source, target = problem.source, problem.target
    measured = list(problem.tested_tasks)
    if target is None:
        domains = [_domain("", source, problem.present, list(problem.tasks), ("train", "val"), measured)]
    else:
        domains = [
            _domain("Source", source, problem.present, list(problem.tasks), ("train", "val"), []),
            _domain("Target", target, problem.target_present, list(problem.tasks), ("train",), measured),
        ]
    values = {
        "setting": setting,
        "tasks": [title(name) for name in problem.tasks],
        "main": None if problem.recipe.main is None else title(problem.recipe.main).lower(),
        "oracle": problem.recipe.uses_target_labels,
        "domains": domains,
    }
    return Section("labels", "Images and labels", values)


def _domain(
    name: str,
    store: ImageStore,
    allowed: Mapping[str, np.ndarray],
    tasks: Sequence[str],
    read_parts: Sequence[str],
    measured: Sequence[str],
) -> dict[str, Any]:
    columns = list(store.tasks)
    nothing = np.zeros(len(store), dtype=bool)
    there = np.stack([store.present[:, columns.index(t)] if t in columns else nothing for t in tasks], axis=1)
    readable = np.stack([allowed.get(task, nothing) for task in tasks], axis=1)
    rows = []
    for part in PARTS:
        members = store.indices(part)
        if part in read_parts:
            read = readable[members]
        else:
            read = there[members] & np.array([part == "test" and task in measured for task in tasks])
        rows.append(
            {
                "part": part,
                "images": len(members),
                "groups": len({store.groups[row] for row in members if store.groups[row]}),
                "counts": list(zip(read.sum(axis=0).tolist(), there[members].sum(axis=0).tolist())),
            }
        )
    together = Counter(
        " + ".join(title(task).lower() for task, carried in zip(tasks, line) if carried) or "none"
        for line in readable[store.indices("train")].tolist()
    )
    return {
        "name": name,
        "rows": rows,
        "together": together.most_common(LISTED),
        "kinds": len(together),
        "skipped": store.skipped[:LISTED],
        "skipped_count": len(store.skipped),
    }
