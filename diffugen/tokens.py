"""Where the words of a phrase stand among the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffugen.config import ConfigError
from diffugen.prompts import Prompt

WORD_END = "</w>"
"""CLIP's BPE marks the last piece of every word with this."""

NUM_LEADING_TOKENS = 1
"""An encoded CLIP prompt begins with one start token."""

FUNCTION_WORDS = frozenset(
    "a an the and or but of in on at by to from with without near beside behind under over above below between "
    "among around through across along into onto inside outside next front as is are its it this that these "
    "those there some".split()
)
"""Words that hold a prompt together but show nothing themselves."""


def phrase_token_indices(tokenizer: Any, text: str, phrase: str, occurrence: int = 0) -> list[int]:
    """Positions of a phrase's tokens in the encoded prompt.

    The words are compared as token sequences that begin and end with whole words, so "sky" is not found in
    "skyscraper", and "<piano>" is found whatever the number of its vectors.

    Args:
        tokenizer: a CLIP tokenizer, with the placeholders of learned concepts added.
        text: the prompt as the user wrote it; placeholders of several vectors are expanded here.
        phrase: consecutive words of it; letter case does not matter.
        occurrence: which one, counted from 0, where the phrase stands in the prompt several times.

    Returns:
        Consecutive positions, the start token being position 0.

    Raises:
        ConfigError: the phrase (or that occurrence) is not in the prompt, or the prompt would be cut.
    """
    tokens = prompt_tokens(tokenizer, text)
    matches = list(_matches(tokenizer, tokens, phrase))
    if occurrence >= len(matches):
        raise _missing_phrase(text, phrase, len(matches))
    return _positions(matches[occurrence])


def object_token_indices(tokenizer: Any, prompt: Prompt) -> list[list[int]]:
    """Positions of the tokens of every object phrase of a prompt; no token belongs to two of them.

    Objects are looked for in the order of the text, each after the one before it, so that in "a car beside a
    red car" the phrases "car" and "red car", and in "a car and a car" the two "car"s, get their own words.
    Objects that are not listed in that order are looked for anywhere, the longest first.

    Returns:
        One list of consecutive positions per entry of `prompt.objects`; the start token is position 0.

    Raises:
        ConfigError: a phrase is not in the prompt as often as it is listed, or the prompt would be cut.
    """
    tokens = prompt_tokens(tokenizer, prompt.text)
    candidates = [list(_matches(tokenizer, tokens, phrase.text)) for phrase in prompt.objects]
    for phrase, matches in zip(prompt.objects, candidates, strict=True):
        if not matches:
            raise _missing_phrase(prompt.text, phrase.text, 0)
    spans = _spans_in_order(candidates) or _spans_longest_first(candidates)
    if spans is None:
        phrases = [phrase.text for phrase in prompt.objects]
        raise ConfigError(
            f"prompt {prompt.text!r} has no separate words for each of its object phrases {phrases}; "
            "write every object as often as it is listed"
        )
    return [_positions(span) for span in spans]


def content_token_indices(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Positions of the tokens that mean something, outside all object phrases: "night" in "a car at night".

    Articles, prepositions and the like, punctuation, start and end are left out.
    """
    tokens = prompt_tokens(tokenizer, prompt.text)
    taken = {index for span in object_token_indices(tokenizer, prompt) for index in span}
    content = []
    for word in _words(tokenizer, tokens):
        text = "".join(tokens[index] for index in word).replace(WORD_END, "")
        if text not in FUNCTION_WORDS and any(letter.isalnum() for letter in text):
            content += [index for index in _positions(word) if index not in taken]
    return content


def prompt_tokens(tokenizer: Any, text: str) -> list[str]:
    """The tokens of a prompt between the start and the end token, placeholders of several vectors expanded.

    Raises:
        ConfigError: the prompt is longer than the text encoder reads, so its end would be cut.
    """
    tokens = _expand(tokenizer, tokenizer.tokenize(text))
    limit = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if len(tokens) > limit:
        raise ConfigError(
            f"prompt {text!r} has {len(tokens)} tokens, but the text encoder reads only {limit} and would "
            "cut the rest; shorten the prompt"
        )
    return tokens


def check_prompt(pipe: Any, prompt: Prompt) -> None:
    """Check that a pipeline can read the whole prompt, and that every object phrase is in it.

    Cheap: call it before anything is generated.

    Raises:
        ConfigError: a phrase is not in the prompt, or the prompt or its negative would be cut.
    """
    for tokenizer in tokenizers_of(pipe):
        object_token_indices(tokenizer, prompt)
        prompt_tokens(tokenizer, prompt.negative_text)


def tokenizers_of(pipe: Any) -> list[Any]:
    """The tokenizers of a pipeline: one, or two for SDXL, which place the words alike."""
    found = (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2"))
    return [tokenizer for tokenizer in found if tokenizer is not None]


def _expand(tokenizer: Any, tokens: list[str]) -> list[str]:
    """Replace `<x>` by `<x> <x>_1 <x>_2 ...` as far as the tokenizer knows them, as diffusers does."""
    added = tokenizer.added_tokens_encoder
    expanded = []
    for token in tokens:
        expanded.append(token)
        vector = 1
        while token in added and f"{token}_{vector}" in added:
            expanded.append(f"{token}_{vector}")
            vector += 1
    return expanded


def _words(tokenizer: Any, tokens: list[str]) -> Iterator[range]:
    """Spans of the whole words."""
    start = 0
    for index, token in enumerate(tokens):
        if token.endswith(WORD_END) or token in tokenizer.added_tokens_encoder:
            yield range(start, index + 1)
            start = index + 1


def _matches(tokenizer: Any, tokens: list[str], phrase: str) -> Iterator[range]:
    """Spans of `tokens` that are the phrase's words; they do not overlap."""
    wanted = _expand(tokenizer, tokenizer.tokenize(phrase))
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


def _positions(span: range) -> list[int]:
    return [index + NUM_LEADING_TOKENS for index in span]


def _missing_phrase(text: str, phrase: str, count: int) -> ConfigError:
    found = f"only {count} time{'s' if count > 1 else ''}" if count else "not"
    return ConfigError(
        f"object phrase {phrase!r} is {found} in the prompt {text!r}; "
        "write its words into the template exactly as they are listed"
    )
