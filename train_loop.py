"""From a handful of photos to a detector: `python train_loop.py CONFIG`, which is `diffugen loop CONFIG`.

Learns the concept, then runs the rounds: generate, label, filter, fine-tune, promote. A stopped run resumes with the
same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from bootstrap.config import LoopConfig, default_prompts
from bootstrap.input_files import check_files
from bootstrap.photo_rules import model_missing
from bootstrap.published import check_published, is_run
from bootstrap.row import Row, number
from bootstrap.run_folder import RunFolder, derive_seed
from bootstrap.verdict import RunVerdict, judge_run
from diffugen.cli.loop import add_loop_arguments
from diffugen.cli.options import CONFIG_HINTS
from diffugen.cli.parser import CommandParser
from diffugen.command_line import run_command
from diffugen.config.errors import SettingError
from diffugen.config.loader import load_config
from diffugen.config.settings import PromptsConfig
from diffugen.errors import UserError
from diffugen.outputs import check_output, claimed_output, paths_in
from diffugen.progress import rates_go_to, say
from textual_inversion.config import WithConcepts

if TYPE_CHECKING:
    from bootstrap.held_out import ObjectPhotos
    from diffugen.diffusion.protocol import Pipeline


def _words_of_classes(data: dict[str, Any]) -> PromptsConfig | None:
    """Prompts with the concepts' tokens for the rare classes, in their order; none without a model."""
    if not data.get("model"):
        return None
    tokens = (concept.placeholder_token for concept in data.get("concept", ()))
    return default_prompts(data.get("classes", ()), dict(zip(data.get("rare_classes", ()), tokens, strict=False)))


class RunConfig(LoopConfig, WithConcepts):
    """A run: the concepts, and the loop around them."""

    prompts: PromptsConfig | None = Field(
        default_factory=_words_of_classes,
        description="what is generated (default: the rare classes by the concepts' tokens, else by their names)",
    )

    @model_validator(mode="after")
    def _concepts_fit(self) -> RunConfig:
        if self.model is None and self.concept:
            raise model_missing("concept")
        if self.model and self.model.lora is not None and any(concept.lora_rank for concept in self.concept):
            raise SettingError("concept.lora_rank", "and model.lora are both set; a model takes one, leave one out")
        return self


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for a mistake of the user's, 130 or 143 when stopped."""
    parser = CommandParser(
        prog="python train_loop.py",
        description="Teach a diffusion model an object from a handful of photos, generate labelled images of "
        "it, and fine-tune a detector on them in rounds. A stopped run resumes with the same command.",
        hints=CONFIG_HINTS,
    )
    add_loop_arguments(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: run_loop(options), "train_loop")


def run_loop(options: argparse.Namespace) -> None:
    """`diffugen loop`, `python train_loop.py`."""
    config = load_run_config(options.config, options.set)
    (dry_run if options.dry_run else train_loop)(config, options.out)


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's config and check all that can be checked without a model."""
    config = load_config(path, RunConfig, overrides)
    check_files(config)
    return config


def train_loop(config: RunConfig, out: Path | None = None) -> RunFolder:
    """Run a whole loop in the folder `out`, or go on with it; returns the folder."""
    say("loading libraries")
    # Seconds of imports, which a typo in the config should not have to wait for.
    from bootstrap.checksums import check_rounds
    from bootstrap.report.page import write_report
    from bootstrap.rounds import run_rounds
    from bootstrap.tracking import Tracker
    from textual_inversion.learn import fidelities

    run = _run_folder(config, out)
    with claimed_output(run.path, "loop", paths_in(config.model_dump()), is_earlier=is_run):
        check_published(run)
        config = run.resumed(config)
        check_rounds(run)
        photos = [concept.photos for concept in config.concept]

        def show(status: str, problems: Sequence[str] = (), verdict: RunVerdict | None = None) -> None:
            try:
                drawn = [fidelity.sentence(concept) for concept, fidelity in fidelities(config.concept, run.concept)]
                write_report(run, config, photos=photos, drawn=drawn, problems=problems, verdict=verdict, status=status)
            except UserError:  # a damaged file, which the stage that uses it makes again or names
                if not status:
                    raise

        with told_if_stopped(show) as show_stage:
            pipe, config = prepare_pipeline(config, run, on_stage=show_stage)
        if (failure := failed_concept(config, run)) is not None:
            show("", verdict=failure)
            raise UserError(" ".join((*failure.reasons, *failure.advice)))
        tracker = Tracker(config.wandb, run)
        tracker.start(config)
        rows = []
        with told_if_stopped(show) as show_stage, rates_go_to(tracker.log_rates):
            for row in run_rounds(config, pipe, run, photos=object_photos(config, run), on_stage=show_stage):
                print(describe(row, config))
                tracker.log_round(row, config.classes)
                rows.append(row)
        show("")
        tracker.finish(rows)
        if tracker.problems:
            show("", tracker.problems)
    print(summary(rows, run, tracker.problems))
    return run


