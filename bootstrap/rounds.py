"""The rounds: generate, label, filter, fine-tune, promote; a round that makes things worse is rolled back.

Round 0 is labelled by attention (DiffuGen, Shenoda and Kim, 2023); without a diffusion model by whoever knows the
photos' objects (docs/photographs.md). Once the promoted detector agrees with attention
well enough, it labels as well, and an image is kept where attention and others agree (or photos only, by config). A new
checkpoint is promoted unless it is worse than the best, by more than the standard error, on a validation split that
attention labelled in round 0 and that never changes; when rounds stop paying, the loop stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bootstrap.checksums import check_unfinished
from bootstrap.config import LoopConfig
from bootstrap.context import RoundContext, round_context
from bootstrap.corrections import read_corrections
from bootstrap.decisions import stop_reason
from bootstrap.held_out import ObjectPhotos, collect_evidence, evidence_photos
from bootstrap.measures.round import report_round
from bootstrap.published import publish
from bootstrap.row import Row, read_row, read_rows
from bootstrap.run_folder import RunFolder
from bootstrap.stages import decide, fine_tune, generate, label, trains_on
from bootstrap.time_left import STAGES, round_title, timed_stage
from bootstrap.training_set import write_training_set
from diffugen.diffusion.protocol import Pipeline
from diffugen.progress import part, say
from diffugen.sample import Sample

logger = logging.getLogger(__name__)


def run_rounds(
    config: LoopConfig,
    pipe: Pipeline | None,
    run: RunFolder,
    *,
    photos: Sequence[ObjectPhotos] = (),
    on_stage: Callable[[str], None] = lambda status: None,
) -> Iterator[Row]:
    """Run the rounds that are not complete yet; yields every round's row of metrics, complete ones included.

    Args:
        config: the loop's settings; checked already (`check_files`, `check_prompts`).
        pipe: a text-to-image pipeline that knows every word of the prompts; None: the images are photos alone.
        run: the run folder; this process holds its lock.
        photos: of the concepts: detectors are judged by them, and generated images are compared with them.
        on_stage: called before every stage with what begins, such as "round 0 (1 of 3), labelling".

    Raises:
        UserError: round 0 kept too little to train on.
    """
    shown = evidence_photos(config, run, pipe, photos)
    for index in range(config.rounds.num_rounds):
        folder = run.round(index)
        if not folder.complete:
            check_unfinished(folder)
            play_round(round_context(config, run, folder), pipe, shown, on_stage)
            with part(round_title(index, config.rounds.num_rounds)):
                say("measuring")
                report_round(folder, config, pipe, photos)
        publish(run)
        yield read_row(folder.metrics)
        corrected = bool(read_corrections(run))
        reason = stop_reason(read_rows(run.metrics), config.rounds.patience, has_corrections=corrected)
        if reason and index + 1 < config.rounds.num_rounds:
            logger.warning("stopped after round %d: %s", index, reason)
            return


def play_round(
    context: RoundContext,
    pipe: Pipeline | None,
    photos: Sequence[Sample] = (),
    on_stage: Callable[[str], None] = lambda status: None,
) -> None:
    """Run the stages of one round; the last one writes `decision.json`. Stages that are done are not run again.

    Args:
        context: the round's.
        pipe: generates; None: there are photos alone.
        photos: from `evidence_photos`.
        on_stage: see `run_rounds`.
    """

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        on_stage(f"{round_title(context.index, context.config.rounds.num_rounds)}, {STAGES[name]}")
        with timed_stage(context, name):
            yield

    with stage("generate"):
        generated = generate(context, pipe)
    with stage("label"):
        samples = label(context, generated)
        write_training_set(context, samples)
    if trains_on(context, samples):
        with stage("finetune"):
            fine_tune(context, samples, photos)
        with stage("photos"):
            collect_evidence(context, samples, photos)
    with stage("compare"):
        decide(context, samples)
