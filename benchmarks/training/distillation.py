"""Question: does a small network learn more from labels and a teacher's answers than from the labels alone?

    python benchmarks/training/distillation.py --data photos --image-size 64 --epochs 12 --seeds 0 1 2 --plot curves.svg

The teacher is trained here first (`--recipe features` on the pretrained network) on the same training pictures as the
students, so that it brings no pictures of its own; the validation pictures are nobody's. Both settings see the same
pictures in the same order; a difference counts when it is larger than its standard error over the seeds twice.
"""

import argparse
import tempfile
from pathlib import Path

from balance import plot, report, run, skewed_copy

import taxonet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="densenet_bc_22_12", help="the student")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--teacher-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--ratio", type=float, default=1.0, help="largest class over smallest")
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plot", help="an SVG or PNG with the curves")
    options = parser.parse_args()
    options.weights, options.recipe = "none", "scratch"
    found: dict[str, list[dict]] = {"labels": [], "labels, teacher": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        print(f"training pictures by class: {skewed_copy(options.data, data, options.ratio)}", flush=True)
        teacher = taxonet.train(
            data,
            model=options.teacher,
            recipe="features",
            image_size=options.teacher_size,
            out=Path(folder) / "teacher",
        )
        print(f"teacher: validation top-1 {teacher.validation.metrics.top1:.3f}", flush=True)
        taught = {
            "teacher": str(teacher.bundle),
            "distill_weight": options.weight,
            "distill_temperature": options.temperature,
        }
        for seed in options.seeds:
            for name, values in (("labels", {}), ("labels, teacher", taught)):
                found[name].append(run(data, Path(folder) / f"{name}-{seed}", options, seed, values))
    report(found, "labels", "macro")
    if options.plot:
        plot(options.plot, found)


if __name__ == "__main__":
    main()
