"""Claim: on a Linux CPU, letting glibc keep freed memory makes training steps faster.

    python benchmarks/training/allocator.py --model mobilenet_v2 --batch 16

Both settings run in turn in fresh processes (a setting cannot be taken back); the ratio is of the medians.
"""

import argparse
import statistics
import subprocess
import sys
import time


def measure(model: str, batch: int, steps: int, keep: bool) -> float:
    import torch

    from taxonet.networks import create_model
    from taxonet.training.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    network = create_model(model, num_classes=10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", choices=["yes", "no"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.keep:
        print(measure(options.model, options.batch, options.steps, options.keep == "yes"))
        return
    seconds: dict[str, list[float]] = {"no": [], "yes": []}
    for _ in range(options.rounds):
        for keep, measured in seconds.items():
            command = [sys.executable, __file__, "--model", options.model, "--batch", str(options.batch)]
            command += ["--steps", str(options.steps), "--keep", keep]
            measured.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    given_back, kept = (statistics.median(values) for values in seconds.values())
    print(f"{options.model}, batch {options.batch}: median step {given_back:.3f} s as installed, {kept:.3f} s with")
    print(f"freed memory kept: ratio {kept / given_back:.2f} (each the median of {options.rounds} processes)")


if __name__ == "__main__":
    main()
