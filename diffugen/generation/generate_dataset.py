"""The work behind `diffugen generate`: from a config to images, their labels and the dataset of the good ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.config.dataset import DatasetConfig, Txt2ImgConfig
from diffugen.config.settings import ModelConfig
from diffugen.errors import UserError
from diffugen.files import locked, write_json, write_jsonl
from diffugen.prompts.prompt import Prompt
from diffugen.prompts.splits import assign_splits, sample_seeds, split_groups
from diffugen.prompts.templates import draw_per_class, num_combinations, sample_prompts

if TYPE_CHECKING:
    from diffugen.datasets.item import DatasetItem
    from diffugen.generation.record import GeneratedRecord
    from diffugen.generation.variations import Variation
    from diffugen.instances import Instances
    from diffugen.labelers.base import Labeler


@dataclass(frozen=True)
class Plan:
    """What will be generated, sample by sample; the lists are aligned.

    Attributes:
        class_names: names of the class ids.
        prompts, seeds, splits: of each sample.
        variations: what each sample starts from; None for txt2img.
    """

    class_names: tuple[str, ...]
    prompts: list[Prompt]
    seeds: list[int]
    splits: list[str]
    variations: list[Variation] | None = None


def make_plan(config: DatasetConfig) -> Plan:
    """Everything that a config decides before the model is loaded.

    Raises:
        UserError: the templates, the counts or the source do not go together.
    """
    if not isinstance(config.task, Txt2ImgConfig):
        return _plan_of_variations(config)
    prompts = _prompts(config)
    return Plan(
        class_names=config.class_names,
        prompts=prompts,
        seeds=sample_seeds(len(prompts), config.seed, config.seed_range),
        splits=assign_splits(prompts, config.val_fraction, config.seed),
    )


def _prompts(config: DatasetConfig) -> list[Prompt]:
    if config.num_images_per_class:
        return [draw.prompt() for draw in draw_per_class(config.prompts, config.num_images_per_class, config.seed)]
    num = config.num_images or num_combinations(config.prompts) * (config.num_images_per_prompt or 1)
    return sample_prompts(config.prompts, num, config.seed)


def _plan_of_variations(config: DatasetConfig) -> Plan:
    from diffugen.generation.sources import read_sources
    from diffugen.generation.variations import class_names, plan_variations

    assert not isinstance(config.task, Txt2ImgConfig)
    sources = read_sources(config.task.source, config.task.words)
    variations = plan_variations(
        sources,
        config.task,
        config.prompts,
        size_hw=config.generate.size_hw,
        num_images=config.num_images,
        num_images_per_prompt=config.num_images_per_prompt or 1,
        seed=config.seed,
    )
    if not variations:
        raise UserError(
            "setting 'task': no labelled object of the source may be repainted; see task.only, task.min_score "
            "and task.replace, and whether the source is labelled"
        )
    # A variation goes where its parent is, else near-twins would stand on both sides.
    drawn = split_groups([item.source.name for item in variations], config.val_fraction, config.seed)
    return Plan(
        class_names=class_names(config, sources),
        prompts=[item.prompt for item in variations],
        seeds=sample_seeds(len(variations), config.seed, config.seed_range),
        splits=[item.source.split or split for item, split in zip(variations, drawn, strict=True)],
        variations=variations,
    )


def generate_dataset(config: DatasetConfig, out: Path, *, dry_run: bool = False) -> None:
    """Generate images, label them and write the dataset of those whose objects were all found.

    Args:
        config: what to generate.
        out: gets config.json, images/, heatmaps/, parts/, samples.jsonl and dataset/; what is there is kept.
        dry_run: print what would be generated, and what it would take, instead.
    """
    plan = make_plan(config)
    _check_learned_tokens(config.model, plan.prompts)
    if dry_run:
        from diffugen.generation.estimate import estimate

        print_plan(plan, config)
        print("estimates:", *estimate(config.model, config.generate, plan.prompts, plan.variations), sep="\n  ")
        return

    from diffugen.diffusion.pipelines import load_pipeline

    labeler = _labeler(config, plan)
    pipe = load_pipeline(config.model)
    with locked(out):
        _generate(config, plan, pipe, labeler, out)


def _labeler(config: DatasetConfig, plan: Plan) -> Labeler:
    if config.label_model is not None:
        from diffugen.labelers.prompted import load_label_model

        phrases = (phrase for prompt in plan.prompts for phrase in prompt.objects)
        asked = dict.fromkeys(phrase.class_name for phrase in phrases if phrase.class_name in plan.class_names)
        return load_label_model(config.label_model, plan.class_names, list(asked), config.model.device)

    from diffugen.labelers.attention import AttentionLabeler

    return AttentionLabeler(plan.class_names, config.label)


def _generate(config: DatasetConfig, plan: Plan, pipe: Any, labeler: Labeler, out: Path) -> None:
    from diffugen.datasets.folder import write_dataset

    write_json(out / "config.json", config.model_dump(mode="json"))
    samples = _generate_and_label(config, plan, pipe, labeler, out)
    write_jsonl(out / "samples.jsonl", samples)
    if not any(sample["kept"] for sample in samples):
        threshold = f"{'label' if config.label_model is None else 'label_model'}.score_threshold"
        raise UserError(
            f"not one of {len(samples)} images shows all objects of its prompt; "
            f"{out / 'samples.jsonl'} says what is missing, and a lower {threshold} finds more"
        )
    write_dataset(out / "dataset", _kept_items(samples, plan, out), plan.class_names)
    _print_summary(samples, out)


def _generate_and_label(
    config: DatasetConfig, plan: Plan, pipe: Any, labeler: Labeler, out: Path
) -> list[dict[str, Any]]:
    """What became of each image: its record, its labels, and whether it is kept."""
    from diffugen.datasets.near_duplicates import SeenImages
    from diffugen.generation.background import beside
    from diffugen.generation.batches import generate_batches

    def label(record: GeneratedRecord) -> tuple[dict[str, Any], str]:
        variation = plan.variations[int(record.id)] if plan.variations else None
        found, reason = label_record(record, variation, labeler, plan.class_names, config.label.min_area_fraction)
        return found.to_json(), reason  # run-length encoded: thousands of masks fit into memory

    with beside(label) as (tell, labels):
        records = generate_batches(
            pipe,
            plan.prompts,
            plan.seeds,
            config.generate,
            out,
            starts=plan.variations,
            provenance={"model": config.model.model_dump(mode="json")},
            on_done=tell,
        )
    seen = None if config.drop_duplicates is None else SeenImages(config.drop_duplicates)
    samples = []
    for record in records:
        encoded, reason = labels[record.id]
        if not reason and seen is not None and (twin := seen.twin(record.id, record.image())):
            reason = f"near-duplicate of {twin}"
        decided = {"kept": not reason, "reason": reason, "labeler": labeler.name, "instances": encoded}
        samples.append(record.to_json() | decided)
    return samples


def _kept_items(samples: Sequence[dict[str, Any]], plan: Plan, out: Path) -> Iterator[DatasetItem]:
    from diffugen.datasets.item import DatasetItem
    from diffugen.generation.record import GeneratedRecord, provenance_of
    from diffugen.instances import Instances

    for sample, split in zip(samples, plan.splits, strict=True):
        if sample["kept"]:
            record, labels = GeneratedRecord.from_json(sample, out), Instances.from_json(sample["instances"])
            provenance = provenance_of(record, sample["labeler"])
            yield DatasetItem(record.id, record.image_path, labels, split, provenance)


def label_record(
    record: GeneratedRecord,
    variation: Variation | None,
    labeler: Labeler,
    class_names: Sequence[str],
    min_area_fraction: float,
) -> tuple[Instances, str]:
    """The labels of a generated image, and what is missing in it (see `missing_objects`).

    Args:
        record: the image with its heatmaps.
        variation: what it was made from; None for txt2img.
        labeler: gives class ids that index `class_names`.
        class_names: the dataset's classes.
        min_area_fraction: for inpainting, see `label_inpainted`.
    """
    from diffugen.generation.variations import label_inpainted
    from diffugen.labelers.base import LabelInput

    attended = labeler.label([LabelInput(record.image(), record.prompt, record.attention())])[0]
    if variation is None or variation.target is None:
        return attended, missing_objects(record.prompt, attended, class_names)
    instances, found = label_inpainted(variation, attended, class_names, min_area_fraction)
    painted = record.prompt.objects[0].class_name
    return instances, "" if found or painted not in class_names else f"no {painted} where it was painted"


def missing_objects(prompt: Prompt, instances: Instances, class_names: Sequence[str]) -> str:
    """Which objects of a prompt have no instance, such as "no car, no tent"; empty if none is missing.

    Objects of classes that are not in `class_names` are not looked for.
    """
    asked = Counter(phrase.class_name for phrase in prompt.objects if phrase.class_name in class_names)
    found = Counter(class_names[class_id] for class_id in instances.class_ids)
    return ", ".join(f"no {name}" if not found[name] else f"too few of {name}" for name in asked - found)


def _check_learned_tokens(model: ModelConfig, prompts: Sequence[Prompt]) -> None:
    """A token that is loaded but never written in a prompt is a typo in one of the two."""
    if not model.embeddings:
        return
    from diffugen.diffusion.embeddings import read_embedding

    for path in model.embeddings:
        if not path.is_file():
            raise UserError(
                f"setting 'model.embeddings': {path} does not exist; give another by "
                "--set 'model.embeddings=[\"FILE\"]', or [] for none"
            )
        for token in read_embedding(path):
            if not any(token in prompt.text for prompt in prompts):
                raise UserError(
                    f"setting 'model.embeddings': token {token!r} of {path} is in no prompt; write it "
                    "into a phrase of prompts.objects or remove the file"
                )


def print_plan(plan: Plan, config: DatasetConfig) -> None:
    """Print the prompts with their objects, and the numbers of images and objects."""
    for number, prompt in enumerate(plan.prompts):
        objects = ", ".join(f"{phrase.text} -> {phrase.class_name}" for phrase in prompt.objects)
        parent = ""
        if plan.variations:
            item = plan.variations[number]
            target = "" if item.target is None else f", object {item.target}"
            parent = f"    from {item.source.path}{target}"
        print(f"{prompt.text}    [{objects or 'no objects'}]{parent}")
    counts = Counter(phrase.class_name for prompt in plan.prompts for phrase in prompt.objects)
    height, width = config.generate.size_hw
    num_texts = len({prompt.text for prompt in plan.prompts})
    size = "images of the sources' sizes" if config.task.kind == "inpaint" else f"images of {width}x{height} pixels"
    print(f"\n{len(plan.prompts)} {size}, {num_texts} different prompts")
    print("objects: " + ", ".join(f"{name} {counts[name]}" for name in plan.class_names))
    print(f"images without objects: {sum(not prompt.objects for prompt in plan.prompts)}")


def _print_summary(samples: Sequence[dict[str, Any]], out: Path) -> None:
    reasons = Counter(sample["reason"] for sample in samples if not sample["kept"])
    print(f"kept {len(samples) - reasons.total()} of {len(samples)} images")
    for reason, count in reasons.most_common():
        print(f"  {count} rejected: {reason}")
    print(f"dataset: {out / 'dataset'}\nsamples: {out / 'samples.jsonl'}")
