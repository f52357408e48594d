"""Embedding files: every format in, one format out, and no code run on the way."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXT_WIDTH

from diffugen.diffusion.embeddings import load_embedding, read_embedding, write_embedding
from diffugen.errors import UserError

ROWS = torch.arange(15, dtype=torch.float32).reshape(3, 5)


def test_diffusers_format_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "learned_embeds.safetensors"
    write_embedding(path, "<grand-piano>", [torch.nn.Parameter(ROWS.half())])
    ((token, (rows,)),) = read_embedding(path).items()
    assert token == "<grand-piano>" and torch.equal(rows, ROWS) and rows.dtype == torch.float32
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_sdxl_has_a_row_set_per_text_encoder(tmp_path: Path) -> None:
    path = tmp_path / "learned_embeds.safetensors"
    wide = torch.ones(3, 7)
    write_embedding(path, "<grand-piano>", [ROWS, wide])
    assert set(load_file(path)) == {"clip_l", "clip_g"}  # as diffusers' own examples name them
    ((token, (clip_l, clip_g)),) = read_embedding(path).items()
    assert token == "<grand-piano>" and torch.equal(clip_l, ROWS) and torch.equal(clip_g, wide)
    save_file({"clip_l": ROWS, "clip_g": wide}, tmp_path / "piano.safetensors")  # somebody else's, without the token
    assert list(read_embedding(tmp_path / "piano.safetensors")) == ["piano"]


def test_files_may_hold_several_tokens(tmp_path: Path) -> None:
    save_file({"<one>": ROWS, "<two>": ROWS[:1].clone()}, tmp_path / "both.safetensors")
    assert {token: len(rows) for token, (rows,) in read_embedding(tmp_path / "both.safetensors").items()} == {
        "<one>": 3,
        "<two>": 1,
    }


@pytest.mark.parametrize(
    ("name", "content", "token"),
    [
        ("piano.pt", {"<grand-piano>": ROWS[0]}, "<grand-piano>"),
        ("piano.bin", {"<grand-piano>": ROWS.half()}, "<grand-piano>"),
        ("piano.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}, "name": "pno"}, "pno"),
        ("piano.pt", {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})}, "piano"),
    ],
    ids=["1-D", "half", "A1111", "A1111 with a ParameterDict"],
)
def test_torch_formats(tmp_path: Path, name: str, content: dict, token: str) -> None:
    torch.save(content, tmp_path / name)
    ((read_token, (rows,)),) = read_embedding(tmp_path / name).items()
    assert read_token == token
    expected = ROWS[:1] if name == "piano.pt" and token == "<grand-piano>" else ROWS
    assert torch.equal(rows, expected) and rows.dtype == torch.float32 and not rows.requires_grad


def test_a1111_safetensors_is_called_after_its_file(tmp_path: Path) -> None:
    save_file({"emb_params": ROWS}, tmp_path / "piano.safetensors")
    assert torch.equal(read_embedding(tmp_path / "piano.safetensors")["piano"][0], ROWS)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_code_in_a_file_is_refused(tmp_path: Path, write) -> None:
    write({"<grand-piano>": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        read_embedding(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", None, r"a\.pt does not exist"),
        ("a.safetensors", b"not tensors", "not a readable safetensors file"),
        ("a.pt", b"not tensors", r"a\.pt"),
        ("a.pt", b"", "not a readable torch file"),
        ("a.pt", ["<token>"], "holds a list"),
        ("a.pt", {}, "is empty"),
        ("a.pt", {"<token>": 3}, "no float tensor"),
        ("a.pt", {"<token>": torch.ones(2, 3, 4)}, "no float tensor"),
        ("a.pt", {"<token>": torch.full((1, 4), torch.nan)}, "non-finite"),
        ("a.pt", {"clip_l": ROWS}, "has clip_l; one for SDXL has clip_l and clip_g"),
        ("a.pt", {"clip_l": ROWS, "clip_g": ROWS[:1]}, "3 vectors for clip_l and 1 for clip_g"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_embedding(tmp_path / name)


@pytest.mark.parametrize(
    ("token", "rows", "sentence"),
    [
        ("<Piano>", 2, "does not read '<Piano>'"),
        ("", 1, "names its token ''"),
        (" ", 1, "names its token ' '"),
        ("<a\n>", 1, "names its token"),
        ("<piano>", 0, "nothing but zeros"),
    ],
)
def test_one_that_no_prompt_would_read_is_refused(
    token: str, rows: int, sentence: str, tiny_pipeline: Any, tmp_path: Path
) -> None:
    values = torch.ones(rows, TEXT_WIDTH) if rows else torch.zeros(1, TEXT_WIDTH)
    save_file({token: values}, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=sentence):
        load_embedding(tiny_pipeline, tmp_path / "one.safetensors")
