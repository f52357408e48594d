"""The rounds: generate, label, filter, fine-tune, promote; a round that makes things worse is rolled back.

Round 0 is labelled by attention (DiffuGen, Shenoda and Kim, 2023). Once the promoted detector agrees with attention
well enough, it labels as well, and an image is kept where attention and others agree (or photos only, by config). A new
checkpoint is promoted unless it is worse than the best, by more than the standard error, on a validation split that
attention labelled in round 0 and that never changes; when rounds stop paying, the loop stops.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bootstrap.config import LoopConfig
from bootstrap.corrections import latest_samples, read_corrections, with_corrections
from bootstrap.decisions import AGREEMENT, IMAGE_AGREEMENT, choose_labeler, decide_promotion, stop_reason
from bootstrap.labelers import detector_labeler, label_one, round_labelers
from bootstrap.measures.round import flatten, report_round
from bootstrap.prompts import round_prompts
from bootstrap.run_folder import RoundFolder, RunFolder, derive_seed, promoted_round, promoted_rounds
from bootstrap.samples import SampleRecord, read_samples
from bootstrap.stages import (
    finetune_round,
    generate_round,
    label_round,
    measure,
    read_pool,
    relabel_earlier,
    validation_agreement,
    write_round_dataset,
)
from bootstrap.training_set import import_labelled, training_samples
from bootstrap.variations import plan_round_variations, samples_to_vary
from diffugen.files import link_file, link_tree, read_json, read_jsonl, write_json, write_jsonl
from diffugen.generation.background import beside
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import Labeler

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
        UserError: round 0 kept too little to train on.
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


def validation_scores(
    config: LoopConfig, run: RunFolder, weights: Path, validation: Sequence[SampleRecord]
) -> tuple[dict[str, float], dict[str, float]]:
    """How good a checkpoint is on the frozen validation split: flat metrics, and its agreement by sample."""
    measured = measure(weights, run.round(0).dataset, "val", config.classes, config.detector)
    agreement, by_sample = validation_agreement(validation, detector_labeler(weights, config))
    scores = {AGREEMENT: agreement, IMAGE_AGREEMENT: sum(by_sample.values()) / len(by_sample)}
    return {**flatten(measured, "val", config.rare_classes), **scores}, by_sample


def publish(run: RunFolder) -> None:
    """Bring the run's own `metrics.jsonl`, `dataset/` and `best.pt` up to date with the complete rounds."""
    write_jsonl(run.metrics, (read_json(folder.metrics) for folder in run.complete_rounds()))
    best = promoted_round(run)
    if best is None or (run.best.is_file() and run.best.samefile(best.weights) and run.dataset.is_dir()):
        return
    link_tree(best.dataset, run.dataset)
    link_file(best.weights, run.best)  # last: where it is the round's, the dataset is as well
