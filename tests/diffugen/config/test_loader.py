"""The strict loader: every mistake gives one sentence with the setting, its value and the remedy."""

from __future__ import annotations

import json
import os
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError, model_validator

from diffugen.config.dataset import DatasetConfig
from diffugen.config.errors import SettingError
from diffugen.config.loader import ConfigPath, HubPath, Strict, load_config, validate
from diffugen.config.settings import DetectorConfig, GenerateConfig, ModelConfig
from diffugen.errors import UserError, UserErrors

ROOT = Path(__file__).parents[3]


class Part(Strict):
    """One item of a list."""

    width: int = Field(default=3, ge=1)
    photo: ConfigPath | None = Field(default=None, description="a photo; of any size")
    model: HubPath | None = Field(default=None, description="a photo; of any size")

    @model_validator(mode="after")
    def _rule(self) -> Part:
        if self.width == 13:
            raise SettingError("width", "is 13, which brings bad luck; take another")
        return self


class Whole(Strict):
    """A config of several levels."""

    name: str
    parts: tuple[Part, ...] = ()
    main: Part = Part()
    ratio: float = 1.0
    note: str | None = None


def write(folder: Path, values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def dataset(**changes: Any) -> dict[str, Any]:
    """A valid DatasetConfig with changes at its top level."""
    prompts = {
        "templates": [{"text": "a {rare} beside a {common} {place}"}, {"text": "a {common}", "weight": 0.5}],
        "objects": {
            "rare": {"piano": ["<piano>", "grand piano"]},
            "common": {"car": ["car"], "tent": ["tent"]},
        },
        "attributes": {"place": ["in a city", ""]},
    }
    return {"model": {"path": "some/hub-id"}, "prompts": prompts, "num_images": 8} | changes


def test_a_good_config_loads(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, dataset()), DatasetConfig)
    assert config.generate == GenerateConfig()
    assert config.class_names == ("piano", "car", "tent")
    assert config.prompts.templates[1].weight == 0.5


def test_the_resolved_config_loads_to_itself(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, dataset()), DatasetConfig)
    again = load_config(write(tmp_path, config.model_dump(mode="json")), DatasetConfig)
    assert again == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "x"}, "^unknown setting 'nmae'; did you mean 'name'\\?$"),
        ({"name": "x", "main": {"widht": 2}}, "^unknown setting 'main.widht'; did you mean 'width'\\?$"),
        (
            {"name": "x", "parts": [{}, {"foto": "y"}]},
            "^unknown setting 'parts.1.foto'; did you mean 'photo'\\?$",
        ),
        ({"name": "x", "width": 3}, "^unknown setting 'width'; did you mean 'main.width'\\?$"),
        ({"name": "x", "qqq": 3}, "^unknown setting 'qqq'; remove it, the known names are name, parts, main"),
        ({"parts": []}, "^setting 'name' is missing; add it to the config$"),
        ({"name": 3}, "^setting 'name' is 3, but must be a text$"),
        ({"name": None}, "^setting 'name' is null, but must be a text$"),
        (
            {"name": "x", "main": {"width": "many"}},
            "^setting 'main.width' is \"many\", but must be a whole number$",
        ),
        ({"name": "x", "main": {"width": 2.5}}, "^setting 'main.width' is 2.5, but must be a whole number$"),
        ({"name": "x", "main": {"width": True}}, "^setting 'main.width' is true, but must be a number$"),
        ({"name": "x", "ratio": False}, "^setting 'ratio' is false, but must be a number$"),
        ({"name": "x", "ratio": "1e999"}, "^setting 'ratio' is \"1e999\", but must be a finite number$"),
        ({"name": "x", "main": 3}, "^setting 'main' is 3, but must be a group of settings$"),
        ({"name": "x", "parts": {"a": 1}}, "^setting 'parts' is .*, but must be a list$"),
        (
            {"name": "x", "parts": [{"width": 0}]},
            "^setting 'parts.0.width' is 0, but must be at least 1$",
        ),
        (
            {"name": "x", "parts": [{"width": 13}]},
            "^setting 'parts.0.width' is 13, which brings bad luck; take another$",
        ),
    ],
)
def test_mistakes_name_the_setting_and_the_remedy(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, values), Whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{",
            r"config.json is not valid JSON \(line 1, column 2: a quoted name is missing, or a comma too many\)",
        ),
        ("", r"config.json is not valid JSON \(it is empty\)"),
        ("// nothing else", r"config.json is not valid JSON \(it is empty\)"),
        ("[1, 2]", "config.json must be a JSON object, not a list"),
        ('"x"', "config.json must be a JSON object, not a text"),
        ("null", "config.json must be a JSON object, not null"),
        ("3", "config.json must be a JSON object, not a number"),
        ('{"name": "x", "name": "y"}', "setting 'name' stands twice"),
        ('{"name": "x", "main": {"width": 1, "width": 2}}', "setting 'width' stands twice"),
        ('{"name": "x", "ratio": NaN}', "setting 'ratio' is NaN, but must be a finite number"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, text), Whole)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.json does not exist; give the path of a JSON config"):
        load_config(tmp_path / "none.json", Whole)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match=r"pipe\.json is no regular file; give the path of a JSON config"):
        load_config(tmp_path / "pipe.json", DatasetConfig)
    with pytest.raises(UserError, match="is a folder; give the path of a JSON config"):
        load_config(tmp_path, Whole)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UserError, match="binary.json is UTF-16 text; save it as UTF-8"):
        load_config(tmp_path / "binary.json", Whole)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes('{"name": "Flügel"}'.encode(encoding))
    with pytest.raises(UserError, match=rf"config.json is {encoding[:6].upper()} text; save it as UTF-8"):
        load_config(tmp_path / "config.json", Whole)


