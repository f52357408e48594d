"""The rounds: generate, label, filter, fine-tune, promote; a round that makes things worse is rolled back.

Round 0 is labelled by attention (DiffuGen, Shenoda and Kim, 2023). Once the promoted detector agrees with attention
well enough, it labels as well, and an image is kept where attention and others agree (or photos only, by config). A new
checkpoint is promoted unless it is worse than the best, by more than the standard error, on a validation split that
attention labelled in round 0 and that never changes; when rounds stop paying, the loop stops.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bootstrap.config import LoopConfig
from bootstrap.decisions import AGREEMENT, IMAGE_AGREEMENT, choose_labeler, decide_promotion, stop_reason
from bootstrap.labelling import MirroredLabeler, label_one
from bootstrap.measures import flatten, report_round
from bootstrap.review import latest_samples, read_corrections, with_corrections
from bootstrap.samples import SampleRecord, balance_classes, one_per_photo, read_samples
from bootstrap.stages import (
    detector_labeler,
    finetune_round,
    generate_round,
    label_round,
    mask2former_labeler,
    measure,
    read_pool,
    relabel_earlier,
    validation_agreement,
    write_round_dataset,
)
from bootstrap.state import RoundFolder, RunFolder, derive_seed, link_file, link_tree
from bootstrap.training_set import import_labelled
from bootstrap.variations import plan_round_variations, possible_prompts, samples_to_vary
from diffugen.attention_labeler import AttentionLabeler
from diffugen.beside import beside
from diffugen.config import ConfigError
from diffugen.files import read_json, read_jsonl, write_json, write_jsonl
from diffugen.labelers import Labeler
from diffugen.prompts import Prompt
from diffugen.templates import sample_prompts
from diffugen.tokens import check_prompt, tokenizers_of

logger = logging.getLogger(__name__)


def run_rounds(
    config: LoopConfig, pipe: Any, run: RunFolder, *, photos: Sequence[Path] = ()
) -> Iterator[dict[str, Any]]:
    """Run the rounds that are not complete yet; yields every round's row of metrics, complete ones included.

    Args:
        config: the loop's settings; checked already (`check_files`, `check_prompts`).
        pipe: a text-to-image pipeline that knows every word of the prompts.
        run: the run folder; this process holds its lock.
        photos: folders of the concepts' photos, which the report compares generated images with.

    Raises:
        ConfigError: round 0 kept too little to train on.
    """
    # No decision can depend on the evaluation set: play_round is not told that there is one.
    blind = config.model_copy(update={"evaluation": None})
    for index in range(config.rounds.num_rounds):
        folder = run.round(index)
        if not folder.complete:
            play_round(blind, pipe, run, folder)
            report_round(folder, config, pipe, photos)
        publish(run)
        yield read_json(folder.metrics)
        reason = stop_reason(read_jsonl(run.metrics), config.rounds.patience)
        if reason and index + 1 < config.rounds.num_rounds:
            logger.warning("stopped after round %d: %s", index, reason)
            return


def play_round(config: LoopConfig, pipe: Any, run: RunFolder, folder: RoundFolder) -> None:
    """All stages of one round up to its decision: is the new checkpoint promoted?

    Ends with `decision.json`. Stages that are done are not done again.
    """
    rounds, index = config.rounds, folder.index
    best = promoted_round(run)
    standing = None if best is None else read_json(best.metrics)
    labeler, why = choose_labeler(standing, rounds, has_photos=config.pool is not None)
    told = {"labels_from": labeler, "labels_why": why}
    by_attention = AttentionLabeler(config.classes, config.label)  # detectors come later: memory is for generating now
    with folder.timed("generate"), beside(partial(label_one, by_attention)) as (label, made):
        prompts = round_prompts(config, index)
        parents = samples_to_vary(run, folder) if rounds.variations and index else []
        variations = plan_round_variations(config, parents, index)
        generated = generate_round(
            pipe, prompts, config.generate, folder, seed=config.seed, variations=variations, on_done=label
        )
        made_of = {record.id: start for record, start in zip(generated[len(prompts) :], variations, strict=True)}
        if config.pool is not None:
            generated = [*generated, *read_pool(pipe, config.pool, config.generate, run.round(0), folder)]
    with folder.timed("label"):
        labelers = round_labelers(config, run, with_detector=labeler == "detector")
        samples = label_round(
            generated,
            labelers,
            folder,
            class_names=config.classes,
            rounds=rounds,
            seed=config.seed,
            made=made,
            variations=made_of,
            min_area_fraction=config.label.min_area_fraction,
            validate_on=[config.classes.index(name) for name in config.rare_classes] if index == 0 else None,
        )
        validation = [sample for sample in read_samples(run.round(0)) if sample.split == "val"]
        if config.labelled is not None:
            import_labelled(config.labelled, config.classes, run.labelled)
        earlier = earlier_samples(config, run, folder, labelers)
        del labelers  # their memory is for fine-tuning now
        dataset = write_round_dataset(
            [*validation, *training_samples(config, samples, earlier)],
            config.classes,
            folder,
            photo_repeats=config.pool.repeats if config.pool else 1,
            labelled=run.labelled if config.labelled else None,
        )
    if not any(sample.split == "train" for sample in samples):
        nothing = "it kept no image, so there was nothing to learn"
        write_json(folder.decision, {**told, "promoted": False, "why": nothing})
        return
    with folder.timed("finetune"):
        start = config.detector.base_weights if best is None or rounds.start_from == "base" else best.weights
        seed = derive_seed(config.seed, "detector", index)
        weights = finetune_round(start, dataset, folder, config.detector, seed=seed)
    with folder.timed("compare"):
        if not folder.decision.is_file():
            scores, agreement = validation_scores(config, run, weights, validation)
            write_json(folder.validation, agreement)
            before = {other.index: read_json(other.validation) for other in promoted_rounds(run)}
            write_json(folder.decision, {**told, **scores, **decide_promotion(agreement, before)})


def round_labelers(config: LoopConfig, run: RunFolder, *, with_detector: bool) -> dict[str, Labeler]:
    """Who labels a round, by name: attention, and once the detector labels, the detector and those who check it."""
    labelers: dict[str, Labeler] = {"attention": AttentionLabeler(config.classes, config.label)}
    if not with_detector:
        return labelers
    *earlier, best = promoted_rounds(run)
    checks = config.rounds.filter.checks
    labelers["detector"] = detector_labeler(best.weights, config)
    if "flipped" in checks:
        labelers["flipped"] = MirroredLabeler(labelers["detector"])
    if "previous" in checks and earlier:
        labelers["previous"] = detector_labeler(earlier[-1].weights, config)
    if (mask2former := mask2former_labeler(config)) is not None:
        labelers["mask2former"] = mask2former
    return labelers


def earlier_samples(
    config: LoopConfig, run: RunFolder, folder: RoundFolder, labelers: Mapping[str, Labeler]
) -> list[SampleRecord]:
    """The samples of the rounds before this one: as this round's labelers see them, if the config wants that, all kept
    ones are trained on and the detector has a say about them, else by the latest word of a round; and as a person has
    corrected them."""
    rounds = config.rounds
    anew = rounds.relabel and rounds.train_on == "all_kept" and "detector" in labelers
    anew = anew and rounds.filter.by == "agreement"  # attention's word has not changed
    corrections = read_corrections(run)
    if not anew:
        return latest_samples(run, corrections)
    found: list[SampleRecord] = []
    for earlier in run.complete_rounds():
        samples = relabel_earlier(
            read_samples(earlier),
            earlier,
            labelers,
            folder,
            class_names=config.classes,
            rounds=rounds,
            seed=config.seed,
        )
        found += with_corrections(samples, corrections)
    return found


def training_samples(
    config: LoopConfig, samples: Sequence[SampleRecord], earlier: Sequence[SampleRecord]
) -> list[SampleRecord]:
    """What a round trains on: its own kept samples, and those of earlier rounds unless only the latest count.

    What a person has corrected counts in any case, with the corrected labels. A variation of an image that has been
    rejected since no longer counts: it shows what that image shows, and part of its labels may be from there.
    """
    own, rounds = _train(samples), config.rounds
    rejected = {sample.name for sample in earlier if not sample.kept}
    earlier = [
        sample
        for sample in one_per_photo(earlier)
        # the photos of the pool are labelled anew in every round: the last word counts, unless a person had it
        if sample.labeler == "person" or (rounds.train_on == "all_kept" and not sample.is_photo)
    ]
    by_person = {sample.source.id for sample in earlier if sample.labeler == "person" and sample.is_photo}
    own = _train(earlier) + [sample for sample in own if not sample.is_photo or sample.source.id not in by_person]
    own = [sample for sample in own if sample.labeler == "person" or _parent_name(sample) not in rejected]
    if rounds.max_class_ratio is not None:
        own = balance_classes(own, len(config.classes), rounds.max_class_ratio)
    return own


def validation_scores(
    config: LoopConfig, run: RunFolder, weights: Path, validation: Sequence[SampleRecord]
) -> tuple[dict[str, float], dict[str, float]]:
    """How good a checkpoint is on the frozen validation split: flat metrics, and its agreement by sample."""
    measured = measure(weights, run.round(0).dataset, "val", config.classes, config.detector)
    agreement, by_sample = validation_agreement(validation, detector_labeler(weights, config))
    scores = {AGREEMENT: agreement, IMAGE_AGREEMENT: sum(by_sample.values()) / len(by_sample)}
    return {**flatten(measured, "val", config.rare_classes), **scores}, by_sample


def promoted_rounds(run: RunFolder) -> list[RoundFolder]:
    """The complete rounds whose checkpoints were promoted, the one that stands last."""
    return [folder for folder in run.complete_rounds() if read_json(folder.metrics)["promoted"]]


def promoted_round(run: RunFolder) -> RoundFolder | None:
    """The complete round whose checkpoint stands promoted."""
    promoted = promoted_rounds(run)
    return promoted[-1] if promoted else None


def publish(run: RunFolder) -> None:
    """Bring the run's own `metrics.jsonl`, `dataset/` and `best.pt` up to date with the complete rounds."""
    write_jsonl(run.metrics, (read_json(folder.metrics) for folder in run.complete_rounds()))
    best = promoted_round(run)
    if best is None or (run.best.is_file() and run.best.samefile(best.weights) and run.dataset.is_dir()):
        return
    link_tree(best.dataset, run.dataset)
    link_file(best.weights, run.best)  # last: where it is the round's, the dataset is as well


