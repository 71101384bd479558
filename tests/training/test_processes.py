"""Several processes do one piece of work: the same figures, the same network, one voice, nothing lost."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.training.conftest import COLOURS, QUICK, write_colours
from tests.training.forking import Forks

from taxonet.evaluation.spread import answers, mine
from taxonet.networks import create_model
from taxonet.processes import World
from taxonet.training.distributed import WholeBatch, check_division, division
from taxonet.training.recipe import Recipe
from taxonet.weights.bundle import BundleInfo, read_info, read_tensors
from taxonet.weights.networks import save_network

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def forks():
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """397 pictures of three colours, one of them broken: a prime number, so nothing divides evenly."""
    folder = write_colours(tmp_path_factory.mktemp("many"), 132)
    (folder / "blue" / "077.png").write_bytes(b"no picture")
    Image.fromarray(np.full((20, 20, 3), (200, 50, 40), np.uint8)).save(folder / "red" / "last.png")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    network = create_model("densenet_bc_22_12", num_classes=3)
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    text = "exif | rgb | resize(16, bicubic) | center_crop(16) | normalize(cifar10)"
    save_network(path, BundleInfo("densenet_bc_22_12", tuple(sorted(COLOURS)), text), network)
    return path


def together(forks, count, words, folder, **environment):
    """Exit statuses, what each said on stderr, and stdout of all processes that did the work."""
    started = forks.start_together(count, words, folder, **environment)
    statuses = [process.wait() for process in started]
    texts = [[(folder / f"{rank}.{kind}").read_text() for rank in range(count)] for kind in ("txt", "out")]
    return statuses, *texts


def figures_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


# --- evaluation


@needs_fork
def test_evaluation_gives_the_same_bits_for_1_2_and_3_processes_on_397_pictures(forks, pictures, bundle, tmp_path):
    found = []
    for count in (1, 2, 3):
        words = ["evaluate", bundle, pictures, "--json"]
        statuses, said, out = together(forks, count, words, tmp_path / str(count))
        assert statuses == [0] * count, said  # torchrun would take 1, done with findings, for a failure
        assert out[1:] == [""] * (count - 1)  # one process prints
        found.append(json.loads(out[0]))
    assert found[0]["n"] == 396
    assert [e["path"].endswith("077.png") for e in found[0]["errors"]] == [True]
    figures = ("n", "top1", "log_loss", "ece", "confusion", "per_class", "errors")
    assert all(other[key] == found[0][key] for other in found[1:] for key in figures)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 397])
def test_every_picture_is_counted_once_in_whole_batches(count, size):
    parts = [mine(count, 32, World(rank, size)) for rank in range(size)]
    assert sorted(place for part in parts for place in part) == list(range(count))
    whole = [list(range(start, min(start + 32, count))) for start in range(0, count, 32)]
    cut = [part[i : i + 32] for part in parts for i in range(0, len(part), 32)]
    assert sorted(cut) == whole  # batches of 32 in each process are those of a single one
    bounds = [World(rank, size).bounds(count) for rank in range(size)]
    assert [stop - start for start, stop in bounds] == [len(p) for p in np.array_split(range(count), size)]


def test_answers_of_one_process_come_one_by_one():
    seen = []

    def work(items):
        for item in items:
            seen.append(item)
            yield np.float32([item])

    first = next(answers(range(100), work, 32, World()))
    assert (first.tolist(), seen) == ([0.0], [0])


# --- training

TRAIN = {**QUICK, "epochs": 2, "dropout": 0.2, "ema_decay": 0.9}


def train_words(data, out, **values):
    words = ["train", data, "--out", out]
    for name, value in {**TRAIN, **values}.items():
        words += [f"--{name.replace('_', '-')}", value]
    return words


@needs_fork
def test_networks_without_batch_norm_are_the_same_for_1_2_and_3_processes(forks, colours, tmp_path):
    runs = []
    for count in (1, 2, 3):
        run = tmp_path / f"run{count}"
        words = train_words(colours, run, model="googlenet", image_size=32, lr=0.01, batch_size=15, epochs=1)
        statuses, said, out = together(forks, count, words, tmp_path / f"said{count}")
        assert statuses == [0] * count, said
        assert said[1:] == out[1:] == [""] * (count - 1)
        runs.append(run)
    assert "processes: 3, each takes 5 of the 15 pictures of a batch; lr is the recipe's" in said[0]
    first = read_tensors(runs[0] / "model.safetensors")
    moved = create_model("googlenet", num_classes=3).state_dict()
    for run in runs[1:]:
        other = read_tensors(run / "model.safetensors")
        assert moved.keys() >= other.keys()
        for key, value in first.items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5)
        for mine_, theirs in zip(figures_of(runs[0]), figures_of(run), strict=True):
            assert theirs == pytest.approx(mine_, rel=1e-4)
        assert (run / "val.csv").read_bytes() == (runs[0] / "val.csv").read_bytes()


STEP = """
import copy, sys
import torch
import torch.nn.functional as F
from taxonet.networks import create_model
from taxonet.processes import join
from taxonet.training.distributed import WholeBatch, add_up_gradients, same_start, share_norms