@contextmanager
def told_if_stopped(show: Callable[..., None]) -> Iterator[Callable[[str], None]]:
    """Yield what is told of every stage that begins; where one ends with an error, the report says that it stopped."""
    stages: list[str] = []

    def tell(status: str) -> None:
        stages.append(status)
        show(status)

    try:
        yield tell
    except BaseException as error:
        if stages:
            reason = str(error) if isinstance(error, UserError) else type(error).__name__
            with suppress(Exception):  # the error itself is what the user must see
                show("", [f"The run stopped ({stages[-1]}): {reason}. The same command goes on."])
        raise


def object_photos(config: RunConfig, run: RunFolder) -> list[ObjectPhotos]:
    """The photos of the concepts whose tokens are a rare class's phrases, how to read them, and which concept failed.

    They are read as what they show and as what the token started from: where the concept failed, the latter helps.
    """
    from bootstrap.held_out import ObjectPhotos
    from diffugen.prompts.prompt import ObjectPhrase, Prompt
    from textual_inversion.fidelity import remedy
    from textual_inversion.learn import fidelities

    failures = {
        concept.placeholder_token: (fidelity.sentence(concept), remedy(concept))
        for concept, fidelity in fidelities(config.concept, run.concept)
        if fidelity.is_failed
    }
    objects = config.prompts.objects if config.prompts else {}
    phrases = [(name, text) for slot in objects.values() for name in slot for text in slot[name]]
    found = []
    for concept in config.concept:
        token, word = concept.placeholder_token, concept.start_word
        names = [name for name, text in phrases if token in text.split() and name in config.rare_classes]
        if names:
            prompts = (Prompt(f"a photo of a {text}", (ObjectPhrase(text, names[0]),)) for text in (token, word))
            found.append(ObjectPhotos(concept.photos, tuple(prompts), failures.get(token)))
    return found


def failed_concept(config: RunConfig, run: RunFolder) -> RunVerdict | None:
    """The verdict on a run that ends here, as a concept draws nothing of its photos; None where it goes on."""
    from textual_inversion.fidelity import remedy
    from textual_inversion.learn import fidelities

    for concept, fidelity in fidelities(config.concept, run.concept):
        sentence = fidelity.sentence(concept)
        if fidelity.is_failed and concept.on_failure == "stop":
            resume = f"Or go on in {run.path} all the same with --set concept.on_failure=continue."
            return RunVerdict("failed", (sentence, "Nothing was generated."), (remedy(concept), resume))
        say(sentence)
    return None


def dry_run(config: RunConfig, out: Path | None = None) -> None:
    """Check what a run checks before its first image, and print what it would do and take; writes nothing.

    A model that is not on this machine is not fetched for that.
    """
    say("loading libraries")
    from bootstrap.checksums import check_rounds
    from bootstrap.dry_run import describe_run
    from bootstrap.labelers import check_labelers
    from diffugen.detector.model import load_detector
    from diffugen.generation.estimate import is_here

    run = _run_folder(config, out)
    check_output(run.path, "loop", paths_in(config.model_dump()), replaced=False, is_earlier=is_run)
    check_published(run)
    config = run.resumed(config)
    check_rounds(run)
    pipe = None
    if config.model is None or is_here(config.model.path, config.model.revision):
        pipe, config = load_model(config)
    config = with_other_things(config)
    check_inputs(config, pipe)
    networks = (
        config.label.outline.model,
        checker.model if (checker := config.rounds.filter.mask2former) else None,
        config.pool.sam3 if config.pool else None,
    )
    if all(path is None or is_here(path, file="config.json") for path in networks):
        check_labelers(config)
    for concept in config.concept:
        print(f"concept: {concept.placeholder_token} from {concept.photos}, {concept.steps} steps")
    known = load_detector(config.detector.base_weights).names.values()
    print(*describe_run(config, run, pipe, list(known)), sep="\n")