def round_prompts(config: LoopConfig, index: int) -> list[Prompt]:
    """The prompts of a round; they follow from the run's seed."""
    return sample_prompts(config.prompts, config.rounds.num_images, seed=derive_seed(config.seed, "prompts", index))


def check_prompts(config: LoopConfig, pipe: Any, new_tokens: Sequence[Sequence[str]] = ()) -> None:
    """Check every prompt of every round before any work starts.

    Args:
        config: the loop's settings.
        pipe: the pipeline, which need not know the new tokens yet and is left as it is.
        new_tokens: for every concept its placeholder token and, for several vectors, the further ones.

    Raises:
        ConfigError: a prompt would be cut or lacks an object's phrase, or no prompt has the placeholder.
    """
    rounds = range(config.rounds.num_rounds)
    prompts = {prompt.text: prompt for index in rounds for prompt in round_prompts(config, index)}
    for placeholder, *_ in new_tokens:
        if not any(placeholder in text for text in prompts):
            raise ConfigError(
                f"setting 'concept.placeholder_token': {placeholder!r} is in no prompt; "
                "use it in 'prompts.templates' or 'prompts.objects', spelt the same"
            )
    reader: Any = pipe
    if new_tokens:
        tokenizers = [copy.deepcopy(tokenizer) for tokenizer in tokenizers_of(pipe)]
        for tokenizer in tokenizers:
            tokenizer.add_tokens([token for tokens in new_tokens for token in tokens])
        reader = SimpleNamespace(**dict(zip(("tokenizer", "tokenizer_2"), tokenizers, strict=False)))
    pool = config.pool.prompts if config.pool else []
    for prompt in [*prompts.values(), *possible_prompts(config, list(prompts.values())), *pool]:
        check_prompt(reader, prompt, config.generate.attend)


def _train(samples: Sequence[SampleRecord]) -> list[SampleRecord]:
    return [sample for sample in samples if sample.split == "train"]


def _parent_name(sample: SampleRecord) -> str | None:
    """Of a variation, the name of the sample that it was made of."""
    return sample.source.provenance.get("parent", {}).get("name")
