"""`diffugen init`: write a config that runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.cli.options import TOY_HELP, add_command, model_name, split_names, toy_weights
from diffugen.command_line import path_option
from diffugen.errors import UserError

if TYPE_CHECKING:
    from diffugen.cli.model_facts import ModelFacts
    from diffugen.cli.new_config import Request

COMMANDS = {"loop": "loop", "concept": "learn", "dataset": "generate"}


def add_init(commands: Any) -> None:
    """`diffugen init`."""
    parser = add_command(
        commands,
        "init",
        "write a config for a folder of photos, or an example",
        "Looks at the photos, the model and the weights, fills in what follows from them, and prints the next\n"
        "command. The config is JSON; keys that begin with // are comments.",
        "diffugen init photos/piano --class grand-piano --model MODEL --weights yolov8n-seg.pt\n"
        "  diffugen init --kind dataset --class car,tent --model MODEL\n"
        "  diffugen init --example demo my-demo",
    )
    parser.add_argument("photos", type=path_option, nargs="?", metavar="PHOTOS", help="folder of photos of the object")
    parser.add_argument(
        "--kind",
        choices=tuple(COMMANDS),
        default="loop",
        help="config of `diffugen loop` (default), `diffugen learn` or `diffugen generate`",
    )
    parser.add_argument("--name", metavar="NAME", help="name of the run (default: the object's class)")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="A,B",
        help="the object's class (default: the name of the folder), and common ones next to it",
    )
    parser.add_argument(
        "--model", type=model_name, metavar="MODEL", help=f"hub id, pipeline folder or .safetensors file; {TOY_HELP}"
    )
    parser.add_argument("--weights", type=path_option, metavar="FILE", help="YOLOv8-seg weights to start from (loop)")
    parser.add_argument("--word", metavar="WORD", help="a word of the model for something similar (loop, concept)")
    parser.add_argument("--out", type=path_option, metavar="FILE", help="the config (default: NAME.json)")
    parser.add_argument(
        "--example", nargs=2, metavar=("NAME", "DIR"), help="write an example, such as demo, and what it needs to DIR"
    )
    parser.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> None:
    if arguments.example is not None:
        from diffugen.cli.examples import write_example

        path = write_example(arguments.example[0], Path(arguments.example[1]))
        _print_next(path, COMMANDS["loop" if _is_loop(path) else "dataset"])
        return
    from diffugen.outputs import check_output_file

    request = _request(arguments)
    out = arguments.out or Path(f"{request.name}.json")
    if out.exists():
        raise UserError(f"{out} exists; remove it, or give another file with --out")
    inputs = [path for path in (arguments.photos, arguments.weights) if path is not None]
    check_output_file(out, inputs, is_own=lambda _: False)
    check_output_file(
        out.parent / f"{arguments.kind}.schema.json", inputs, option="the config's schema", is_own=_is_schema
    )
    _write(arguments.kind, request, out)
    for note in _notes(arguments, request):
        print(f"note: {note}")
    _print_next(out, COMMANDS[arguments.kind])


def _is_schema(path: Path) -> bool:
    """Whether a file is a schema that `init` wrote."""
    from diffugen.files import read_json

    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"$schema", "title", "properties"} <= set(values)


def _is_loop(path: Path) -> bool:
    from diffugen.config.loader import read_config

    return "detector" in read_config(path)


def _print_next(path: Path, command: str) -> None:
    print(f"config: {path}\nnext:   diffugen {command} {shlex.quote(str(path))}")


def _request(arguments: argparse.Namespace) -> Request:
    from diffugen.cli.model_facts import model_facts
    from diffugen.cli.new_config import Request, with_common_classes

    kind, photos = arguments.kind, arguments.photos
    if photos is None and kind != "dataset":
        raise UserError("give the folder of photos of the object: diffugen init PHOTOS ...")
    classes = [name for given in arguments.classes for name in split_names(given)]
    if not classes and photos is not None:
        classes = [photos.resolve().name.replace("_", "-")]
    if not classes:
        raise UserError("give the classes of the dataset with --class car,tent")
    if arguments.model is None:
        what = "a hub id, pipeline folder or .safetensors file"
        raise UserError(f"give the diffusion model with --model: {what}; {TOY_HELP}")
    toy = toy_weights() if arguments.model == "toy" else None
    model = arguments.model if toy is None else str(toy / "pipeline")
    facts = model_facts(model)
    if arguments.word is not None:
        _check_word(arguments.word, Path(model), facts)
    weights = _weights(arguments.weights, toy) if kind == "loop" else None
    known = _classes_of(weights) if weights is not None else []
    return Request(
        name=arguments.name or classes[0].replace(" ", "-"),
        classes=with_common_classes(classes, known, facts) if kind == "loop" else classes,
        photos=photos,
        model=model,
        facts=facts,
        weights=weights,
        weight_classes=known,
        word=arguments.word,
        folder=(arguments.out or Path("x")).parent,
    )


def _check_word(given: str, model: Path, facts: ModelFacts) -> None:
    """Check that a concept can start from a word, where the model's tokenizer is at hand.

    Raises:
        UserError: the model must spell it.
    """
    if all(map(facts.knows, given.split())) or not (model / "tokenizer").is_dir():
        return
    from transformers import CLIPTokenizer  # a second of imports

    from diffugen.diffusion.tokens import is_spelled

    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
    if spelled := [word for word in given.split() if is_spelled(word, tokenizer)]:
        raise UserError(f"--word: {spelled[0]!r} is not a word of the model; give one that is, or leave it out")


def _weights(given: Path | None, toy: Path | None) -> Path:
    """The detector to start from: the one given, that of the toy model, or the only one found."""
    if given is not None:
        return given
    if toy is not None:
        return toy / "detector.safetensors"
    found = sorted(path for folder in (Path(), Path("weights")) for path in folder.glob("*-seg.pt"))
    if len(found) == 1:
        return found[0]
    others = f" (found: {', '.join(map(str, found))})" if found else ""
    raise UserError(
        f"give the detector to start from with --weights{others}: YOLOv8-seg weights such as yolov8n-seg.pt"
    )


def _classes_of(weights: Path) -> list[str]:
    """The classes that a detector knows."""
    if weights.suffix == ".safetensors" and weights.is_file():  # without seconds of imports
        import json

        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(weights, framework="numpy") as file:
                stored = json.loads((file.metadata() or {}).get("names", "null"))
        except (SafetensorError, OSError, ValueError):
            stored = None
        if isinstance(stored, list) and stored:
            return [str(name) for name in stored]
    from diffugen.detector.model import load_detector

    return list(load_detector(weights).names.values())


def _write(kind: str, request: Request, out: Path) -> None:
    """Write the config and its JSON schema, once it is known to be valid."""
    from diffugen.cli import new_config
    from diffugen.config.loader import uncommented, validate
    from diffugen.config.schema import schema_of_kind
    from diffugen.files import write_json, write_text
    from diffugen.registered import CONFIGS, registered

    build = {
        "loop": new_config.loop_config,
        "concept": new_config.concept_config,
        "dataset": new_config.dataset_config,
    }[kind]
    schema = f"{kind}.schema.json"
    values = {"$schema": schema, **build(request)}
    validate(uncommented(values), registered(CONFIGS)[COMMANDS[kind]].load(), out.parent, where=f"config {out}")
    write_json(out.parent / schema, schema_of_kind(kind))
    write_text(out, new_config.as_text(values))


def _notes_on_words(given: str | None, request: Request, *, has_concept: bool) -> list[str]:
    """Where the concept starts, and which words the model must spell, so that it may not know what they mean."""
    from diffugen.prompts.prompt import words_of

    notes = []
    if given is None and has_concept:
        word = request.start_word
        begins = f"starts from the word {word!r}" if word else "has no start word yet: the loop will choose one"
        notes.append(f"the concept {begins}; if you know one for something similar to the object, give it with --word")
    drawn = request.classes[1:] if has_concept else request.classes
    words = " ".join([given or "", *(words_of(name, {}) for name in drawn)]).split()
    if unknown := [word for word in dict.fromkeys(words) if not request.facts.knows(word)]:
        notes.append(f"the model has no word {', '.join(map(repr, unknown))}; it may draw something else")
    return notes


def _notes(arguments: argparse.Namespace, request: Request) -> Sequence[str]:
    """What the user may want to look at."""
    notes = []
    if request.photos is not None:
        from diffugen.images import list_images

        if (count := len(list_images(request.photos, captions=True))) < 4:
            notes.append(f"few photos ({count}); with 6 outlines were best (docs/concepts.md)")
    notes += _notes_on_words(arguments.word, request, has_concept=arguments.kind != "dataset")
    if arguments.kind == "loop" and (Path("runs") / request.name).exists():
        notes.append(
            f"runs/{request.name} is there already; a run of its own needs another --name, or --out of the loop"
        )
    if request.facts.kind is None:
        notes.append(f"{request.model} is not on this machine; it is fetched when the config is used")
    return notes
