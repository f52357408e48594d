"""Where the words of a phrase stand among the tokens of a prompt."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from diffugen.diffusion.prompt_encoding import expand_placeholders, fragment_positions, parse_weights, without_weights
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt

WORD_END = "</w>"
"""CLIP's BPE marks the last piece of every word with this."""

FUNCTION_WORDS = frozenset(
    "a an the and or but of in on at by to from with without near beside behind under over above below between "
    "among around through across along into onto inside outside next front as is are its it this that these "
    "those there some".split()
)
"""Words that hold a prompt together but show nothing themselves."""


def object_token_indices(tokenizer: Any, prompt: Prompt) -> list[list[int]]:
    """Positions of the tokens of every object phrase of a prompt; no token belongs to two of them.

    The words are compared as token sequences that begin and end with whole words, so "sky" is not found in
    "skyscraper", and "<piano>" is found whatever the number of its vectors. Letter case and weights do not matter.

    Objects are looked for in the order of the text, each after the one before it, so that in "a car beside a
    red car" the phrases "car" and "red car", and in "a car and a car" the two "car"s, get their own words.
    Objects that are not listed in that order are looked for anywhere, the longest first.

    Returns:
        One list of rising positions per entry of `prompt.objects`, among the tokens that the UNet attends to, the
        start token being position 0.

    Raises:
        UserError: a phrase is not in the prompt as often as it is listed.
    """
    tokens = prompt_tokens(tokenizer, prompt.text)
    candidates = [list(_matches(tokenizer, tokens, phrase.text)) for phrase in prompt.objects]
    for phrase, matches in zip(prompt.objects, candidates, strict=True):
        if not matches:
            raise _missing_phrase(prompt.text, phrase.text)
    spans = _spans_in_order(candidates) or _spans_longest_first(candidates)
    if spans is None:
        phrases = [phrase.text for phrase in prompt.objects]
        raise UserError(
            f"prompt {prompt.text!r} has no separate words for each of its object phrases {phrases}; "
            "write every object as often as it is listed"
        )
    return _positions(tokenizer, prompt.text, spans)


