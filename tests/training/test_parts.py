"""The parts of training: recipe, schedule, optimisers, average, checkpoint."""

import dataclasses
import math
import os

import pytest
import torch
from torch import nn

from taxonet.errors import DataError, UsageError
from taxonet.networks import create_model
from taxonet.networks.layers import Network, batch_norms
from taxonet.networks.registry import find
from taxonet.sheets import load_sheet
from taxonet.training.checkpoint import Position, apply_checkpoint, checkpoints, read_newest, save_checkpoint
from taxonet.training.choose import Facts, choose_recipe, told
from taxonet.training.ema import MovingAverage
from taxonet.training.feed import batches as make_batches
from taxonet.training.loop import set_training_mode
from taxonet.training.optimizers import RMSpropTF, clip_adaptively, make_optimizer, parameter_groups
from taxonet.training.recipe import Recipe
from taxonet.training.schedule import learning_rate

# --- the recipe


def test_a_recipe_survives_toml():
    recipe = Recipe(
        epochs=7, lr=1e-5, milestones=(0.25, 0.5), optimizer="adamw", augmentation='flip | erase(0.1)  # "ä"'
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("learning_rat = 0.1", "has no value 'learning_rat'"),
        ("momentun = 0.1", "did you mean 'momentum'"),
        ("epochs = 2.5", "epochs is 2.5, it must be a whole number"),
        ("epochs = true", "epochs is True, it must be a whole number"),
        ("epochs = 0", "epochs is 0, it must be from 1"),
        ("lr = 'fast'", "lr is 'fast', it must be a number"),
        ("lr = nan", "lr is nan"),
        ("optimizer = 'adam'", "did you mean 'adamw'"),
        ("nesterov = 1", "it must be true or false"),
        ("milestones = [2]", "fractions from 0 to 1"),
        ("momentum = 0.0", "nesterov needs a momentum"),
        ("agc = -0.01", "agc is -0.01, it must be from 0"),
        ("= 3", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(toml, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        Recipe.from_toml(toml)
    assert "\n" not in str(caught.value)


FACTS = Facts("efficientnet_lite0", 224, 400, pretrained=True, norm_momentum=0.01)


def test_the_default_recipe_follows_the_weights():
    assert choose_recipe(None, FACTS, {})[0].name == "finetune"
    recipe, reasons = choose_recipe(None, dataclasses.replace(FACTS, pretrained=False), {})
    assert recipe.name == "scratch"
    assert "no weights" in reasons["name"]


def test_finetuning_a_small_set_keeps_the_statistics_and_a_large_one_does_not():
    small, reasons = choose_recipe("finetune", FACTS, {})
    large, _ = choose_recipe("finetune", dataclasses.replace(FACTS, pictures=200_000), {})
    assert (small.norm_statistics, large.norm_statistics) == ("frozen", "train")
    assert small.epochs > large.epochs
    assert "400 pictures" in reasons["norm_statistics"]


def test_values_of_the_user_win_and_lose_their_reason():
    recipe, reasons = choose_recipe(None, FACTS, {"epochs": 3, "norm_statistics": "train", "lr": None})
    assert (recipe.epochs, recipe.norm_statistics) == (3, "train")
    assert "epochs" not in reasons


def test_scratch_on_few_steps_lets_running_statistics_follow():
    recipe, reasons = choose_recipe("scratch", dataclasses.replace(FACTS, variant="mobilenet_v3_small"), {})
    assert recipe.norm_momentum == 0.1
    assert "too few" in reasons["norm_momentum"]


def test_scratch_for_few_epochs_of_the_user_chooses_for_these_epochs():
    recipe, reasons = choose_recipe("scratch", dataclasses.replace(FACTS, variant="mobilenet_v3_small"), {"epochs": 5})
    assert (recipe.epochs, recipe.warmup_epochs) == (5, 0.5)
    assert "epochs" not in reasons


def test_the_paper_recipe_of_densenet_on_cifar():
    facts = Facts("densenet_bc_100_12", 32, 50_000, pretrained=False, norm_momentum=0.1)
    recipe, _ = choose_recipe("paper", facts, {})
    assert (recipe.optimizer, recipe.nesterov, recipe.lr, recipe.batch_size, recipe.epochs) == (
        "sgd",
        True,
        0.1,
        64,
        300,
    )
    assert recipe.decay_norm_and_bias
    assert (recipe.weight_decay, recipe.milestones, recipe.gamma) == (1e-4, (0.5, 0.75), 0.1)
    assert "random_crop(32, padding=4)" in recipe.augmentation


@pytest.mark.parametrize("name", ["finetune", "scratch"])
def test_bfloat16_is_measured_on_a_gpu_and_not_on_a_cpu(name):
    recipe, _ = choose_recipe(name, dataclasses.replace(FACTS, on_gpu=True), {})
    assert recipe.precision == "auto"
    recipe, reasons = choose_recipe(name, FACTS, {})
    assert recipe.precision == "float32"
    assert "on a CPU bfloat16 was slower" in reasons["precision"]
    assert "precision" not in choose_recipe(name, FACTS, {"precision": "bfloat16"})[1]


def test_the_paper_recipe_of_googlenet_trains_its_auxiliary_heads():
    facts = Facts("googlenet", 224, 10_000, pretrained=False, norm_momentum=None)
    recipe, _ = choose_recipe("paper", facts, {})
    assert (recipe.aux_heads, recipe.dropout, recipe.batch_size, recipe.lr) == (True, 0.4, 32, 0.01)
    assert not choose_recipe("paper", facts, {"aux_heads": False})[0].aux_heads
    assert not choose_recipe("scratch", facts, {})[0].aux_heads


def test_scratch_without_batch_norm_has_a_lower_rate():
    with_norm, _ = choose_recipe("scratch", Facts("vgg16_bn", 224, 10_000, False, 0.1), {})
    without, reasons = choose_recipe("scratch", Facts("vgg16", 224, 10_000, False, None), {})
    assert without.lr < with_norm.lr
    assert reasons["lr"] == "vgg16 has no batch norm"


def test_the_paper_recipe_resizes_as_the_picture_size_asks():
    facts = Facts("vgg16", 224, 10_000, pretrained=False, norm_momentum=None)
    assert "resize(256) | random_crop(224" in choose_recipe("paper", facts, {})[0].augmentation
    assert "resize(128) | random_crop(112" in choose_recipe("paper", facts, {"image_size": 112})[0].augmentation


def test_the_paper_recipe_scales_its_rate_with_a_smaller_batch():
    facts = Facts("mobilenet_v3_small", 224, 100, pretrained=False, norm_momentum=0.01)
    recipe, reasons = choose_recipe("paper", facts, {"epochs": 2})
    assert recipe.optimizer == "rmsprop_tf"
    assert recipe.batch_size == 100
    assert recipe.lr == pytest.approx(0.1 * 100 / 4096)
    assert "scaled with the batch" in reasons["lr"]


def test_the_paper_recipe_follows_the_batch_and_the_epochs_of_the_user():
    facts = Facts("efficientnet_lite0", 224, 100_000, pretrained=False, norm_momentum=0.01)
    recipe, reasons = choose_recipe("paper", facts, {"batch_size": 32, "epochs": 7})
    whole, _ = choose_recipe("paper", facts, {"batch_size": 64})
    assert recipe.lr == pytest.approx(whole.lr / 2)
    assert "32/" in reasons["lr"]
    assert recipe.warmup_epochs == pytest.approx(whole.warmup_epochs * 7 / whole.epochs)


def test_what_the_papers_sheet_does_not_say_is_told_as_ours():
    silent = Facts("alexnet", 224, 100_000, pretrained=False, norm_momentum=None)
    for variant in ("alexnet", "dpn68", "mobilenet_v1", "attention56", "seresnet50", "igcv3_d", "nfnet_f0"):
        recipe, reasons = choose_recipe("paper", dataclasses.replace(silent, variant=variant), {})
        published = load_sheet(find(variant).family).recipes["imagenet"]
        lines = told(recipe, reasons)
        for name in ("epochs", "weight_decay", "augmentation", "label_smoothing", "lr", "batch_size", "momentum"):
            (line,) = [line for line in lines if line.split()[0] == name]
            unsaid = getattr(published, name) is None
            assert line.endswith("(the paper's sheet does not say; Taxonet's default)") == unsaid
    _, reasons = choose_recipe("paper", dataclasses.replace(silent, variant="dpn68"), {"epochs": 3})
    assert "epochs" not in reasons  # the user's


def test_the_paper_recipe_of_nfnet_clips_its_gradients():
    facts = Facts("nfnet_f1", 320, 100_000, pretrained=False, norm_momentum=0.1)
    recipe, reasons = choose_recipe("paper", facts, {})
    assert (recipe.agc, recipe.dropout, recipe.weight_decay, recipe.decay_norm_and_bias) == (0.01, 0.3, 2e-5, False)
    assert (recipe.optimizer, recipe.nesterov, recipe.schedule) == ("sgd", True, "cosine")
    assert recipe.lr == pytest.approx(0.1 * recipe.batch_size / 256)
    assert (recipe.mixup, recipe.cutmix, recipe.stochastic_depth) == (0.2, 1.0, 0.25)
    assert reasons["agc"] == reasons["cutmix"] == "the imagenet recipe of NFNet"
    assert choose_recipe("paper", facts, {"agc": 0.0})[0].agc == 0
    assert choose_recipe("paper", dataclasses.replace(facts, variant="resnet50"), {})[0].agc == 0


@pytest.mark.parametrize(
    ("wanted", "facts", "sentence"),
    [
        ("fintune", FACTS, "did you mean 'finetune'"),
        ("finetune", dataclasses.replace(FACTS, pretrained=False), "needs weights"),
        ("nowhere.toml", FACTS, "nowhere.toml does not exist"),
    ],
)
def test_an_unknown_recipe_is_one_sentence(wanted, facts, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_recipe(wanted, facts, {})


# --- the schedule


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.1), ("epochs", 3), ("mixup", 0.2), ("patience", 2), ("augmentation", "flip"), ("teacher", "big")],
)
def test_features_refuses_what_it_would_not_use(name, value):
    with pytest.raises(
        UsageError, match=f"^{name} does nothing in the recipe features, .* it uses image_size, balance"
    ):
        choose_recipe("features", FACTS, {name: value})


def test_features_takes_what_it_uses():
    asked = {"image_size": 128, "balance": "loss", "balance_weights": "inverse", "val_fraction": 0.3, "seed": 2}
    recipe, _ = choose_recipe("features", FACTS, asked)
    assert {name: getattr(recipe, name) for name in asked} == asked


def test_a_recipe_file_of_a_frozen_network_with_a_teacher_is_refused(tmp_path):
    (tmp_path / "mine").write_text('frozen = true\nteacher = "big"\n')
    with pytest.raises(UsageError, match="teacher does nothing"):
        choose_recipe(tmp_path / "mine", FACTS, {})


def test_schedules():
    step = Recipe(epochs=300, lr=0.1, schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    rates = [learning_rate(step, epoch) for epoch in (0, 149.99, 150, 224.9, 225, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    cosine = Recipe(epochs=10, lr=1.0, schedule="cosine", warmup_epochs=2)
    assert learning_rate(cosine, 1) == pytest.approx(0.5)
    assert learning_rate(cosine, 2) == pytest.approx(1.0)
    assert learning_rate(cosine, 6) == pytest.approx(0.5)
    assert learning_rate(cosine, 0) > 0
    linear = Recipe(epochs=10, lr=1.0, schedule="linear", warmup_epochs=2)
    assert [learning_rate(linear, epoch) for epoch in (1, 2, 4, 10)] == pytest.approx([0.5, 1.0, 0.75, 0.0])
    decay = Recipe(epochs=10, lr=1.0, schedule="exponential", decay_rate=0.9, decay_epochs=2.0)
    assert learning_rate(decay, 5.5) == pytest.approx(0.81)


# --- optimisers


def test_rmsprop_is_tensorflows():
    """The recursion of TensorFlow's RMSProp with momentum, done by hand for one weight."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RMSpropTF([weight], lr=0.1, alpha=0.9, eps=1e-3, momentum=0.8)
    square, buffer, expected = 1.0, 0.0, 1.0
    for rate in (0.1, 0.1, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        gradient = 3 * expected**2
        square = 0.9 * square + 0.1 * gradient**2
        buffer = 0.8 * buffer + rate * gradient / (square + 1e-3) ** 0.5
        expected -= buffer
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
        assert weight.item() == pytest.approx(expected, rel=1e-12)


def test_weight_decay_spares_what_the_recipe_spares():
    network = create_model("mobilenet_v2_035")
    depthwise = {id(m.weight) for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    norms = {id(p) for m in batch_norms(network) for p in m.parameters()}
    free = {id(p) for p in parameter_groups(network, Recipe(decay_depthwise=False))[1]["params"]}
    assert free == depthwise | norms | {id(network.classifier.bias)}
    everything = parameter_groups(network, Recipe(decay_norm_and_bias=True, decay_depthwise=True))
    assert len(everything) == 1
    assert len(everything[0]["params"]) == len(list(network.parameters()))


def test_weight_decay_spares_gains():
    """With the norms' scales and the biases: NFNet's recipe decays kernels and matrices alone."""
    with torch.device("meta"):
        network = create_model("nfnet_f0")
    kernels = {id(p) for name, p in network.named_parameters() if name.endswith("weight")}
    decayed, free = parameter_groups(network, Recipe(decay_norm_and_bias=False))
    assert {id(p) for p in decayed["params"]} == kernels
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)
    spared = {name.rpartition(".")[2] for name, p in network.named_parameters() if id(p) not in kernels}
    assert spared == {"bias", "gain", "skipinit_gain"}


# --- adaptive gradient clipping


class Odd(Network):
    """Every shape of parameter that a network may have."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.depthwise = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.matrix = nn.Parameter(torch.randn(5, 7))
        self.gain = nn.Parameter(torch.randn(6, 1, 1, 1))
        self.bias = nn.Parameter(torch.randn(6))
        self.zeros = nn.Parameter(torch.zeros(4, 2, 1, 1))
        self.skipinit_gain = nn.Parameter(torch.zeros(()))
        self.idle = nn.Parameter(torch.ones(3))
        self.set_head(8, 3, dropout=0.0)


def clipped_by_hand(weight, gradient, most):
    """The rule for one unit, in Python's floats."""
    norm, limit = math.sqrt(sum(g * g for g in gradient)), most * max(math.sqrt(sum(w * w for w in weight)), 1e-3)
    return [g * limit / norm for g in gradient] if norm > limit else list(gradient)


@pytest.mark.parametrize("clipping", [0.01, 0.5])
def test_adaptive_gradient_clipping_is_the_rule_for_every_unit(clipping):
    torch.manual_seed(0)
    network = Odd().double()
    whole = {"gain", "bias", "skipinit_gain", "classifier.bias"}
    before = {}
    for name, parameter in network.named_parameters():
        if name != "idle":
            rows = (
                torch.rand(parameter.shape[:1] + (1,) * (parameter.ndim - 1)) if parameter.ndim else torch.tensor(1.0)
            )
            parameter.grad = torch.randn(parameter.shape, dtype=torch.float64) * rows**4
            before[name] = parameter.grad.clone()
    clip_adaptively(network, clipping)
    touched = 0
    for name, gradient in before.items():
        parameter = network.get_parameter(name)
        if name == "classifier.weight":
            assert torch.equal(parameter.grad, gradient)
            continue
        units = (
            [(parameter, gradient, parameter.grad)]
            if name in whole
            else zip(parameter, gradient, parameter.grad, strict=True)
        )
        for weight, old, new in units:
            expected = clipped_by_hand(weight.flatten().tolist(), old.flatten().tolist(), clipping)
            assert new.flatten().tolist() == pytest.approx(expected, rel=1e-9), name
            touched += not torch.equal(old, new)
    assert network.idle.grad is None
    assert 0 < touched < 21  # both sides of the rule have been seen


def test_a_gradient_within_the_limit_keeps_its_bits():
    network = Odd()
    for parameter in network.parameters():
        parameter.grad = 1e-7 * torch.randn(parameter.shape)
    before = [parameter.grad.clone() for parameter in network.parameters()]
    clip_adaptively(network, 0.01)
    assert all(torch.equal(p.grad, old) for p, old in zip(network.parameters(), before, strict=True))


# --- average, modes, order, checkpoint


def test_moving_average():
    network = create_model("densenet_bc_22_12")
    average = MovingAverage(network, decay=0.5)
    start = network.classifier.weight.detach().clone()
    with torch.no_grad():
        network.classifier.weight.add_(1.0)
    average.update(network, step=10_000)
    assert torch.allclose(average.network.classifier.weight, start + 0.5)


def test_frozen_statistics_do_not_move_and_trained_ones_do():
    for word, moves in (("frozen", False), ("train", True)):
        network = create_model("densenet_bc_22_12")
        set_training_mode(network, Recipe(norm_statistics=word, norm_momentum=0.3))
        before = batch_norms(network)[0].running_mean.clone()
        network(torch.randn(2, 3, 16, 16))
        assert torch.equal(before, batch_norms(network)[0].running_mean) is not moves
        assert network.training
        assert batch_norms(network)[0].momentum == 0.3


@pytest.mark.parametrize(("count", "size"), [(33, 32), (432, 32), (5, 8), (64, 32)])
def test_batches_hold_every_picture_once_and_leave_no_tail(count, size):
    labels = [0] * count
    batches = make_batches(labels, Recipe(batch_size=size), epoch=2)
    assert sorted(int(i) for batch in batches for i, _ in batch) == list(range(count))
    assert max(map(len, batches)) <= size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    again = make_batches(labels, Recipe(batch_size=size), epoch=2)
    other = make_batches(labels, Recipe(batch_size=size), epoch=3)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    assert any((a != b).any() for a, b in zip(batches, other, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop_tf"])
def test_a_checkpoint_brings_everything_back(tmp_path, optimizer):
    def make():
        torch.manual_seed(0)
        network = create_model("densenet_bc_22_12", num_classes=3)
        return network, make_optimizer(network, Recipe(optimizer=optimizer, lr=0.01))

    def step(network, optimizer, seed):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))).logsumexp(1).sum().backward()
        optimizer.step()

    network, first = make()
    step(network, first, 1)
    save_checkpoint(tmp_path, Position(epoch=2, step=5, loss_sum=1.25), {"network": network}, first, "key")
    step(network, first, 2)
    restored, second = make()
    position = apply_checkpoint(read_newest(tmp_path, "key"), {"network": restored}, second)
    assert position == Position(epoch=2, step=5, loss_sum=1.25)
    step(restored, second, 2)
    for key, value in network.state_dict().items():
        assert torch.equal(value, restored.state_dict()[key]), key


def test_a_foreign_or_broken_checkpoint_is_refused(tmp_path):
    network = create_model("densenet_bc_22_12")
    optimizer = make_optimizer(network, Recipe())
    assert read_newest(tmp_path, "key") == b""
    save_checkpoint(tmp_path, Position(), {"network": network}, optimizer, "key")
    with pytest.raises(DataError, match="another recipe"):
        read_newest(tmp_path, "other")
    (path,) = checkpoints(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"is damaged \(it is no checkpoint, or cut off\); without the folder"):
        read_newest(tmp_path, "key")


def test_checkpoints_are_kept_k_deep_and_a_damaged_one_is_named_and_passed_over(tmp_path):
    network = create_model("densenet_bc_22_12")
    optimizer = make_optimizer(network, Recipe())

    def save(steps, keep):
        save_checkpoint(tmp_path, Position(steps_in_all=steps), {"network": network}, optimizer, "key", keep)

    for steps in range(1, 6):
        save(steps, keep=3)
    assert [path.name[-16:-12] for path in checkpoints(tmp_path)] == ["0005", "0004", "0003"]
    newest, second, _ = checkpoints(tmp_path)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # one bit of one weight
    newest.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-7])
    (tmp_path / "last" / ".checkpoint-00000006.safetensors.0a.tmp").write_bytes(b"killed here")
    said = []
    position = apply_checkpoint(read_newest(tmp_path, "key", said.append), {"network": network}, optimizer)
    assert position == Position(steps_in_all=3)
    assert [str(newest) in said[0], str(second) in said[1]] == [True, True]
    assert "is damaged (its content is not what was written); the checkpoint before it is used" in said[0]
    assert not list((tmp_path / "last").glob(".*"))
    save(4, keep=1)  # written again over the damaged one; the newer damaged one must not win
    assert apply_checkpoint(read_newest(tmp_path, "key"), {"network": network}, optimizer) == Position(steps_in_all=4)


def test_a_disk_that_gives_back_other_bytes_costs_no_older_checkpoint(tmp_path, monkeypatch):
    network = create_model("densenet_bc_22_12")
    optimizer = make_optimizer(network, Recipe())
    save_checkpoint(tmp_path, Position(steps_in_all=1), {"network": network}, optimizer, "key", keep=1)
    fsync = os.fsync

    def rotten(handle):
        fsync(handle)
        os.pwrite(handle, b"x", 5000)

    monkeypatch.setattr(os, "fsync", rotten)
    with pytest.raises(DataError, match="the disk gave back other bytes"):
        save_checkpoint(tmp_path, Position(steps_in_all=2), {"network": network}, optimizer, "key", keep=1)
    monkeypatch.undo()
    assert apply_checkpoint(read_newest(tmp_path, "key"), {"network": network}, optimizer) == Position(steps_in_all=1)
    assert len(list((tmp_path / "last").iterdir())) == 1
