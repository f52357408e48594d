"""What the stages of a round share."""

from __future__ import annotations

from dataclasses import dataclass

from bootstrap.config import LoopConfig
from bootstrap.decisions import choose_labeler, choose_labeler_of_photos
from bootstrap.row import read_row
from bootstrap.run_folder import RoundFolder, RunFolder, promoted_round


@dataclass(frozen=True)
class RoundContext:
    """A round: its settings, its files and who labels it.

    Attributes:
        config: the run's settings without its evaluation set, which no decision may depend on.
        run: the run folder.
        folder: the round's.
        labeler: "attention"; or "detector": then the promoted checkpoint labels too, and others check it; or "given":
            nobody labels, and the detector learns from the labels that came with photos.
        labeler_reason: why.
    """

    config: LoopConfig
    run: RunFolder
    folder: RoundFolder
    labeler: str
    labeler_reason: str

    @property
    def index(self) -> int:
        """The round's number, from 0."""
        return self.folder.index


def round_context(config: LoopConfig, run: RunFolder, folder: RoundFolder) -> RoundContext:
    """The context of a round whose predecessors are complete; it decides who labels the round."""
    best = promoted_round(run)
    if config.model is None:
        index = None if best is None else best.index
        labeler, reason = choose_labeler_of_photos(index, has_given=config.labelled is not None)
    else:
        row = None if best is None else read_row(best.metrics)
        labeler, reason = choose_labeler(row, config.rounds, has_photos=config.pool is not None)
    return RoundContext(config.model_copy(update={"evaluation": None}), run, folder, labeler, reason)
