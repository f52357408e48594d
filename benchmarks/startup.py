"""What the commands take apart from their work, as multiples of `import torch` measured side by side.

python benchmarks/startup.py --json FILE [--repeats 5]

CPU seconds are those of a process and its children, user and system: on a busy machine the clock says more about the
neighbours than about the command. Every repeat runs all commands one after the other, `import torch` among them. The
medians are reported.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffugen.files import write_json

ROOT = Path(__file__).parents[1]
BASELINE = "import torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(commands(Path(folder)), options.repeats)
    unit = statistics.median(cpu for cpu, _ in times[BASELINE])
    rows = []
    for name, pairs in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append({"command": name, "cpu_seconds": cpu, "wall_seconds": wall, "times_import_torch": cpu / unit})
        print(f"{name:<48}{cpu:6.2f} s CPU{wall:7.2f} s on the clock{cpu / unit:6.2f} x {BASELINE}")
    if options.json is not None:
        write_json(options.json, {"repeats": options.repeats, "num_cpus": os.cpu_count(), "rows": rows})


def commands(folder: Path) -> dict[str, tuple[list[str], int]]:
    """The command lines by name, each with the exit code that it should have."""
    photos = ROOT / "configs" / "demo" / "grand_piano"
    photo, loop, generate = str(min(photos.iterdir())), str(ROOT / "configs/demo.json"), "configs/generate.json"
    diffugen, detector = ["-m", "diffugen"], str(ROOT / "diffugen/toyworld/weights/detector.safetensors")
    predict = [*diffugen, "predict", "--weights", detector]
    return {
        BASELINE: (["-c", BASELINE], 0),
        "diffugen --help": ([*diffugen, "--help"], 0),
        "diffugen loop --help": ([*diffugen, "loop", "--help"], 0),
        "loop, unknown setting in the config": ([*diffugen, "loop", loop, "--set", "rounds.num_round=2"], 2),
        "loop, a file that is missing": ([*diffugen, "loop", loop, "--set", "detector.base_weights=gone.pt"], 2),
        "generate, unknown setting in the config": ([*diffugen, "generate", generate, "--set", "num_image=2"], 2),
        "generate, given a config of a loop": ([*diffugen, "generate", loop], 2),
        "predict, 1 image": ([*predict, photo, "--out", str(folder / "one")], 0),
        "predict, 6 images": ([*predict, str(photos), "--out", str(folder / "six")], 0),
    }


def measure(lines: dict[str, tuple[list[str], int]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """CPU seconds and seconds on the clock of every run of every command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for _ in range(repeats):
        for name, (arguments, code) in lines.items():
            before, start = _cpu_of_children(), time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
            )
            times[name].append((_cpu_of_children() - before, time.perf_counter() - start))
            if done.returncode != code:
                raise SystemExit(f"{name}: exit code {done.returncode} instead of {code}\n{done.stderr}")
    return times


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
