"""What a run of dense predictions is, in words."""

from __future__ import annotations

from isthmus.evaluation.dense.preview import title
from isthmus.training.dense.recipe import AdversarialSpec, AdversarySpec, DenseRecipe
from isthmus.training.recipe import StageSpec

SIMULATED = ("rooms", "streets", "faces")

METHODS = {
    "single-task": "A network of its own for every task",
    "multi-task": "One network for all tasks, trained on the labels there are",
    "semi-supervised": "One network for all tasks, with consistency of unlabelled tasks under cropping",
    "mtpsl": "MTPSL: one network for all tasks, with cross-task consistency in joint pairwise spaces",
    "direct-map": "One network for all tasks, with maps from one task's output to another's label",
    "perceptual-map": "One network for all tasks, with consistency behind learned maps between tasks",
    "contrastive": "One network for all tasks, with joint spaces kept apart by negative pairs",
    "discriminator": "One network for all tasks, with joint spaces kept apart by a discriminator",
    "x-task": "One network for all tasks, with consistency behind maps that were learned first",
}

NETWORKS = {
    "segnet": "SegNet",
    "mtan": "MTAN",
    "resnet-aspp": "dilated ResNet-{layers}",
    "resnet-fpn": "ResNet-{layers} with a pyramid decoder",
}

GAMES = {"reversal": "gradient reversal", "non-saturating": "non-saturating"}


def method_words(recipe: DenseRecipe, tasks: int) -> str:
    """What learns from what; ``tasks`` says how many are learnt."""
    if recipe.method.kind == "custom":
        return f"The method “{recipe.method.name}” (of the user's own making)"
    weighting = recipe.weighting.kind
    balanced = "" if weighting == "uniform" else f"; losses weighted by {weighting}"
    if isinstance(recipe.method, AdversarialSpec):
        taps = [adversary_words(recipe, each) for each in recipe.method.adversaries]
        who = "an adversary" if len(taps) == 1 else "adversaries"
        what = METHODS["multi-task"] if tasks > 1 else "One network"
        return f"{what}, and {who} between the domains at {' and '.join(taps)}{balanced}"
    alone = tasks == 1 and recipe.method.kind == "multi-task"
    return ("One network, trained on the labels there are" if alone else METHODS[recipe.method.kind]) + balanced


def adversary_words(recipe: DenseRecipe, adversary: AdversarySpec) -> str:
    """Where an adversary looks, and the game it plays."""
    part, _, task = adversary.tap.partition("/")
    name = title(recipe.task(task)).lower() if task else ""
    where = part if not task else f"the predicted {name}" if part == "output" else f"{name} predicted from {part}"
    information = "self-information of " if adversary.self_information else ""
    return f"{information}{where} ({GAMES[adversary.game]}, weight {adversary.weight:g})"


def network_words(recipe: DenseRecipe) -> str:
    """The network's kind and width."""
    network = recipe.network
    name = NETWORKS[network.kind].format(layers=getattr(network, "layers", ""))
    return f"{name} of width {network.width:g}" + (", pretrained" if getattr(network, "weights", None) else "")


def data_words(recipe: DenseRecipe) -> str:
    """Data and labels; what is simulated says so."""
    domains = [recipe.source, *([recipe.target] if recipe.target is not None else [])]
    if len(domains) == 1:
        return ("simulated " if recipe.source.data.kind in SIMULATED else "") + recipe.setting
    names = recipe.setting.split("→", 1)
    return " → ".join(
        ("simulated " if domain.data.kind in SIMULATED else "") + name for domain, name in zip(domains, names)
    )


def task_words(recipe: DenseRecipe, tasks: list[str]) -> str:
    """The tasks; where one counts, the others as its help."""
    names = [title(name).lower() for name in tasks]
    if recipe.main is None:
        return ", ".join(names)
    main = title(recipe.main).lower()
    helping = [name for name in names if name != main]
    return main + (f" with {', '.join(helping)} as the anchor" if helping else "")


def frozen_words(stage: StageSpec) -> str:
    """What a stage does not train, or nothing."""
    parts = [f"everything behind {stage.frozen_after}"] if stage.frozen_after is not None else []
    return ", ".join([*parts, *stage.frozen])


def stage_words(stage: StageSpec) -> str:
    """A stage's name for a line in a figure, with what it freezes."""
    if stage.frozen_after is not None:
        return (
            f"frozen behind {stage.frozen_after}"
            if stage.name == "frozen"
            else (f"{stage.name}: frozen behind {stage.frozen_after}")
        )
    return f"{stage.name}: {', '.join(stage.frozen)} frozen" if stage.frozen else stage.name