def test_a_mark_at_the_beginning_is_passed_over_and_latin_1_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes('{"name": "Flügel"} // Flügel'.encode("utf-8-sig"))
    assert load_config(tmp_path / "config.json", Whole).name == "Flügel"
    (tmp_path / "config.json").write_bytes('{\n"name": "Flügel"}'.encode("latin-1"))
    with pytest.raises(UserError, match="config.json is not UTF-8 text .line 2, maybe Latin-1.*; save it as UTF-8"):
        load_config(tmp_path / "config.json", Whole)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty; fill in: a photo, or leave it out"),
        (" \t", "is empty; fill in: a photo, or leave it out"),
        ("a\0b", r'is "a.u0000b", which has a NUL character; give another path'),
        ("\ud800", r'is "(.ud800)", which has half a character .*; give another path'),
        ("x" * 300, r"is .*, which is no path .File name too long.; give another( path)?"),
        ("x/" * 5000, r"is .*, which is no path .File name too long.; give another( path)?"),
        ("~nobody-has-this-name/x", ".*, which is no path .*; give another( path)?"),
    ],
)
@pytest.mark.parametrize("kind", ["photo", "model"])
def test_paths_that_cannot_be_are_named(kind: str, path: str, reason: str, tmp_path: Path) -> None:
    for values in ({"main": {kind: path}}, {"parts": [{kind: path}]}):
        with pytest.raises(UserError, match=rf"^setting '(main|parts.0).{kind}' {reason}$"):
            load_config(write(tmp_path, {"name": "x"} | values), Whole)
    with pytest.raises(UserError, match=f"setting 'main.{kind}' {reason}"):
        load_config(write(tmp_path, {"name": "x"}), Whole, [f"main.{kind}={path}"])


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, {"name": ["x" * 5000]}), Whole)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_comments_and_the_name_of_the_schema_are_passed_over(tmp_path: Path) -> None:
    text = '{"$schema": "x.json", "//": "a", "// name": "b", "//": "c", "name": "x", "main": {"//": [1], "width": 4}}'
    config = load_config(write(tmp_path, text), Whole)
    assert (config.name, config.main.width) == ("x", 4)
    text = '{ // a "comment"\n "name": "x // y", /* "name": 3,\n */ "main": {"width": 4} // end\n}'
    config = load_config(write(tmp_path, text), Whole)
    assert (config.name, config.main.width) == ("x // y", 4)
    with pytest.raises(UserError, match="line 3"):
        load_config(write(tmp_path, '{"name": "x", // y\n /* a\n b */ }'), Whole)
    with pytest.raises(UserError, match="unknown setting 'main.\\$schema'"):
        load_config(write(tmp_path, {"name": "x", "main": {"$schema": "y"}}), Whole)


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    values = {"nmae": "x", "main": {"width": 0, "photo": 3, "colour": 1}, "parts": [{}, {"width": 13}], "ratio": True}
    path = write(tmp_path, values)
    with pytest.raises(UserErrors) as caught:
        load_config(path, Whole)
    assert str(caught.value).split("\n  ")[0] == f"config {path} has 6 mistakes:"
    assert caught.value.mistakes == (
        "setting 'ratio' is true, but must be a number",
        "unknown setting 'main.colour'; remove it, the known names are width, photo, model",
        "unknown setting 'nmae'; did you mean 'name'?",
        "setting 'parts.1.width' is 13, which brings bad luck; take another",
        "setting 'main.width' is 0, but must be at least 1",
        "setting 'main.photo' is 3, but must be a path",
    )


