"""The config of `diffugen generate`: one labelled dataset made by one model, by one of three tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from diffugen.config.errors import SettingError, require
from diffugen.config.executor import ExecutorConfig
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import OBJECT, SLOT, SOURCE, class_mistakes, reserved_slots
from diffugen.config.settings import (
    AttentionLabelConfig,
    ClassMap,
    DatasetPromptsConfig,
    GenerateConfig,
    ModelConfig,
    PromptsConfig,
)


class Txt2ImgConfig(Strict):
    """Images from prompts alone."""

    kind: Literal["txt2img"] = Field(default="txt2img", description="the task")


class VariationTask(Strict):
    """What tasks share that start from images which are there."""

    words: ClassMap = Field(
        default={}, description="class -> the words for it, where no prompt of the source says (default: its name)"
    )

    @property
    def class_words(self) -> dict[str, str]:
        """The first of each class's words."""
        return {name: words[0] for name, words in self.words.items() if words}


class Img2ImgTask(VariationTask):
    """Images drawn over others: another time, weather or place. All objects are labelled again."""

    kind: Literal["img2img"] = Field(description="the task")
    strength: float = Field(default=0.6, gt=0, le=1, description="share of the denoising steps; 1 ignores the source")


class InpaintTask(VariationTask):
    """Images in which one labelled object is repainted; every pixel and label elsewhere stays."""

    kind: Literal["inpaint"] = Field(description="the task")
    strength: float = Field(default=1.0, gt=0, le=1, description="share of the denoising steps; lower keeps the shape")
    target: Literal["every", "largest", "random"] = Field(
        default="every", description="one image per labelled object, or for one object of each source image"
    )
    only: tuple[str, ...] = Field(default=(), description="classes whose objects are repainted (default: all)")
    min_score: float = Field(default=0.2, ge=0, le=1, description="labels that score lower are not repainted, but stay")
    replace: ClassMap = Field(
        default={}, description="class -> classes of prompts.objects that may take its place (default: any)"
    )
    margin_fraction: float = Field(
        default=0.02, ge=0, le=0.5, description="how far the mask is grown, over sqrt(H * W); other objects stay out"
    )


class SourceConfig(Strict):
    """Where a task finds the images that it starts from."""

    source: ConfigPath = Field(
        description="a dataset folder (data.yaml), the output of `diffugen generate`, or a folder of photos"
    )


class Img2ImgConfig(Img2ImgTask, SourceConfig):
    """Img2img of a source. Images of another size than generate's are scaled to cover it, and the middle is cut out."""


class InpaintConfig(InpaintTask, SourceConfig):
    """Inpainting of a source, which must be labelled. Its images keep their size, cut to multiples of 8 pixels."""


TaskConfig = Annotated[Txt2ImgConfig | Img2ImgConfig | InpaintConfig, Field(discriminator="kind")]


class LabelModelConfig(Strict):
    """A trained network that labels the images instead of attention, where one knows the objects."""

    renamed: ClassVar[Mapping[str, str]] = {
        "model_classes": "is now 'label_model.class_map': class -> the network's names for it"
    }

    kind: Literal["yolo", "mask2former"] = Field(default="yolo", description="an ultralytics segmenter, or Mask2Former")
    weights: HubPath = Field(
        description="checkpoint (.pt, .safetensors, .onnx); Mask2Former: folder in transformers' format, or hub id"
    )
    class_map: ClassMap = Field(
        default={},
        description="class -> the network's names for it (default: the same name); where classes share a name, an "
        "object is what the image's prompt asks for",
    )
    score_threshold: float | None = Field(
        default=None, gt=0, le=1, description="lower instances are dropped (default: 0.25; Mask2Former: 0.5)"
    )
    imgsz: int | None = Field(
        default=None, ge=32, le=4096, multiple_of=32, description="size that a YOLO sees, pixels (default: as trained)"
    )


class DatasetLabelConfig(AttentionLabelConfig):
    """How heatmaps become the labels of a dataset."""

    score_threshold: float = Field(default=0.0, ge=0, le=1, description="lower instances are dropped")