with join() as world:
    worst = 0.0
    for name, options in (("densenet_bc_22_12", {"dropout": 0.3}), ("densenet_bc_22_12", {"memory_efficient": True}),
                          ("mobilenet_v2_035", {"dropout": 0.2})):
        torch.manual_seed(0)
        one = create_model(name, num_classes=3, **options).double().to(memory_format=torch.channels_last).train()
        torch.manual_seed(world.rank)  # other weights in each process, until they start alike
        many = create_model(name, num_classes=3, **options).double().to(memory_format=torch.channels_last).train()
        many.load_state_dict(one.state_dict() if world.first else many.state_dict())
        same_start(many, world)
        share_norms(many, world)
        torch.manual_seed(1)
        images = torch.randn(11, 3, 32, 32, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(11) % 3
        torch.manual_seed(2)
        F.cross_entropy(one(images), labels).backward()
        start, stop = world.bounds(11)
        torch.manual_seed(2)
        share = (stop - start) / 11
        with WholeBatch(start, stop, 11):
            (F.cross_entropy(many(images[start:stop]), labels[start:stop]) * share).backward()
            add_up_gradients(many, world, share, norms_differ=False)
        for p, q in zip(one.parameters(), many.parameters(), strict=True):
            worst = max(worst, float((p.grad - q.grad).abs().max()))
        for p, q in zip(one.buffers(), many.buffers(), strict=True):
            worst = max(worst, float((p - q).abs().max()))
    print(worst)
"""


@needs_fork
@pytest.mark.parametrize("count", [2, 3])
def test_a_step_is_that_of_one_process_with_batch_norm_dropout_and_recomputation(forks, tmp_path, count):
    """In double precision: gradients, running statistics and dropout masks, with parts of unequal size."""
    statuses, said, out = together(forks, count, [], tmp_path, FORK_FIRST=STEP)
    assert statuses == [0] * count, said
    assert max(float(text) for text in out) < 1e-10


def test_dropout_and_stochastic_depth_draw_for_the_whole_batch():
    images = torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    for draw in (lambda x: F.dropout(x, 0.5), lambda x: x * torch.rand((x.shape[0], 1, 1, 1))):
        torch.manual_seed(0)
        whole = draw(images)
        parts = []
        for start, stop in ((0, 2), (2, 3), (3, 6)):
            torch.manual_seed(0)
            with WholeBatch(start, stop, 6):
                parts.append(draw(images[start:stop]))
        assert torch.equal(torch.cat(parts), whole)
    with WholeBatch(0, 2, 6):
        assert torch.equal(F.dropout(images, 0.5, training=False), images)


def test_more_processes_than_pictures_are_refused():
    with torch.device("meta"):
        network = create_model("densenet_bc_22_12", num_classes=3)
    check_division(network, Recipe(batch_size=16), 48, World(0, 16))
    with pytest.raises(ValueError, match="the smallest batch has 16 pictures, 17 processes need 17; raise batch_size"):
        check_division(network, Recipe(batch_size=16), 48, World(0, 17))
    with pytest.raises(ValueError, match=r"need 18 \(two each, for batch norm without sync_norm\)"):
        check_division(network, Recipe(batch_size=16, sync_norm=False), 48, World(0, 9))
    assert "each takes 10 or 11 of the 32 pictures" in division(Recipe(), World(0, 3))


@needs_fork
def test_without_sync_norm_each_process_has_its_own_statistics_and_all_end_alike(forks, colours, tmp_path):
    runs = {}
    for word in ("true", "false"):
        words = train_words(colours, tmp_path / word, sync_norm=word, epochs=1)
        statuses, said, _ = together(forks, 2, words, tmp_path / f"said-{word}")
        assert statuses == [0, 0], said
        runs[word] = read_tensors(tmp_path / word / "model.safetensors")
    assert "of each process's part" in said[0]
    assert any(not torch.allclose(value, runs["false"][key], rtol=1e-3) for key, value in runs["true"].items())


# --- what goes wrong


@needs_fork
def test_a_wrong_argument_is_one_sentence_of_one_process(forks, colours, tmp_path):
    for words, sentence in (
        (train_words(colours, tmp_path / "run", model="densnet121"), "did you mean 'densenet121'"),
        (train_words(tmp_path / "nowhere", tmp_path / "run"), "does not exist"),
        (train_words(colours, tmp_path / "run", batch_size=1), "2 processes need 2"),
        (["train", colours, "--out", tmp_path / "run", "--epoch", 3], "did you mean"),
        (["evaluate", tmp_path / "none.safetensors", colours], "none.safetensors"),
    ):
        statuses, said, _ = together(forks, 2, words, tmp_path / "said")
        assert statuses[0] in (2, 3)
        assert statuses[1] == statuses[0]
        lines = [line for text in said for line in text.splitlines() if line.startswith("taxonet:")]
        assert len(lines) == 1
        assert sentence in lines[0]
    assert not (tmp_path / "run").exists()


def follow(folder, processes, word):
    """Read what the first process says until a word comes; polls, since a file tells nobody that it has grown."""
    path = folder / "0.txt"
    while word not in (path.read_text() if path.exists() else ""):
        assert all(process.poll() is None for process in processes), path.read_text()


def words_of(said):
    return [line for text in said for line in text.splitlines() if line.startswith("taxonet:")]


@needs_fork
def test_a_process_that_is_killed_ends_all_with_one_sentence_and_the_run_goes_on_to_the_same_bits(
    forks, colours, tmp_path
):
    def words(name):
        return [*train_words(colours, tmp_path / name, epochs=4), "--checkpoint-seconds", 0]

    assert together(forks, 2, words("whole"), tmp_path / "w")[0] == [0, 0]
    processes = forks.start_together(2, words("cut"), tmp_path / "c")
    follow(tmp_path / "c", processes, "epoch   1/4")
    os.kill(processes[1].pid, signal.SIGKILL)
    assert [process.wait() for process in processes] == [3, -9]
    said = (tmp_path / "c" / "0.txt").read_text()
    assert words_of([said]) == [
        f"taxonet: one of the 2 processes was killed or lost, so the run in {tmp_path / 'cut'} has stopped; "
        "the same command with --resume goes on from its last checkpoint"
    ]
    statuses, said, _ = together(forks, 2, [*words("cut"), "--resume"], tmp_path / "r")
    assert statuses == [0, 0], said
    assert re.search(r"going on in epoch [234] of 4, after \d of its 3 steps", said[0])
    first, second = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert figures_of(tmp_path / "whole") == figures_of(tmp_path / "cut")


SHORT_OF_MEMORY = """
import os, torch
from taxonet.networks.layers import Network
forward = Network.forward_head
def forward_head(self, features):
    if os.environ["RANK"] == "1" and self.training and len(features) > 4 and not features.is_meta:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return forward(self, features)
Network.forward_head = forward_head
"""


@needs_fork
def test_memory_that_is_short_in_one_process_ends_all_and_the_run_goes_on_with_half_the_batch(forks, colours, tmp_path):
    words = train_words(colours, tmp_path / "run", epochs=1)
    statuses, said, _ = together(forks, 2, words, tmp_path / "first", FORK_FIRST=SHORT_OF_MEMORY)
    assert statuses == [3, 3], said
    assert words_of(said) == [
        "taxonet: memory does not hold 8 pictures of 16×16 at once in one of the 2 processes; "
        "the same command with --resume goes on with 4 at once, 2 times a step"
    ]
    statuses, said, _ = together(forks, 2, [*words, "--resume"], tmp_path / "second", FORK_FIRST=SHORT_OF_MEMORY)
    assert statuses == [0, 0], said
    assert "memory ran out before: each part of the batch is now taken in 2" in said[0]


@needs_fork
def test_one_process_that_is_told_to_stop_stops_all_at_the_same_step(forks, colours, tmp_path):
    words = train_words(colours, tmp_path / "run", epochs=300)
    processes = forks.start_together(2, words, tmp_path / "said")
    follow(tmp_path / "said", processes, "epoch   1/300")
    os.kill(processes[1].pid, signal.SIGTERM)
    assert [process.wait() for process in processes] == [130, 130]
    assert "the same command with --resume goes on" in (tmp_path / "said" / "0.txt").read_text()
    assert len(list((tmp_path / "run" / "last").iterdir())) == 2


@needs_fork
def test_a_picture_that_goes_away_ends_all_with_its_name_and_a_checkpoint(forks, tmp_path):
    data = write_colours(tmp_path / "data", 20)
    words = train_words(data, tmp_path / "run", epochs=300)
    nothing_kept = "import taxonet.training.pictures as pictures; pictures.MEMORY_SHARE = 0.0"
    processes = forks.start_together(2, words, tmp_path / "said", FORK_FIRST=nothing_kept)
    follow(tmp_path / "said", processes, "epoch   1/300")
    for picture in (data / "red").iterdir():
        picture.write_bytes(b"")
    assert [process.wait() for process in processes] == [3, 3]
    (sentence,) = words_of([(tmp_path / "said" / f"{rank}.txt").read_text() for rank in range(2)])
    assert re.search(r"red/\d+\.png could be read when the run began, and now cannot", sentence)
    assert list((tmp_path / "run" / "last").glob("checkpoint-*"))


# --- torchrun itself


def launch(count, words, *options, **more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *options]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False, **more)


KILLER = """
import os, signal, sys
import taxonet.training.loop as loop
from taxonet.cli.app import main

# The second process is killed once, in the middle of the second epoch, before its part of a step.
step = loop.step
def deadly(training, *arguments):
    first_attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_attempt and os.environ["RANK"] == "1" and (training.position.epoch, training.position.step) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    step(training, *arguments)
loop.step = deadly
sys.exit(main())
"""


@pytest.mark.slow
@needs_fork
def test_torchrun_starts_again_after_a_worker_was_killed_and_the_run_goes_on(forks, colours, tmp_path):
    def words(name):
        return [*train_words(colours, tmp_path / name, epochs=3), "--checkpoint-seconds", 0]

    assert together(forks, 2, words("whole"), tmp_path / "w")[0] == [0, 0]
    (tmp_path / "killer.py").write_text(KILLER)
    done = launch(2, [tmp_path / "killer.py", *words("cut")], "--max-restarts=1")
    assert done.returncode == 0, done.stderr
    assert len(words_of([done.stderr])) == 1
    assert "going on in epoch 2 of 3, after 1 of its 3 steps" in done.stderr
    first, second = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_info(tmp_path / "cut" / "model.safetensors").metrics == (
        read_info(tmp_path / "whole" / "model.safetensors").metrics
    )
    again = launch(2, [tmp_path / "killer.py", *words("cut")], "--max-restarts=1")
    assert again.returncode != 0  # another launch does not touch the run, not even when it is started again
    assert set(words_of([again.stderr])) == {
        f"taxonet: the folder {tmp_path / 'cut'} is not empty; "
        "add --resume to go on with its run, or choose another --out"
    }


@pytest.mark.slow
@needs_fork
def test_sigterm_to_torchrun_ends_with_a_checkpoint(forks, colours, tmp_path):
    words = [*train_words(colours, tmp_path / "run", epochs=3000)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "taxonet"]
    process = subprocess.Popen([*command, *map(str, words)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch   1/3000"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait() != 0
    assert "stopped, nothing is lost; the same command with --resume goes on" in rest
    position = max((tmp_path / "run" / "last").iterdir())
    assert int(position.name[11:19]) >= 3
