"""Nothing asks the network: neither a loop with its concept, nor generate, nor predict."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import network
import pytest
from loop_run import RecordedLoop

from bootstrap.run_folder import RunFolder
from diffugen.cli.main import main

ROOT = Path(__file__).parents[1]


def test_look_ups_are_counted_and_fail() -> None:
    with network.asked() as hosts:
        for ask in (socket.gethostbyname, lambda host: socket.getaddrinfo(host, 443)):
            with pytest.raises(OSError, match="no network in tests"):
                ask("example.org")
        with socket.socket() as connection, pytest.raises(OSError, match="no network in tests"):
            connection.connect(("8.8.8.8", 443))
    assert hosts == ["example.org", "example.org", "8.8.8.8"]


def test_a_loop_and_its_concept_ask_no_host(recorded_loop: RecordedLoop) -> None:
    assert (recorded_loop.run.concept / "learned_embeds.safetensors").is_file() and recorded_loop.run.report.is_file()
    assert recorded_loop.hosts == []


def test_generate_and_predict_ask_no_host(finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path) -> None:
    loop = json.loads((loop_inputs / "config.json").read_text())
    loop["prompts"]["objects"]["rare"]["piano"] = ["tent"]
    config = {name: loop[name] for name in ("seed", "classes", "model", "prompts", "generate", "label")}
    (tmp_path / "generate.json").write_text(json.dumps(config | {"num_images": 2}))
    weights = shutil.copy(finished_loop.best, tmp_path / "weights.pt")
    with network.asked() as hosts:
        assert main(["generate", str(tmp_path / "generate.json"), "--out", str(tmp_path / "generated")]) in (0, 2)
        images = tmp_path / "generated" / "images"
        assert len(list(images.iterdir())) == 2
        command = ["predict", str(images), "--weights", str(weights), "--device", "cpu"]
        assert main([*command, "--out", str(tmp_path / "found")]) == 0
    assert hosts == []


def test_telemetry_is_off_before_any_library_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    code = "import os, sys, diffugen; print('onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "False 1\n", done.stderr
