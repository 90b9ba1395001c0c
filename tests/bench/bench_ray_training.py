"""What Ray's own processes cost while a run trains: at most 0.1 CPU seconds a second.

Launch: python tests/bench/bench_ray_training.py [--seconds 60] [SETTING VALUE ...]

Starts `drpo train --preset shapes` without evaluations, and measures every process below it for some seconds. Ray's own
are all but the driver, the workers that train, the gateway and the rewards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bench_way import cpu_s
from hardware import describe_hardware

from drpo.training.metrics import read_metrics

OURS = ("TrainWorker", "ServeReplica")


def name_of(process: psutil.Process) -> str:
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0]
    return next((Path(word).name for word in words if word.endswith((".py", "raylet", "gcs_server"))), process.name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments, settings = parser.parse_known_args()
    print(describe_hardware(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--run.folder", folder, "--run.name", "bench", "--evaluation.enabled", "false"]
        options += ["--training.max_seconds", str(arguments.seconds + 120.0), "--training.steps", "100000", *settings]
        command = [sys.executable, "-m", "drpo", "train", "--preset", "shapes", *options]
        driver = psutil.Process(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid)
        try:
            metrics = Path(folder) / "bench" / "metrics.jsonl"
            while len(read_metrics(metrics)) < 3:
                assert driver.status() != psutil.STATUS_ZOMBIE, "the run did not start"
                time.sleep(0.5)
            family = {process: cpu_s([process]) for process in driver.children(recursive=True)}
            steps, started = len(read_metrics(metrics)), time.perf_counter()
            time.sleep(arguments.seconds)
            seconds = time.perf_counter() - started
            shares = {process: (cpu_s([process]) - before) / seconds for process, before in family.items()}
            names = {process: name_of(process) for process in family if process.is_running()}
            steps = len(read_metrics(metrics)) - steps
        finally:
            driver.terminate()
            driver.wait(120)
    rays = {process: shares[process] for process, name in names.items() if not any(one in name for one in OURS)}
    print(f"{steps} steps in {seconds:.0f} s; Ray's own processes take {sum(rays.values()):.3f} CPU seconds a second:")
    for process, share in sorted(rays.items(), key=lambda item: -item[1]):
        print(f"  {share:.3f} {names[process]}")
    print(f"workers, gateway and rewards take {sum(shares[one] for one in names if one not in rays):.3f}")


if __name__ == "__main__":
    main()
