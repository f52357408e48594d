"""Generating images and labelling each in the background: what `diffugen generate` and a round of the loop share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from diffugen.config.settings import GenerateConfig
from diffugen.diffusion.protocol import Pipeline
from diffugen.generation.background import in_background
from diffugen.generation.batches import generate_batches
from diffugen.generation.plan import Plan
from diffugen.generation.variations import Variation, label_inpainted
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, label_input
from diffugen.prompts.prompt import Prompt
from diffugen.sample import EncodedInstances, Sample


def generate_labelled(
    pipe: Pipeline,
    plan: Plan,
    settings: GenerateConfig,
    labeler: Labeler,
    min_area_fraction: float,
    *,
    on_done: Callable[[Sample, bool], object] | None = None,
) -> dict[str, tuple[EncodedInstances, str]]:
    """Generate the images of a plan; each is labelled in the background while the next ones are generated.

    Args:
        pipe: a text-to-image pipeline.
        plan, settings: see `generate_batches`.
        labeler: its class ids index the plan's class names.
        min_area_fraction: for inpainting, see `label_inpainted`.
        on_done: as for `generate_batches`, in place of a progress bar.

    Returns:
        By sample name its labels, and what is missing in the image (see `label_generated`).
    """

    def label(sample: Sample) -> tuple[EncodedInstances, str]:
        variation = plan.variations.get(sample.name)
        found, missing = label_generated(sample, variation, labeler, plan.class_names, min_area_fraction)
        return found.to_json(), missing

    with in_background(label) as (submit, labels):

        def tell(sample: Sample, made: bool) -> None:
            submit(sample)
            if on_done is not None:
                on_done(sample, made)

        generate_batches(pipe, plan, settings, progress=on_done is None, on_done=tell)
    return labels


def label_generated(
    sample: Sample,
    variation: Variation | None,
    labeler: Labeler,
    class_names: Sequence[str],
    min_area_fraction: float,
) -> tuple[Instances, str]:
    """The labels of a generated image, and what is missing in it (see `missing_objects`).

    Where one object was repainted, all others keep the labels that they had.

    Args:
        sample: the image with its heatmaps.
        variation: what it was generated from; None where that was noise.
        labeler: its class ids index `class_names`.
        class_names: the dataset's classes.
        min_area_fraction: for inpainting, see `label_inpainted`.
    """
    found = labeler.label([label_input(sample)])[0]
    if variation is None or variation.target is None:
        return found, missing_objects(sample.prompt, found, class_names)
    instances, is_there = label_inpainted(variation, found, class_names, min_area_fraction)
    painted = sample.prompt.objects[0].class_name
    return instances, "" if is_there or painted not in class_names else f"no {painted} where it was painted"


def missing_objects(prompt: Prompt, instances: Instances, class_names: Sequence[str]) -> str:
    """Which objects of a prompt have no instance, such as "no car, no tent"; empty if none is missing.

    Objects of classes that are not in `class_names` are not looked for.
    """
    asked = Counter(phrase.class_name for phrase in prompt.objects if phrase.class_name in class_names)
    found = Counter(class_names[class_id] for class_id in instances.class_ids)
    return ", ".join(f"no {name}" if not found[name] else f"too few of {name}" for name in asked - found)
