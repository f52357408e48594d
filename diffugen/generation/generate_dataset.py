"""The work behind `diffugen generate`: from a config to images, their labels and the dataset of the good ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffugen.config.dataset import DatasetConfig, Txt2ImgConfig
from diffugen.config.settings import ModelConfig
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.generation.model_record import named_model, record_model
from diffugen.generation.plan import Plan, plan_samples
from diffugen.generation.sources import read_sources
from diffugen.generation.variations import plan_variations
from diffugen.images import BLANK, is_blank
from diffugen.labelers.base import Labeler
from diffugen.labelers.loading import LabelerSettings
from diffugen.outputs import check_output, claimed_output, paths_in
from diffugen.progress import progress_bar, say
from diffugen.prompts.prompt import Prompt
from diffugen.prompts.splits import assign_splits, sample_seeds, split_groups
from diffugen.prompts.templates import draw_per_class, num_combinations, sample_prompts
from diffugen.sample import EncodedInstances, Sample, write_samples

if TYPE_CHECKING:
    from diffugen.datasets.near_duplicates import SeenImages
    from diffugen.diffusion.protocol import Pipeline

# Modules that import torch are imported inside functions: a mistake in a config is reported before those seconds.


def make_plan(config: DatasetConfig, out: Path) -> Plan:
    """Everything that a config decides before the model is loaded.

    Raises:
        UserError: the templates, the counts or the source do not go together, or `out` was begun with another model.
    """
    if not isinstance(config.task, Txt2ImgConfig):
        return _plan_variations(config, out)
    prompts = _prompts(config)
    return plan_samples(
        out,
        config.class_names,
        prompts,
        sample_seeds(len(prompts), config.seed, config.seed_range),
        config.generate,
        model=named_model(out, config.model),
        splits=assign_splits(prompts, config.val_fraction, config.seed),
    )


def _prompts(config: DatasetConfig) -> list[Prompt]:
    if config.num_images_per_class:
        return [draw.prompt() for draw in draw_per_class(config.prompts, config.num_images_per_class, config.seed)]
    num = config.num_images or num_combinations(config.prompts) * (config.num_images_per_prompt or 1)
    return sample_prompts(config.prompts, num, config.seed)


def _plan_variations(config: DatasetConfig, out: Path) -> Plan:
    assert not isinstance(config.task, Txt2ImgConfig)
    sources, source_names = read_sources(config.task.source, config.task.class_words)
    variations = plan_variations(
        sources,
        source_names,
        config.task,
        config.prompts,
        num_images=config.num_images,
        num_images_per_prompt=config.num_images_per_prompt or 1,
        seed=config.seed,
    )
    if not variations:
        raise UserError(
            "setting 'task': no labelled object of the source may be repainted; see task.only, task.min_score "
            "and task.replace, and whether the source is labelled"
        )
    # A variation goes into its parent's split, or near-duplicates would be on both sides.
    drawn = split_groups([item.source.name for item in variations], config.val_fraction, config.seed)
    return plan_samples(
        out,
        config.classes or tuple(dict.fromkeys([*source_names, *config.prompts.class_names])),
        [item.prompt for item in variations],
        sample_seeds(len(variations), config.seed, config.seed_range),
        config.generate,
        model=named_model(out, config.model),
        variations=variations,
        splits=[item.source.split or split for item, split in zip(variations, drawn, strict=True)],
    )


def generate_dataset(config: DatasetConfig, out: Path, *, dry_run: bool = False, overlays: bool = False) -> None:
    """Generate images, label them and write the dataset of those whose objects were all found.

    Args:
        config: what to generate.
        out: gets config.json, images/, heatmaps/, parts/, samples.jsonl and dataset/; what is there is kept.
        dry_run: print what would be generated, and what it would take, instead.
        overlays: draw all images with their labels into overlays/, see `OverlaySheets`.

    Raises:
        UserError: see `make_plan` and `claimed_output`; or no image shows what it should.
    """
    plan = make_plan(config, out)
    _check_learned_tokens(config.model, plan)
    if dry_run:
        from diffugen.generation.estimate import estimate

        print(*plan.describe(config.generate), sep="\n")
        print("estimates:", *estimate(config.model, config.generate, plan), sep="\n  ")
        return

    inputs = list(paths_in(config.model_dump()))
    check_output(out, "generate", inputs, replaced=False, is_earlier=_is_earlier)
    check_output(out / "dataset", "dataset", option="dataset")
    from diffugen.attention.model_defaults import warn_of_foreign_size, with_model_defaults
    from diffugen.datasets.folder import write_dataset
    from diffugen.diffusion.pipelines import load_pipeline
    from diffugen.executor.run import discard_records
    from diffugen.generation.batches import check_plan
    from diffugen.generation.shards import records_of, without_device

    model = config.model if config.executor is None else without_device(config.model)
    labeler = _labeler(config, plan, model.device).load()
    say(f"loading {config.model.path}")
    pipe = load_pipeline(model)
    config = config.model_copy(update={"generate": with_model_defaults(config.generate, pipe)})
    warn_of_foreign_size(config.generate, pipe)
    plan = plan.made_with(config.generate)
    with claimed_output(out, "generate", inputs, is_earlier=_is_earlier):
        write_json(out / "config.json", config.model_dump(mode="json"))
        record_model(out, config.model)
        if config.executor is None:
            found = _by_itself(config, plan, pipe, labeler)
        else:
            check_plan(pipe, plan, config.generate)
            found = _by_workers(config, plan)
        del pipe
        samples = _filtered(found, labeler.name, config.drop_duplicates)
        write_samples(out / "samples.jsonl", samples)
        if overlays:
            _draw(samples, plan.class_names, out / "overlays")
        _check_any_kept(config, samples, out)
        write_dataset(out / "dataset", (sample for sample in samples if sample.kept), plan.class_names)
        discard_records(records_of(plan))
    _print_summary(samples, out)


def _is_earlier(out: Path) -> bool:
    """Whether a version without markers generated into a folder."""
    try:
        values = read_json(out / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"prompts", "generate", "task"} <= set(values) and (out / "parts").is_dir()


def _draw(samples: Sequence[Sample], class_names: Sequence[str], folder: Path) -> None:
    from diffugen.drawing import OverlaySheets

    with OverlaySheets(folder, class_names) as sheets:
        for sample in progress_bar(samples, desc="drawing", unit="image"):
            state = "kept" if sample.kept else f"rejected: {sample.reason}"
            sheets.add(sample.pixels(), sample.instances, f"{sample.name} {state}. {sample.prompt.text}")
    print(f"overlays: {folder}")


def _labeler(config: DatasetConfig, plan: Plan, device: str) -> LabelerSettings:
    phrases = (phrase for sample in plan.samples for phrase in sample.prompt.objects)
    asked = dict.fromkeys(phrase.class_name for phrase in phrases if phrase.class_name in plan.class_names)
    return LabelerSettings(
        plan.class_names,
        config.label,
        device,
        score_threshold=config.label.score_threshold,
        label_model=config.label_model,
        asked=tuple(asked),
    )


Found = tuple[Sample, EncodedInstances, str]
"""A generated sample, its labels and what is missing in it."""


def _by_itself(config: DatasetConfig, plan: Plan, pipe: Pipeline, labeler: Labeler) -> Iterator[Found]:
    """Generate the samples of a plan in this process."""
    from diffugen.generation.labelled import generate_labelled

    found = generate_labelled(pipe, plan, config.generate, labeler, config.label.min_area_fraction)
    return ((sample, *found[sample.name]) for sample in plan.samples)


def _by_workers(config: DatasetConfig, plan: Plan) -> Iterator[Found]:
    """Have workers generate them."""
    from diffugen.generation.shards import generate_in_shards

    assert config.executor is not None
    labeler = _labeler(config, plan, config.model.device)
    found = generate_in_shards(
        plan, config.model, config.generate, labeler, config.label.min_area_fraction, config.executor
    )
    return ((sample, record["instances"], record["missing"]) for sample, record in found)


def _filtered(
    found: Iterable[tuple[Sample, EncodedInstances, str]], labeler: str, max_distance: float | None
) -> list[Sample]:
    """The samples with their labels; not kept are those that lack an object, those of one colour, and near-duplicates
    of an earlier one."""
    from diffugen.datasets.near_duplicates import SeenImages

    seen = None if max_distance is None else SeenImages(max_distance)
    samples = []
    for sample, encoded, reason in found:
        if not reason:
            reason = _rejected(sample, seen)
        split = "" if reason else sample.split
        samples.append(replace(sample, split=split, encoded=encoded, labeler=labeler, reason=reason))
    return samples


def _rejected(sample: Sample, seen: SeenImages | None) -> str:
    """Why an image is not kept that shows what it should; empty if it is."""
    pixels = sample.pixels()
    if is_blank(pixels):
        return BLANK
    twin = seen.twin(sample.name, pixels) if seen is not None else None
    return f"near-duplicate of {twin}" if twin else ""


def _check_any_kept(config: DatasetConfig, samples: Sequence[Sample], out: Path) -> None:
    if not any(sample.kept for sample in samples):
        if all(sample.reason == BLANK for sample in samples):
            raise UserError(
                f"each of the {len(samples)} images in {out} is of one colour; try more generate.num_inference_steps, "
                'model.dtype "float32" or another model'
            )
        threshold = f"{'label' if config.label_model is None else 'label_model'}.score_threshold"
        raise UserError(
            f"not one of {len(samples)} images shows all objects of its prompt; "
            f"{out / 'samples.jsonl'} says what is missing, and a lower {threshold} finds more"
        )


def _check_learned_tokens(model: ModelConfig, plan: Plan) -> None:
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
            if not any(token in sample.prompt.text for sample in plan.samples):
                raise UserError(
                    f"setting 'model.embeddings': token {token!r} of {path} is in no prompt; write it "
                    "into a phrase of prompts.objects or remove the file"
                )


def _print_summary(samples: Sequence[Sample], out: Path) -> None:
    reasons = Counter(sample.reason for sample in samples if not sample.kept)
    print(f"kept {len(samples) - reasons.total()} of {len(samples)} images")
    for reason, count in reasons.most_common():
        print(f"  {count} rejected: {reason}")
    print(f"dataset: {out / 'dataset'}\nsamples: {out / 'samples.jsonl'}")
