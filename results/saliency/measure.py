"""Which saliency should be the default? Measured on simulated domains only, before any real target label is read.

    python results/saliency/measure.py --out results/saliency

Trains the DefRec host (both domains, no gate) on simulated objects, and at three points of training measures, per
source sample within a step, the cosine of its self-supervised gradient with the oracle gradient and its skewness by
the ``coupled`` and the ``eval`` gradient. Writes ``measured.json`` and ``README.md``. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from isthmus.evaluation.conflict import observe, within_steps
from isthmus.training.build import build_method, build_streams, open_domains
from scipy import stats

from isthmus.data.randomness import Progress
from isthmus.methods.self_supervised import SelfSupervised
from isthmus.training.optimisation import build_optimizer, learning_rate, set_learning_rate, training_mode
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse

DIRECTIONS = (("cad", "scan"), ("cad", "web"), ("web", "scan"))
SEEDS = (0, 1, 2)
STEPS = 300
PROBED = (60, 150, 300)
BATCHES_PER_PROBE = 6
ALONG = 15


def measure(source: str, target: str, seed: int) -> dict[str, object]:
    """One training run and its probes."""
    values = named("sim/defrec").model_dump(mode="json")
    changes = {"source.data.domain": source, "target.data.domain": target, "seed": seed, "batch_size": 32,
               "stages.0.steps": STEPS}  # fmt: skip
    recipe = parse(override(values, [(field, str(value)) for field, value in changes.items()]))
    # The analysis gate makes the streams carry target labels; the method itself trains without any gate.
    labelled = parse(override(recipe.model_dump(mode="json"), [("method.gate", "cosine")]))
    domains, stage = open_domains(recipe), recipe.stages[0]
    method = build_method(recipe)
    assert isinstance(method, SelfSupervised)
    streams = build_streams(labelled, domains, method)
    optimizer = build_optimizer(method, stage)
    training_mode(method, stage)
    probes: dict[int, list] = {step: [] for step in PROBED}
    along = []
    for step in range(STEPS):
        progress = Progress(seed, 0, step, STEPS)
        batches = {name: stream.batch(progress, step) for name, stream in streams.items()}
        torch.manual_seed(progress.torch_seed(0))
        set_learning_rate(optimizer, learning_rate(stage, step))
        losses = method(batches, progress)
        sum(loss.coefficient * loss.sum / loss.weight.clamp(min=1) for loss in losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % ALONG == 0:
            along.append(observe(method, batches, progress))
        if step + 1 in PROBED:
            for extra in range(BATCHES_PER_PROBE):
                position = 10_000 + extra
                probing = Progress(seed, 1, position, 20_000)
                drawn = {name: stream.batch(probing, position) for name, stream in streams.items()}
                probes[step + 1].append(observe(method, drawn, probing))
    result: dict[str, object] = {"source": source, "target": target, "seed": seed}
    for kind in ("coupled", "separate"):
        per_probe = {
            str(step): vars(within_steps([getattr(s, kind) for s in seen], [s.cosine for s in seen]))
            for step, seen in probes.items()
        }
        everything = [s for seen in probes.values() for s in seen]
        per_probe["all"] = vars(within_steps([getattr(s, kind) for s in everything], [s.cosine for s in everything]))
        over_time = stats.spearmanr([getattr(s, kind).mean() for s in along], [s.step_cosine for s in along])
        result[kind] = {"within_step": per_probe, "over_steps_rho": float(over_time.statistic)}
    return result


def summary(results: list[dict]) -> str:
    """The page that goes beside the numbers."""
    lines = [
        "# Which saliency is the default",
        "",
        "Simulated objects, DefRec host without gate, PointNet of width 0.5 without T-nets, 256 points, "
        f"{STEPS} steps; {BATCHES_PER_PROBE} batches of 32 source samples at steps {', '.join(map(str, PROBED))}.",
        "`within a step`: mean Spearman correlation, over batches, between a sample's skewness and the cosine of its "
        "self-supervised gradient with the oracle gradient (per-sample gradients, BatchNorm in eval mode), with the "
        "p-value of a null that permutes samples within each batch. The paper's claim needs a clearly *negative* one. "
        "`over steps`: the correlation of Figure 1, between steps, which time confounds.",
        "",
        "| direction | seed | coupled, within a step | p | eval, within a step | p | coupled, over steps "
        "| eval, over steps |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in results:
        c, s = each["coupled"], each["separate"]
        lines.append(
            f"| {each['source']}→{each['target']} | {each['seed']} | {c['within_step']['all']['rho']:+.3f} "
            f"| {c['within_step']['all']['p_value']:.4f} | {s['within_step']['all']['rho']:+.3f} "
            f"| {s['within_step']['all']['p_value']:.4f} | {c['over_steps_rho']:+.2f} | {s['over_steps_rho']:+.2f} |"
        )
    rhos = {
        name: np.array([each[kind]["within_step"]["all"]["rho"] for each in results])
        for name, kind in (("coupled", "coupled"), ("eval", "separate"))
    }
    rhos["coupled - eval"] = rhos["coupled"] - rhos["eval"]
    lines += ["", "| mean over runs | mean | standard error | n |", "| --- | --- | --- | --- |"]
    for name, values in rhos.items():
        error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        lines.append(f"| {name} | {values.mean():+.3f} | {error:.3f} | {len(values)} |")
    lines += ["", "Regenerate: `python results/saliency/measure.py --out results/saliency`", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    file = out / "measured.json"
    results = json.loads(file.read_text()) if file.exists() else []
    done = {(each["source"], each["target"], each["seed"]) for each in results}
    for source, target in DIRECTIONS:
        for seed in SEEDS:
            if (source, target, seed) not in done:
                results.append(measure(source, target, seed))
                file.write_text(json.dumps(results, indent=1) + "\n")
    (out / "README.md").write_text(summary(results))


if __name__ == "__main__":
    main()