def test_rules_are_checked_although_something_else_is_wrong() -> None:
    values = dataset(classes=["piano", "piano"], generate={"heihgt": 3, "num_inference_steps": "many"}, val_fraction=2)
    with pytest.raises(UserErrors) as caught:
        validate(values, DatasetConfig)
    assert [mistake.split(" ")[1 if "unknown" not in mistake else 2] for mistake in caught.value.mistakes] == [
        "'generate.heihgt';",
        "'generate.num_inference_steps'",
        "'val_fraction'",
        "'classes'",
        "'classes'",
    ]


def test_settings_of_earlier_versions_are_named_with_what_became_of_them() -> None:
    generate = {"attention_factors": [1], "attend": "tokens"}
    model = {"path": "m", "vae_slicing": True}
    with pytest.raises(UserErrors) as caught:
        validate(dataset(model=model, generate=generate), DatasetConfig)
    assert caught.value.mistakes == (
        "setting 'model.vae_slicing' is now 'model.low_memory'",
        "setting 'generate.attention_factors' is now 'generate.attention.factors'",
        "setting 'generate.attend' is now 'generate.attention.attend'",
    )


def test_paths_are_relative_to_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    path = write(tmp_path / "configs", {"name": "x", "main": {"photo": "../photos/a.png"}})
    monkeypatch.chdir(tmp_path)
    config = load_config(path.relative_to(tmp_path), Whole)
    assert config.main.photo == (tmp_path / "photos" / "a.png").resolve()


def test_absolute_and_home_paths_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    values = {"name": "x", "main": {"photo": str(tmp_path / "a.png")}, "parts": [{"photo": "~/b.png"}]}
    config = load_config(write(tmp_path, values), Whole)
    assert config.main.photo == tmp_path / "a.png"
    assert config.parts[0].photo == tmp_path / "home" / "b.png"


def test_without_a_folder_paths_are_as_given() -> None:
    assert validate({"photo": "a/b.png"}, Part).photo == Path("a/b.png")


def test_a_models_path_is_local_where_it_exists_or_looks_local(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    paths = {
        "mine": str(tmp_path / "mine"),
        "./gone": str(tmp_path / "gone"),
        "x.safetensors": str(tmp_path / "x.safetensors"),
        "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    }
    for given, expected in paths.items():
        assert validate({"path": given}, ModelConfig, folder=tmp_path).path == expected


def test_configs_cannot_be_changed() -> None:
    config = GenerateConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.height = 3  # type: ignore[misc]


def test_the_schema_describes_every_setting() -> None:
    schema = DatasetConfig.model_json_schema()
    for definition in schema["$defs"].values():
        for name, setting in definition.get("properties", {}).items():
            assert setting.get("description"), name


def test_one_gpu_may_be_given_as_its_number() -> None:
    assert DetectorConfig(device=1) == DetectorConfig(device="1")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        DetectorConfig(device=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "schema", "command"),
    [
        ("demo.json", "diffugen.config.dataset:DatasetConfig", "loop"),
        ("demo.json", "textual_inversion.config:ConceptRunConfig", "loop"),
        ("generate.json", "train_loop:RunConfig", "generate"),
        ("generate.json", "textual_inversion.config:ConceptRunConfig", "generate"),
        ("concept", "train_loop:RunConfig", "learn"),
        ("concept", "diffugen.config.dataset:DatasetConfig", "learn"),
        ("first", "train_loop:RunConfig", "generate"),
    ],
)
def test_a_config_of_another_command_is_recognised(tmp_path: Path, name: str, schema: str, command: str) -> None:
    own = {
        "concept": {"model": {"path": "x"}, "concept": {"photos": "x", "placeholder_token": "<x>"}},
        "first": {"dataset_name": "x", "txt2img": {"stable_diffusion_model": "x"}},
    }
    path = write(tmp_path, own[name]) if name in own else ROOT / "configs" / name
    with pytest.raises(UserError, match=f"run `diffugen {command} CONFIG`"):
        load_config(path, pkgutil.resolve_name(schema))
