"""How time and memory grow with the number of samples, and what workers gain.

python benchmarks/scale.py --json FILE [--sizes 2000,20000,200000] [--images 64]

Samples are fabricated: small images (hard links of a few), a mask each. Every operation runs in a process of its own.
Seconds are those of the CPU, user and system, as the clock tells more about a machine's other work. A growth exponent e
between the last two sizes means that the figure grows with size ** e: 1 is linear, 0 flat.

Workers are measured side by side: images per second by one and by two of one thread each, models loaded already. What
OpenMP threads cost that wait actively is measured beside a busy process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from bootstrap.row import Row
from bootstrap.run_folder import RoundFolder, RunFolder
from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.files import link_file, link_tree, write_json
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Decision, Sample, iter_samples, write_samples

CONFIG = Path(__file__).parents[1] / "configs/generate.json"
CLASSES = ["car", "tent"]
NUM_IMAGES = 50
SIDE = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--sizes", default="2000,20000,200000", help="numbers of samples; empty: none")
    parser.add_argument("--images", type=int, default=64, help="images that each number of workers generates; 0: none")
    parser.add_argument("--run", nargs=3, metavar=("OPERATION", "FOLDER", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, folder, size = options.run
        print(json.dumps(measured(OPERATIONS[name], Path(folder), int(size))))
        return
    sizes = [int(size) for size in options.sizes.split(",") if size]
    found: dict[str, Any] = {"num_cpus": os.cpu_count(), "load": os.getloadavg()[0], "growth": growth(sizes)}
    if options.images:
        found |= {"workers": workers(options.images), "waiting": waiting()}
    if options.json is not None:
        write_json(options.json, found)


def growth(sizes: list[int]) -> dict[str, Any]:
    """CPU seconds and peak memory of every operation at every size, and their exponents."""
    rows: dict[str, Any] = {name: [] for name in OPERATIONS}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name in OPERATIONS:
                command = [sys.executable, __file__, "--run", name, folder, str(size)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                rows[name].append({"size": size, **json.loads(done.stdout.splitlines()[-1])})
    for name, row in rows.items():
        exponents = {key: exponent(row, key) for key in ("cpu_seconds", "peak_mb")} if len(row) > 1 else {}
        rows[name] = {"sizes": row, "exponents": exponents}
        text = ", ".join(f"{one['size']}: {one['cpu_seconds']:.2f} s, {one['peak_mb']:.0f} MB" for one in row)
        print(f"{name:<16}{text}  {exponents}")
    return rows


def exponent(row: list[dict[str, float]], key: str) -> float:
    """How a figure grows with the size, between the last two."""
    before, last = row[-2:]
    return round(math.log(last[key] / before[key]) / math.log(last["size"] / before["size"]), 3)


def measured(operation: Callable[[Path, int], None], folder: Path, size: int) -> dict[str, float]:
    """What an operation takes in this process, imports of its libraries apart."""
    before = time.process_time()
    operation(folder, size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_seconds": round(time.process_time() - before, 3), "peak_mb": round(peak, 1)}


def fabricated(folder: Path, size: int) -> Iterator[Sample]:
    """Labelled samples of a round; their images are hard links of a few."""
    rng = np.random.default_rng(0)
    for number in range(min(size, NUM_IMAGES)):
        write_png(folder / "base" / f"{number}.png", rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    (folder / "images").mkdir(exist_ok=True)
    heat = np.full((6, 6), 0.1, np.float32)
    ImageAttention((Heatmap("red car", heat),), heat).save(folder / "heatmaps" / "all.npz")
    masks = np.zeros((1, SIDE, SIDE), bool)
    masks[0, 10:30, 8:40] = True
    encoded = Instances.from_masks(masks, [0], [0.9]).to_json()
    for number in range(size):
        name = f"{number:06d}"
        image = folder / "images" / f"{name}.png"
        os.link(folder / "base" / f"{number % NUM_IMAGES}.png", image)
        phrase = ObjectPhrase("red car", "car")
        yield Sample(
            name,
            image,
            Prompt(f"a photo of a red car by {('day', 'night')[number % 2]}", (phrase,)),
            seed=number,
            task="txt2img",
            split="train" if number % 5 else "",
            encoded=encoded,
            labeler="attention",
            reason="" if number % 5 else "no car",
            provenance={"model": "toy", "batch": number // 4},
            heatmap_path=folder / "heatmaps" / "all.npz",
            decision=Decision(False, None, {"attention": encoded}),
        )


def write(folder: Path, size: int) -> None:
    """Write samples.jsonl."""
    write_samples(folder / "samples.jsonl", fabricated(folder, size))


def read(folder: Path, size: int) -> None:
    """Read it, sample by sample."""
    assert sum(1 for _ in iter_samples(folder / "samples.jsonl")) == size


def balance(folder: Path, size: int) -> None:
    """Kept rates by attribute."""
    from bootstrap.measures.balance import balance as measure

    measure(iter_samples(folder / "samples.jsonl"))


def near_duplicates(folder: Path, size: int) -> None:
    """Find near-duplicates among hashes, a tenth of which are near an earlier one."""
    from diffugen.datasets.near_duplicates import NUM_BITS, SeenImages

    rng, seen, last = np.random.default_rng(0), SeenImages(), 0
    found = 0
    for number in range(size):
        bits = int.from_bytes(rng.bytes(NUM_BITS // 8), "big") if number % 10 else last ^ 0b10110
        found += seen.twin_of_hash(str(number), bits) is not None
        last = bits
    assert found >= size // 10 - 1


def dataset(folder: Path, size: int) -> None:
    """Write the kept samples as a dataset."""
    from diffugen.datasets.folder import write_dataset

    kept = (sample for sample in iter_samples(folder / "samples.jsonl") if sample.kept)
    write_dataset(folder / "dataset", kept, CLASSES)


def export(folder: Path, size: int) -> None:
    """Convert the dataset to tar shards."""
    from diffugen.datasets.export import export_dataset

    export_dataset(folder / "dataset", folder / "shards", layout="webdataset")


def evaluation(folder: Path, size: int) -> None:
    """Compare labels with themselves."""
    from diffugen.evaluation.metrics import label_quality

    pairs = ((sample.instances, sample.instances) for sample in iter_samples(folder / "samples.jsonl"))
    label_quality(pairs)


def report(folder: Path, size: int) -> None:
    """Choose and draw the gallery."""
    from bootstrap.report.pictures import cards

    round_folder = folder / "round_00"
    round_folder.mkdir(exist_ok=True)
    link_file(folder / "samples.jsonl", round_folder / "samples.jsonl")
    for name in ("images", "heatmaps"):
        (round_folder / name).symlink_to(folder / name)
    assert cards(RoundFolder(round_folder))


def plan(folder: Path, size: int) -> None:
    """Plan the images of a config, in shards."""
    from diffugen.config.dataset import DatasetConfig
    from diffugen.config.loader import load_config
    from diffugen.executor.base import shards_of
    from diffugen.generation.generate_dataset import make_plan

    config = load_config(CONFIG, DatasetConfig, [f"num_images={size}"])
    assert shards_of(make_plan(config, folder / "plan").batches(8), 64)


def finish(folder: Path, size: int) -> None:
    """Complete a round that has three files of its own for each sample, and publish its dataset."""
    from bootstrap.checksums import complete_round
    from bootstrap.published import publish

    run = RunFolder(folder / "run")
    for name in ("images", "heatmaps", "masks", "weights"):
        (run.round(0).path / name).mkdir(parents=True)
    for sample in iter_samples(folder / "samples.jsonl"):
        assert sample.heatmap_path is not None
        for name, source in (
            ("images", sample.image_path),
            ("masks", sample.image_path),
            ("heatmaps", sample.heatmap_path),
        ):
            shutil.copyfile(source, run.round(0).path / name / f"{sample.name}{source.suffix}")
    run.round(0).weights.write_bytes(b"weights")
    link_file(folder / "samples.jsonl", run.round(0).samples)
    link_tree(folder / "dataset", run.round(0).dataset)
    complete_round(run.round(0), cast(Row, {"round": 0, "promoted": True}))
    publish(run)


def resume(folder: Path, size: int) -> None:
    """Check this run as a loop does that starts again."""
    from bootstrap.checksums import check_rounds
    from bootstrap.published import check_published, publish

    run = RunFolder(folder / "run")
    check_published(run)
    check_rounds(run)
    publish(run)


OPERATIONS: dict[str, Callable[[Path, int], None]] = {
    one.__name__: one
    for one in (write, read, plan, balance, near_duplicates, dataset, export, evaluation, report, finish, resume)
}


def workers(num_images: int) -> dict[str, float]:
    """Images per second of one and of two workers of one thread each, by the toy pipeline; and CPU seconds per image,
    which tell what two would gain on free cores where other work takes them."""
    (rate, cost), (rate_2, cost_2) = (_worked(number, num_images) for number in (1, 2))
    found = {
        "images_per_second_1": rate,
        "images_per_second_2": rate_2,
        "gain": rate_2 / rate,
        "cpu_seconds_per_image_1": cost,
        "cpu_seconds_per_image_2": cost_2,
        "gain_on_free_cores": 2 * cost / cost_2,
        "load": os.getloadavg()[0],
    }
    print(f"two workers make {found['gain']:.2f} times as much, on free cores {found['gain_on_free_cores']:.2f}")
    return found


def _worked(number: int, num_images: int) -> tuple[float, float]:
    """What the workers report once all of them are at work, and their CPU seconds per image, with loading."""
    from diffugen.config.dataset import DatasetConfig
    from diffugen.config.loader import load_config
    from diffugen.generation.generate_dataset import generate_dataset
    from diffugen.progress import rates_go_to

    seen: dict[str, float] = {}
    num_images *= number
    settings = [f"num_images={num_images}", f"executor.num_workers={number}", "executor.shard_size=8"]
    config = load_config(CONFIG, DatasetConfig, settings)
    before = _seconds_of_children()
    with tempfile.TemporaryDirectory() as folder, rates_go_to(lambda _, rates: seen.update(rates)):
        generate_dataset(config, Path(folder) / "out")
    rate, cost = sum(seen.values()), (_seconds_of_children() - before) / num_images
    print(f"{number} worker(s) of one thread: {rate:.2f} images/s, {cost:.2f} CPU seconds per image")
    return rate, cost


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_STEPS = """
import sys, time, torch
torch.set_num_threads(2)
layers = [torch.nn.Conv2d(3 if not n else 24, 24, 3, padding=1) for n in range(8)]
net, x = torch.nn.Sequential(*layers), torch.randn(8, 3, 48, 48)
net(x).mean().backward()
start = time.perf_counter()
for _ in range(10):
    net(x).mean().backward()
print((time.perf_counter() - start) / 10)
"""


def waiting() -> dict[str, float]:
    """Seconds of a training step by two threads beside a busy process, by how threads wait."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    found = {}
    try:
        for name, variables in {"active": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}.items():
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
            done = subprocess.run(
                [sys.executable, "-c", _STEPS], env=kept | variables, check=True, stdout=subprocess.PIPE, text=True
            )
            found[name] = float(done.stdout)
            print(f"a training step with 2 threads waiting in the {name} way: {found[name]:.3f} s")
    finally:
        busy.kill()
    return found


if __name__ == "__main__":
    main()
