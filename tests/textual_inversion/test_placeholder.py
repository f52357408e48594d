"""The placeholder in a tokenizer and a text encoder."""

import pytest
import torch

from diffugen.errors import UserError
from textual_inversion.placeholder import add_placeholder, check_tokens, initializer_ids, limit_norm, merge_placeholder


def test_rows_start_at_the_initializer(tiny_pipeline, make_concept) -> None:
    before = tiny_pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    (car,) = initializer_ids("car", tiny_pipeline.tokenizer)
    placeholder = add_placeholder(tiny_pipeline, make_concept(num_vectors=3))
    assert placeholder.tokens == ("<grand-piano>", "<grand-piano>_1", "<grand-piano>_2")
    assert torch.equal(placeholder.rows[0], before[car].expand(3, -1))
    assert placeholder.mean_norms == (pytest.approx(before.norm(dim=1).mean().item()),)
    assert [p.shape for p in tiny_pipeline.text_encoder.parameters() if p.requires_grad] == [placeholder.rows[0].shape]


def test_several_words_start_at_their_mean(tiny_pipeline, make_concept) -> None:
    weight = tiny_pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    ids = initializer_ids("red car", tiny_pipeline.tokenizer)
    placeholder = add_placeholder(tiny_pipeline, make_concept(initializer_word="red car"))
    assert len(ids) >= 2 and torch.allclose(placeholder.rows[0][0], weight[ids].mean(dim=0))


def test_prompts_expand_to_the_placeholder_ids(tiny_pipeline, make_concept) -> None:
    placeholder = add_placeholder(tiny_pipeline, make_concept(num_vectors=2))
    text = tiny_pipeline.maybe_convert_prompt("a <grand-piano> car", tiny_pipeline.tokenizer)
    ids = tiny_pipeline.tokenizer.convert_tokens_to_ids(list(placeholder.tokens))
    assert tiny_pipeline.tokenizer(text).input_ids[2:4] == ids


def test_merging_leaves_the_other_rows_bit_identical(tiny_pipeline, make_concept) -> None:
    before = tiny_pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    placeholder = add_placeholder(tiny_pipeline, make_concept(num_vectors=2))
    with torch.no_grad():
        placeholder.rows[0].add_(1.0)
    merge_placeholder(tiny_pipeline)
    after = tiny_pipeline.text_encoder.get_input_embeddings().weight
    ids = tiny_pipeline.tokenizer.convert_tokens_to_ids(list(placeholder.tokens))
    assert torch.equal(after[ids], placeholder.rows[0])
    others = [index for index in range(len(before)) if index not in ids]
    assert torch.equal(after[others], before[others])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initializer_word": "\u2603"}, "initializer_word: '\u2603' is not a word"),
        ({"initializer_word": "car wqzx"}, "initializer_word: 'wqzx' is not a word"),
        ({"initializer_word": "paino"}, "near: piano"),
        ({"initializer_word": "  "}, "initializer_word is blank"),
        ({"num_vectors": 32, "templates": ["a photo of a {}" + " and a car" * 30]}, "concept.templates"),
    ],
)
def test_words_are_checked(tiny_pipeline, make_concept, settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_tokens(make_concept(**settings), tiny_pipeline)


def test_a_known_token_is_refused(tiny_pipeline, make_concept) -> None:
    tiny_pipeline.tokenizer.add_tokens(["<grand-piano>_1"])
    check_tokens(make_concept(), tiny_pipeline)
    with pytest.raises(UserError, match=r"<grand-piano>_1.* already"):
        check_tokens(make_concept(num_vectors=2), tiny_pipeline)


def test_limit_norm() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    limit_norm(rows, 1.0)
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
