"""Embedding files: every format in, one format out, and no code run on the way."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffugen.config import ConfigError
from diffugen.embeddings import read_embedding, write_embedding

ROWS = torch.arange(15, dtype=torch.float32).reshape(3, 5)


def test_diffusers_format_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "learned_embeds.safetensors"
    write_embedding(path, {"<grand-piano>": torch.nn.Parameter(ROWS), "<tent>": ROWS[:1].half()})
    read = read_embedding(path)
    assert list(read) == ["<grand-piano>", "<tent>"]
    assert torch.equal(read["<grand-piano>"], ROWS) and read["<tent>"].dtype == torch.float32
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


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
    ((read_token, rows),) = read_embedding(tmp_path / name).items()
    assert read_token == token
    expected = ROWS[:1] if name == "piano.pt" and token == "<grand-piano>" else ROWS
    assert torch.equal(rows, expected) and rows.dtype == torch.float32 and not rows.requires_grad


def test_a1111_safetensors_is_called_after_its_file(tmp_path: Path) -> None:
    save_file({"emb_params": ROWS}, tmp_path / "piano.safetensors")
    assert torch.equal(read_embedding(tmp_path / "piano.safetensors")["piano"], ROWS)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_code_in_a_file_is_refused(tmp_path: Path, write) -> None:
    write({"<grand-piano>": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ConfigError, match=r"evil\.pt"):
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
        ("a.pt", {"clip_l": ROWS, "clip_g": ROWS}, "two text encoders"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        read_embedding(tmp_path / name)
