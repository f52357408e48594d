"""Whether a Ray cluster makes the same dataset as this machine alone, whoever dies meanwhile.

python benchmarks/cluster.py --json FILE [--images 400] [--steps 1]

`diffugen generate` makes images of 128x128 pixels by the toy pipeline: by one local worker, by a cluster of three nodes
with a CPU each (all on this machine), and by the cluster while a worker, a whole node or the driver is killed with
SIGKILL once a third of the images is there; the driver is then started again. All files must be the same each time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from diffugen.files import write_json

ROOT = Path(__file__).parents[1]
OPTIONS: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--images", type=int, default=400, help="how many images a run makes")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps")
    options = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = str(ROOT)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=OPTIONS)
    nodes = [cluster.add_node(**OPTIONS) for _ in range(2)]
    ray = ["executor.kind=ray", f"executor.address={cluster.address}"]
    disturbances: dict[str, tuple[list[str], Disturb | None]] = {
        "one local worker": (["executor.num_workers=1"], None),
        "cluster": (ray, None),
        "cluster, a worker killed": (ray, lambda _: worker_of(nodes[0]).kill()),
        "cluster, the driver killed": (ray, lambda driver: driver.kill()),
        "cluster, a node lost": (ray, lambda _: cluster.remove_node(nodes[1], allow_graceful=False)),
    }
    found: dict[str, Any] = {"images": options.images, "load": os.getloadavg()[0]}
    try:
        for name, (executor, disturb) in disturbances.items():
            with tempfile.TemporaryDirectory() as folder:
                generate = Generate(Path(folder), options.images, [*executor, f"num_images={options.images}"])
                generate.settings.append(f"generate.num_inference_steps={options.steps}")
                seconds = generate.run(disturb)
                found[name] = {"seconds": round(seconds, 1), "hash": hash_of(generate.out)}
            print(f"{name}: {seconds:.0f} s, {found[name]['hash'][:16]}", flush=True)
    finally:
        cluster.shutdown()
    same = len({found[name]["hash"] for name in disturbances}) == 1
    if options.json is not None:
        write_json(options.json, found | {"same": same})
    if not same:
        raise SystemExit("the files are NOT the same")
    print("all files are the same")


Disturb = Callable[[subprocess.Popen[bytes]], Any]
"""Kills something, given the driver."""


class Generate:
    """`diffugen generate` into a folder."""

    def __init__(self, folder: Path, num_images: int, settings: list[str]) -> None:
        self.out, self.num_images, self.settings = folder / "out", num_images, settings

    def run(self, disturb: Disturb | None) -> float:
        """Generate all images, with a disturbance after a third of them; returns the seconds."""
        start = time.perf_counter()
        driver = self._start()
        if disturb is not None:
            while len(list(self.out.glob("images/*.png"))) < self.num_images / 3:
                time.sleep(0.05)
                if driver.poll() is not None:
                    raise RuntimeError("the run ended before it was disturbed")
            disturb(driver)
        if driver.wait() < 0:
            driver = self._start()
        if driver.wait():
            raise RuntimeError(f"diffugen generate ended with exit code {driver.returncode}")
        return time.perf_counter() - start

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "diffugen", "generate", str(ROOT / "configs/generate.json")]
        command += ["--out", str(self.out), "--set", *self.settings]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def worker_of(node: Any) -> psutil.Process:
    """The process of a node's worker."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return next(child for child in raylet.children() if child.cmdline()[0].startswith("ray::RayWorker"))


def hash_of(out: Path) -> str:
    """Of all names and bytes, except those of the config, which says who worked."""
    hashed = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in ("config.json", ".lock"):
            hashed.update(f"{path.relative_to(out)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


if __name__ == "__main__":
    main()