def content_token_indices(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Positions of the tokens that mean something, outside all object phrases: "night" in "a car at night".

    Articles, prepositions and the like, punctuation, start and end are left out.
    """
    tokens = prompt_tokens(tokenizer, prompt.text)
    taken = {index for span in object_token_indices(tokenizer, prompt) for index in span}
    words = []
    for word in _words(tokenizer, tokens):
        text = "".join(tokens[index] for index in word).replace(WORD_END, "")
        if _has_content(text):
            words.append(word)
    return [index for span in _positions(tokenizer, prompt.text, words) for index in span if index not in taken]


def class_prompt(prompt: Prompt) -> list[str]:
    """The words to attend instead of the prompt's own: each of its phrases, then its other content words together.

    A phrase that is listed several times stands there once.
    """
    phrases = list(dict.fromkeys(without_weights(phrase.text) for phrase in prompt.objects))
    taken = {word.lower() for phrase in phrases for word in phrase.split()}
    words = (word.strip(",.;:!?()\"'") for word in without_weights(prompt.text).split())
    rest = [word for word in words if _has_content(word.lower()) and word.lower() not in taken]
    return [*phrases, " ".join(dict.fromkeys(rest))]


def prompt_tokens(tokenizer: Any, text: str) -> list[str]:
    """The tokens of a prompt between start and end, weights left out, placeholders of several vectors expanded."""
    fragments = (expand_placeholders(tokenizer, tokenizer.tokenize(words)) for words, _ in parse_weights(text))
    return list(itertools.chain.from_iterable(fragments))


def check_prompt(pipe: Pipeline, prompt: Prompt, attend: str = "tokens") -> None:
    """Check that a pipeline can read the prompt, and that every object phrase is in it.

    Cheap: call it before anything is generated.

    Args:
        pipe: the pipeline, or anything with its tokenizers.
        prompt: the prompt.
        attend: with "class_prompt" the phrases need not be in the prompt.

    Raises:
        UserError: a phrase is not in the prompt, or the weights of the prompt or its negative are not understood.
    """
    parse_weights(prompt.negative_text)
    for tokenizer in tokenizers_of(pipe):
        if attend == "tokens":
            object_token_indices(tokenizer, prompt)
        elif not all(prompt_tokens(tokenizer, phrase.text) for phrase in prompt.objects):
            raise UserError(f"an object phrase of the prompt {prompt.text!r} has no words; write some")


def is_spelled(word: str, tokenizer: Any) -> bool:
    """Whether a tokenizer must spell a word in pieces of less than two letters on average: then they mean nothing.

    What stands between hyphens and digits counts by itself; single letters and numbers ("4x4", "F-16") are no spelling.
    """
    if word in tokenizer.added_tokens_encoder:
        return False
    runs = [run for run in re.findall(r"[^\W\d_]+", word) if len(run) > 1]
    for run in runs if runs or word.isascii() else [word]:
        pieces = tokenizer(run, add_special_tokens=False).input_ids
        if not pieces or tokenizer.unk_token_id in pieces or (len(pieces) > 1 and len(run) < 2 * len(pieces)):
            return True
    return False


def tokenizers_of(pipe: Pipeline) -> list[Any]:
    """The tokenizers of a pipeline: one, or two for SDXL, which place the words alike."""
    found = (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2"))
    return [tokenizer for tokenizer in found if tokenizer is not None]


def _words(tokenizer: Any, tokens: list[str]) -> Iterator[range]:
    """Spans of the whole words."""
    start = 0
    for index, token in enumerate(tokens):
        if token.endswith(WORD_END) or token in tokenizer.added_tokens_encoder:
            yield range(start, index + 1)
            start = index + 1


def _matches(tokenizer: Any, tokens: list[str], phrase: str) -> Iterator[range]:
    """Spans of `tokens` that are the phrase's words; they do not overlap."""
    wanted = prompt_tokens(tokenizer, phrase)
    added = tokenizer.added_tokens_encoder
    start = 0
    while wanted and start + len(wanted) <= len(tokens):
        starts_word = start == 0 or tokens[start - 1].endswith(WORD_END) or tokens[start - 1] in added
        if starts_word and tokens[start : start + len(wanted)] == wanted:
            yield range(start, start + len(wanted))
            start += len(wanted)
        else:
            start += 1


def _spans_in_order(candidates: list[list[range]]) -> list[range] | None:
    """The first span of each object after the object before it, or None if some object has none."""
    spans: list[range] = []
    for matches in candidates:
        end = spans[-1].stop if spans else 0
        following = [span for span in matches if span.start >= end]
        if not following:
            return None
        spans.append(following[0])
    return spans


def _spans_longest_first(candidates: list[list[range]]) -> list[range] | None:
    """The first free span of each object, long phrases choosing before short ones, or None."""
    spans: dict[int, range] = {}
    taken: set[int] = set()
    for index in sorted(range(len(candidates)), key=lambda index: -len(candidates[index][0])):
        free = [span for span in candidates[index] if taken.isdisjoint(span)]
        if not free:
            return None
        spans[index] = free[0]
        taken.update(free[0])
    return [spans[index] for index in range(len(candidates))]


def _positions(tokenizer: Any, text: str, spans: Iterable[range]) -> list[list[int]]:
    """Spans of the prompt's tokens -> positions among what the UNet attends to."""
    by_fragment = fragment_positions(tokenizer, [words for words, _ in parse_weights(text)])
    positions = list(itertools.chain.from_iterable(by_fragment))
    return [[positions[index] for index in span] for span in spans]


def _has_content(word: str) -> bool:
    return word not in FUNCTION_WORDS and any(letter.isalnum() for letter in word)


def _missing_phrase(text: str, phrase: str) -> UserError:
    return UserError(
        f"object phrase {phrase!r} is not in the prompt {text!r}; "
        "write its words into the template exactly as they are listed"
    )