MAX_IMAGES = 10_000_000

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class DatasetConfig(Strict):
    """One labelled dataset made by one model: the config of `diffugen generate`."""

    model: ModelConfig = Field(description="the diffusion model")
    task: TaskConfig = Field(default=Txt2ImgConfig(), description="what images are made from")
    prompts: DatasetPromptsConfig = Field(description="what is generated")
    generate: GenerateConfig = Field(default=GenerateConfig(), description="how images are generated")
    label: DatasetLabelConfig = Field(default=DatasetLabelConfig(), description="how heatmaps become instances")
    label_model: LabelModelConfig | None = Field(default=None, description="a network that labels instead of attention")
    classes: tuple[str, ...] = Field(
        default=(),
        description="class names in the order of their ids (default: the source's, then those of prompts.objects)",
    )
    num_images: int | None = Field(default=None, ge=1, le=MAX_IMAGES, description="images to generate")
    num_images_per_class: dict[str, PositiveInt] = Field(
        default={}, description="class -> images that ask for it, instead of num_images (txt2img, mode 'sampled')"
    )
    num_images_per_prompt: int | None = Field(
        default=None,
        ge=1,
        le=MAX_IMAGES,
        description="images of every combination, instead of num_images (mode 'cartesian')",
    )
    seed: Seed = Field(default=0, description="all randomness follows from it")
    seed_range: tuple[Seed, Seed] | None = Field(
        default=None, description="least and greatest seed of an image (default: 0 and 2**32 - 1)"
    )
    drop_duplicates: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of a perceptual hash's bits in which an image may differ from an earlier one and still "
        "be left out as its near-duplicate (0.06 is a good one); null: keep all",
    )
    val_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="share of the validation split; source datasets keep their own splits"
    )
    executor: ExecutorConfig | None = Field(
        default=None, description="several workers (null: this process works alone)"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> DatasetConfig:
        require(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[SettingError]:
        yield from class_mistakes(self.classes, self.prompts.objects, all_drawn=False)
        yield from _count_mistakes(self)
        if self.seed_range is not None and self.seed_range[0] > self.seed_range[1]:
            yield SettingError("seed_range", f"is {list(self.seed_range)}; give the least seed first")
        yield from task_mistakes("prompts.templates", self.task, self.prompts.texts, self.prompts)
        if isinstance(self.task, InpaintTask):
            yield from _replacement_mistakes(self.task, self.prompts)
        if not isinstance(self.task, Txt2ImgConfig):
            yield from strength_mistakes("task.strength", self.task.strength, self.generate)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes listed, else those that prompts ask for; a source's own come in `variations.class_names`."""
        return self.classes or self.prompts.class_names


def _count_mistakes(config: DatasetConfig) -> Iterator[SettingError]:
    """How many images: one setting says it, and fits the mode and the task."""
    given = [name for name in ("num_images", "num_images_per_class", "num_images_per_prompt") if getattr(config, name)]
    if len(given) > 1:
        yield SettingError(given[1], f"is given together with {given[0]}; keep one of them")
    cartesian = config.prompts.every_combination
    if config.num_images_per_prompt and not cartesian:
        yield SettingError("num_images_per_prompt", 'needs prompts.mode "cartesian"; set it, or give num_images')
    if config.num_images_per_class:
        yield from _class_count_mistakes(config, cartesian)
    if not given and not cartesian and isinstance(config.task, Txt2ImgConfig):
        yield SettingError("num_images", "is missing; give it or num_images_per_class")


def _class_count_mistakes(config: DatasetConfig, cartesian: bool) -> Iterator[SettingError]:
    if cartesian or not isinstance(config.task, Txt2ImgConfig):
        yield SettingError(
            "num_images_per_class", 'is for task "txt2img" with prompts.mode "sampled"; give num_images instead'
        )
    drawn = config.prompts.class_names
    for name in config.num_images_per_class:
        if name not in drawn:
            yield SettingError(
                f"num_images_per_class.{name}", f"is no class of prompts.objects, which has {', '.join(drawn)}"
            )
    if missing := [name for name in drawn if name not in config.num_images_per_class]:
        yield SettingError("num_images_per_class", f"lacks {missing[0]!r}, which prompts.objects asks for; add it")
    for number, text in enumerate(config.prompts.texts):
        if not any(slot in config.prompts.objects for slot in SLOT.findall(text)):
            yield SettingError(
                f"prompts.templates.{number}",
                "has no object slot, so num_images_per_class says not how often it comes; remove it or give num_images",
            )


def task_mistakes(
    key: str, task: Txt2ImgConfig | Img2ImgTask | InpaintTask, templates: Iterable[str], prompts: PromptsConfig
) -> Iterator[SettingError]:
    """What breaks the rules between a task and its templates: they may describe a source image as far as there is one.

    Args:
        key: of the list of templates.
        task: what they are for.
        templates: their texts.
        prompts: what fills their slots.
    """
    for number, text in enumerate(templates):
        slots = SLOT.findall(text)
        reserved = reserved_slots(text, prompts.objects, prompts.attributes)
        num_objects = sum(slot in prompts.objects for slot in slots) + reserved.count(OBJECT)
        wrong = ""
        if isinstance(task, Txt2ImgConfig) and reserved:
            wrong = (
                f"has the slot {{{reserved[0]}}}, which describes a source image; set task, or define the slot in "
                "prompts.attributes"
            )
        if isinstance(task, Img2ImgTask) and SOURCE in reserved and (num_objects or reserved.count(SOURCE) > 1):
            wrong = "has {source} beside an object slot or a second {source}; keep {source} alone"
        if isinstance(task, Img2ImgTask) and OBJECT in reserved:
            wrong = "has the slot {object}, which is for inpainting; use {source}"
        if isinstance(task, InpaintTask) and (num_objects != 1 or SOURCE in reserved):
            wrong = "must ask for the one object that is painted: by {object}, which stays, or by one object slot"
        if wrong:
            yield SettingError(f"{key}.{number}", wrong)


def strength_mistakes(key: str, strength: float, settings: GenerateConfig) -> Iterator[SettingError]:
    """Whether a task has no denoising step; `key` is that of its strength."""
    steps = settings.num_inference_steps
    if int(steps * strength) < 1:
        yield SettingError(key, f"is {strength}, not one of {steps} denoising steps; raise one of them")


def _replacement_mistakes(task: InpaintTask, prompts: PromptsConfig) -> Iterator[SettingError]:
    for name, others in task.replace.items():
        if not others:
            yield SettingError(f"task.replace.{name}", "is empty; name classes of prompts.objects, or remove it")
        for other in others:
            if other not in prompts.class_names:
                yield SettingError(
                    f"task.replace.{name}", f"names {other!r}, for which prompts.objects has no phrases; add some"
                )
