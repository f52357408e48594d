"""How long a run still takes, from how long its stages took so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bootstrap.context import RoundContext
from diffugen.progress import part

STAGES = {
    "generate": "generating",
    "label": "labelling",
    "finetune": "fine-tuning",
    "photos": "judging photos",
    "compare": "comparing",
    "evaluate": "measuring",
}
"""The timed stages of a round, in their order, and what one says of them."""


@contextmanager
def timed_stage(context: RoundContext, name: str) -> Iterator[None]:
    """Time a stage of a round. Bars in the block name the round and how long the whole run still takes."""
    rounds = context.config.rounds
    left = describe_time_left(_seconds_by_round(context), context.index, name, rounds.num_rounds)
    with part(round_title(context.index, rounds.num_rounds) + left), context.folder.timed(name):
        yield


def round_title(index: int, num_rounds: int) -> str:
    """What bars call a round, by the number of its folder: "round 1 (2 of 3)"."""
    return f"round {index} ({index + 1} of {num_rounds})"


def describe_time_left(seconds: Mapping[int, Mapping[str, float]], index: int, name: str, num_rounds: int) -> str:
    """How long a run takes from the start of a stage on, such as " (run: 12 min left)"; empty until all are known.

    A stage is expected to take what it took in the latest round that has it. Fine-tuning takes longer from round to
    round, as all kept images are trained on.

    Args:
        seconds: of stages so far, by round and stage; what the current round has of this stage and later ones was
            cut off.
        index, name: the round and the stage that begins.
        num_rounds: the setting.
    """
    names = list(STAGES)
    before = names[: names.index(name)]
    ended = {**seconds, index: {other: value for other, value in seconds.get(index, {}).items() if other in before}}
    expected = 0.0
    for later in range(index, num_rounds):
        for other in names[names.index(name) if later == index else 0 :]:
            measured = {number: own[other] for number, own in ended.items() if other in own}
            if not measured:
                return ""
            latest = max(measured)
            grows = other == "finetune"
            expected += measured[latest] * ((later + 1) / (latest + 1) if grows else 1)
    return f" (run: {duration(expected)} left)" if expected else ""


def duration(seconds: float) -> str:
    """A rough duration: "40 s", "12 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _seconds_by_round(context: RoundContext) -> dict[int, dict[str, float]]:
    return {index: context.run.round(index).seconds_by_stage() for index in range(context.index + 1)}