def _run_folder(config: RunConfig, out: Path | None) -> RunFolder:
    folder = out or Path("runs") / config.name
    return RunFolder(folder if folder.is_symlink() else folder.resolve())  # a link is refused by its own name


def prepare_pipeline(
    config: RunConfig, run: RunFolder, on_stage: Callable[[str], None] = lambda status: None
) -> tuple[Pipeline | None, RunConfig]:
    """Check the rest of the config against the model and learn the concepts.

    Returns:
        The pipeline that knows them, None without a model, and the config with what it left to the model, as `run`
        records it, and `with_other_things`.
    """
    from bootstrap.labelers import check_labelers
    from diffugen.diffusion.pipelines import load_pipeline
    from textual_inversion.learn import Setup, are_learned, learn_concepts

    pipe = None
    if not (config.concept and are_learned(config.concept, run.concept) and run.config.is_file()):
        pipe, config = load_model(config)
        config = with_start_words(config, pipe)
        check_inputs(with_other_things(config), pipe)
        check_labelers(config)
    run.write_config(config, weights=config.detector.base_weights)
    concepts, model = config.concept, config.model  # with their start words
    if model is None or (pipe is not None and not concepts):
        return pipe, config
    del pipe  # a GPU may not have room for it and the one that learns
    on_stage("learning the concept")
    seed = derive_seed(config.seed, "concept", 0)
    setup = Setup(model, config.generate, seed, config.detector.base_weights)
    learned = learn_concepts(concepts, setup, run.concept)
    say(f"loading {model.path} with what it learned")
    return load_pipeline(learned), with_other_things(config)


def load_model(config: RunConfig) -> tuple[Pipeline | None, RunConfig]:
    """The pipeline without the concepts, None without a model, and the config with what it left to the model."""
    from diffugen.attention.model_defaults import warn_of_foreign_size, with_model_defaults
    from diffugen.diffusion.pipelines import load_pipeline

    if config.model is None:
        return None, config.resolved(config.generate)
    say(f"loading {config.model.path}")
    pipe = load_pipeline(config.model)
    config = config.resolved(with_model_defaults(config.generate, pipe))
    warn_of_foreign_size(config.generate, pipe)
    return pipe, config


def with_start_words(config: RunConfig, pipe: Pipeline | None) -> RunConfig:
    """The config with a start word for each concept that has none: the base detector's class that suits its photos."""
    from textual_inversion.start_word import choose_start_word

    if pipe is None or all(concept.initializer_word for concept in config.concept):
        return config
    words = start_words(config)
    concepts = []
    for concept in config.concept:
        word = concept.initializer_word or choose_start_word(concept, pipe, words, config.seed)
        if concept.initializer_word is None:
            say(f"{concept.placeholder_token} starts as {word!r}")
        concepts.append(concept.model_copy(update={"initializer_word": word}))
    return config.model_copy(update={"concept": tuple(concepts)})


def with_other_things(config: RunConfig) -> RunConfig:
    """The config whose prompts also show what concepts start from, where they show other things: nothing else is taken
    for the object as easily. They get a third of these images.

    What names the object's own kind, or that of another class, is no other thing. All this follows from the recorded
    config, and is not recorded.
    """
    from bootstrap.held_out import OTHER
    from diffugen.prompts.prompt import kind_of

    prompts = config.prompts
    others = prompts.attributes.get(OTHER) if prompts else None
    if prompts is None or not others:
        return config
    weights = dict(others) if isinstance(others, dict) else dict.fromkeys(others, 1.0)
    phrases = (text for slot in prompts.objects.values() for texts in slot.values() for text in texts)
    own = {kind_of(name) for name in (*config.classes, *phrases)}  # a piano is what a grand piano is
    words = dict.fromkeys(concept.initializer_word for concept in config.concept if concept.initializer_word)
    missing = [word for word in words if word not in weights and kind_of(word) not in own]
    if not missing:
        return config
    weights |= dict.fromkeys(missing, sum(weights.values()) / 2 / len(missing))
    attributes = {**prompts.attributes, OTHER: weights}
    return config.model_copy(update={"prompts": prompts.model_copy(update={"attributes": attributes})})


def start_words(config: RunConfig) -> list[str]:
    """The words that a concept may start from where the config has none: the base detector's classes."""
    from diffugen.detector.model import load_detector

    return [name.replace("-", " ") for name in load_detector(config.detector.base_weights).names.values()]


def check_inputs(config: RunConfig, pipe: Pipeline | None) -> None:
    """Check the photos, the base detector and, with a pipeline, the prompts, so that no mistake is found hours later.

    Raises:
        UserError: one of them does not fit.
    """
    from bootstrap.finetunes import detector_executor
    from bootstrap.prompts import check_prompts
    from diffugen.attention.decoder import check_decoder
    from diffugen.detector.class_rows import check_class_map
    from diffugen.detector.model import load_detector
    from diffugen.detector.training import gpus
    from diffugen.executor.run import check_room
    from textual_inversion.learn import check_concept
    from textual_inversion.placeholder import placeholder_tokens
    from textual_inversion.start_word import known_words

    say("checking photos, prompts and the base detector")
    for concept in config.concept:
        check_concept(concept, pipe)
    base = load_detector(config.detector.base_weights)
    check_class_map(base.names, config.detector.class_map, "detector.class_map")
    gpus(config.detector)
    detector_executor(config)
    if config.executor is not None:
        check_room(config.executor, config.device)
    if pipe is not None:
        if not all(concept.initializer_word for concept in config.concept):
            known_words(start_words(config), pipe)
        if config.generate.attention.decoder is not None:
            check_decoder(config.generate.attention.decoder, pipe)
        check_prompts(config, pipe, [placeholder_tokens(concept) for concept in config.concept])


def describe(row: Row, config: LoopConfig) -> str:
    """One round in a line or two."""
    from bootstrap.report.words import in_words
    from bootstrap.time_left import round_title

    reasons = "; ".join(f"{count}: {in_words(reason)}" for reason, count in row["rejected"].items())
    kept = f"{row['num_kept']} of {row['num_generated']} images kept, labels by {row['labeler']}"
    done = "trained on labelled photos alone" if row["labels_from"] == "given" else kept
    lines = [
        f"{round_title(row['round'], config.rounds.num_rounds)}: {done}"
        + (f" (rejected: {reasons})" if reasons else ""),
        f"  {'promoted' if row['promoted'] else 'not promoted'}: {row['why']}",
    ]
    half, strict = (number(row, f"test/{metric}") for metric in ("mask_map50", "mask_map50_95"))
    if half is not None and strict is not None:
        scores = f"mask mAP50 {half:.3f}, mAP50-95 {strict:.3f}"
        lines.append(f"  {', '.join(config.rare_classes)} on the evaluation set: {scores}")
    return "\n".join(lines)


def summary(rows: Sequence[Row], run: RunFolder, problems: Sequence[str] = ()) -> str:
    """The verdict, where everything is, and what went wrong without stopping the run."""
    promoted = [row["round"] for row in rows if row["promoted"]]
    files = {"report": run.report}
    if promoted:
        files = {f"detector (round_{promoted[-1]:02d})": run.best, "its dataset": run.dataset, **files}
    return "\n".join([judge_run(rows).text(), *(f"{name + ':':<24}{path}" for name, path in files.items()), *problems])


if __name__ == "__main__":
    import train_loop as importable  # classes of __main__ cannot be sent to workers

    sys.exit(importable.main())
