"""What a step minimises, against formulas worked out another way: mixing, losses, balance, distillation, parts."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from taxonet.errors import TrainingError, UsageError
from taxonet.images import Augmentation, Preprocessing
from taxonet.networks import create_model
from taxonet.networks.layers import Network
from taxonet.training import balance
from taxonet.training.choose import Facts, choose_recipe
from taxonet.training.distillation import Rendering, Teacher
from taxonet.training.feed import Batch, Views
from taxonet.training.loop import set_training_mode
from taxonet.training.losses import cross_entropy, distillation
from taxonet.training.mixing import draw_mix, one_hot
from taxonet.training.objective import Objective
from taxonet.training.recipe import Recipe

SIZE = (20, 30)


def draws(recipe, count=400, size=SIZE):
    return [draw_mix(recipe, 3, step, 8, size) for step in range(count)]


# --- mixup and CutMix


def test_mixup_blends_pictures_and_labels_with_one_share():
    mix = draw_mix(Recipe(mixup=0.4), 1, 2, 6, SIZE)
    pictures, labels = torch.rand(6, 3, *SIZE), one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    other = pictures[mix.partner]
    expected = mix.share * pictures.numpy() + (1 - mix.share) * other.numpy()
    assert np.allclose(mix.pictures(pictures, other), expected, atol=1e-6)
    expected = mix.share * labels.numpy() + (1 - mix.share) * labels.numpy()[mix.partner]
    assert np.allclose(mix.targets(labels, labels[mix.partner]), expected, atol=1e-6)


def test_the_share_of_mixup_has_the_betas_moments():
    """Mean 1/2, variance 1/(4(2α+1))."""
    for alpha in (0.2, 1.0, 5.0):
        shares = [mix.share for mix in draws(Recipe(mixup=alpha), 2000)]
        assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
        assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_cutmix_puts_a_rectangle_in_and_counts_its_pixels():
    shares = []
    for mix in draws(Recipe(cutmix=1.0), 200):
        own, other = torch.zeros(8, 3, *SIZE), torch.ones(8, 3, *SIZE)
        mixed = mix.pictures(own, other)
        assert mixed.mean().item() == pytest.approx(1 - mix.share, abs=1e-6)  # by counting
        inside = mixed[0, 0].bool()
        rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
        assert inside.sum() == len(rows) * len(columns)
        assert own.sum() == 0
        shares.append(mix.share)
    assert min(shares) < 0.3
    assert max(shares) > 0.95
    assert np.mean(shares) > 0.5  # a rectangle that hangs over the edge loses area


def test_cutmix_covers_the_same_part_of_a_picture_of_another_size():
    for mix in draws(Recipe(cutmix=1.0), 50):
        small = mix.pictures(torch.zeros(1, 1, *SIZE), torch.ones(1, 1, *SIZE))
        large = mix.pictures(torch.zeros(1, 1, 60, 90), torch.ones(1, 1, 60, 90))
        assert torch.equal(large, small.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_a_mix_is_a_pure_function_of_seed_epoch_and_step():
    recipe = Recipe(mixup=0.2, cutmix=1.0, seed=5)
    first, again = draws(recipe, 50), draws(recipe, 50)
    assert [(m.share, m.box, m.partner.tolist()) for m in first] == [
        (m.share, m.box, m.partner.tolist()) for m in again
    ]
    cuts = sum(mix.box is not None for mix in draws(recipe))
    assert 160 < cuts < 240  # a coin
    assert draw_mix(recipe, 0, 0, 1, SIZE) is None  # nobody to mix with
    assert draw_mix(Recipe(), 0, 0, 8, SIZE) is None
    places = [(seed, epoch, step) for seed in (1, 2) for epoch in (0, 1) for step in (0, 1)]
    mixes = [draw_mix(dataclasses.replace(recipe, seed=s), epoch, step, 8, SIZE) for s, epoch, step in places]
    assert len({tuple(mix.partner) for mix in mixes}) == len(places)


# --- losses


def test_cross_entropy_with_soft_targets_and_smoothing_by_hand():
    logits, targets = np.array([[2.0, -1.0, 0.5]]), np.array([[0.7, 0.3, 0.0]])
    logs = logits - np.log(np.exp(logits).sum())
    smoothed = 0.9 * targets + 0.1 / 3
    expected = -(smoothed * logs).sum()
    found = cross_entropy(torch.tensor(logits), torch.tensor(targets), 0.1)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_distillation_is_the_softened_divergence_times_the_temperature_squared():
    student, teacher, temperature = np.array([[1.0, 0.0, -2.0]]), np.array([[3.0, 1.0, 0.0]]), 4.0
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum() for x in (teacher, student))
    expected = 16 * (p * (np.log(p) - np.log(q))).sum()
    found = distillation(torch.tensor(student), torch.tensor(teacher), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert distillation(torch.tensor(teacher), torch.tensor(teacher), 2.0).item() == pytest.approx(0, abs=1e-9)


# --- balance


def test_weights_of_classes():
    counts = [1000, 100, 10]
    inverse = balance.class_weights(counts, "inverse", 0.9)
    assert inverse[2] / inverse[0] == pytest.approx(100, rel=1e-5)
    effective = balance.class_weights(counts, "effective", 0.999)
    raw = [sum(0.999**k for k in range(n)) for n in counts]  # the effective number as the geometric series that it is
    assert effective[2] / effective[0] == pytest.approx(raw[0] / raw[2], rel=1e-4)
    for weights in (inverse, effective):
        assert (weights * counts).sum() == pytest.approx(sum(counts), rel=1e-5)
    assert balance.class_weights(counts, "effective", 0.0) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("counts", [[70, 9, 1], [3, 3, 3], [5, 1], [100, 10, 10, 10, 1]])
def test_a_balanced_order_shows_every_class_equally_often(counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    order = balance.balanced_order(labels, np.random.default_rng(0))
    assert len(order) == len(labels)
    shown = np.bincount(np.array(labels)[order], minlength=len(counts))
    assert shown.max() - shown.min() <= 1
    times = np.bincount(order, minlength=len(labels))
    for label in range(len(counts)):
        mine = times[np.array(labels) == label]
        assert mine.max() - mine.min() <= 1
    assert not np.array_equal(order, balance.balanced_order(labels, np.random.default_rng(1)))


def test_a_picture_shown_again_is_numbered():
    assert balance.occurrences(np.array([4, 2, 4, 4, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_auto_says_what_it_does_about_the_classes_and_why():
    facts = Facts("densenet_bc_22_12", 32, 444, False, 0.1, class_counts=(400, 4, 40))
    recipe, reasons = choose_recipe("scratch", facts, {})
    assert recipe.balance == "loss"
    assert "100.0 times" in reasons["balance"]
    assert "400 and 4" in reasons["balance"]
    recipe, reasons = choose_recipe("scratch", dataclasses.replace(facts, class_counts=(30, 20, 25)), {})
    assert recipe.balance == "none"
    assert "1.5 times" in reasons["balance"]
    recipe, reasons = choose_recipe("scratch", facts, {"balance": "sampling"})
    assert (recipe.balance, "balance" in reasons) == ("sampling", False)
    assert choose_recipe("paper", dataclasses.replace(facts, variant="densenet_bc_100_12"), {})[0].balance == "none"


# --- what the network has


def test_stochastic_depth_is_the_networks_own_and_refused_where_there_is_none():
    facts = Facts("efficientnet_b0", 224, 400, False, 0.01)
    assert choose_recipe("scratch", facts, {})[0].stochastic_depth == 0.2
    assert choose_recipe("scratch", facts, {"stochastic_depth": 0.0})[0].stochastic_depth == 0
    assert choose_recipe("paper", dataclasses.replace(facts, variant="nfnet_f0"), {})[0].stochastic_depth == 0.25
    plain = dataclasses.replace(facts, variant="resnet50")
    assert choose_recipe("scratch", plain, {})[0].stochastic_depth == 0
    with pytest.raises(UsageError, match="resnet50 has no stochastic depth"):
        choose_recipe("scratch", plain, {"stochastic_depth": 0.1})


# --- the objective as a whole

PREPROCESSING = Preprocessing.parse("rgb | resize(32) | center_crop(32) | normalize(half)")


def make_batch(count=8, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return Views(rng.integers(0, 256, (count, size, size, 3), np.uint8), torch.from_numpy(rng.integers(0, 3, count)))


def make_network(name="densenet_bc_22_12", **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **options)


def gradients(objective, batch, mix, parts):
    objective.network.zero_grad()
    sums = objective.backward(Batch.alone(batch, mix, parts))
    return sums, {name: p.grad.clone() for name, p in objective.network.named_parameters() if p.grad is not None}


def teacher_of_other_size():
    torch.manual_seed(7)
    text = "rgb | resize(40) | center_crop(40) | normalize(imagenet)"
    return Teacher("teacher", create_model("densenet_bc_22_12", num_classes=5), Preprocessing.parse(text), [4, 0, 2])


@pytest.mark.parametrize("teacher", [False, True])
def test_the_loss_of_a_step_is_the_formula(teacher):
    """Weights of classes, smoothing, CutMix and a teacher at once, against plain torch on the whole batch."""
    recipe = Recipe(label_smoothing=0.1, cutmix=1.0, balance="loss", distill_weight=0.3, distill_temperature=2.0)
    weights, network, batch = [0.5, 2.0, 1.25], make_network(), make_batch()
    mind = teacher_of_other_size() if teacher else None
    if mind:
        batch = dataclasses.replace(batch, for_teacher=make_batch(size=40, seed=1).pixels)
    set_training_mode(network, dataclasses.replace(recipe, norm_statistics="frozen"))
    mix = draw_mix(recipe, 0, 0, 8, (32, 32))
    sums, found = gradients(Objective(network, recipe, PREPROCESSING, weights, mind), batch, mix, 1)

    network.zero_grad()

    def mixed(pixels, mean, std):
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        x = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        scale = x.shape[2] / 32
        upper, left, lower, right = (round(v * scale) for v in mix.box)
        other = x[mix.partner].clone()
        out = x.clone()
        out[:, :, upper:lower, left:right] = other[:, :, upper:lower, left:right]
        return out

    logs = network(mixed(batch.pixels, (0.5,) * 3, (0.5,) * 3)).log_softmax(1)
    hard = torch.eye(3)[batch.labels]
    soft = mix.share * hard + (1 - mix.share) * hard[mix.partner]
    each = -((0.9 * soft + 0.1 / 3) * logs).sum(1)
    of_class = soft @ torch.tensor(weights)
    loss = (each * of_class).mean()
    if mind:
        with torch.no_grad():
            answers = mind.network(mixed(batch.for_teacher, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        p = (answers[:, [4, 0, 2]] / 2).softmax(1)
        q = torch.softmax(network(mixed(batch.pixels, (0.5,) * 3, (0.5,) * 3)) / 2, 1)
        loss = 0.7 * loss + 0.3 * 4 * (of_class * (p * (p / q).log()).sum(1)).mean()
    loss.backward()
    assert sums.loss == pytest.approx(each.sum().item(), rel=1e-4)
    for name, parameter in network.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize(("name", "frozen"), [("googlenet", False), ("densenet_bc_22_12", True)])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_add_up_to_the_batch_where_no_batch_norm_looks_at_it(name, frozen, parts):
    """Accumulation: 8 pictures at once, or in parts, give the same gradients up to rounding."""
    recipe = Recipe(label_smoothing=0.1, mixup=0.4, norm_statistics="frozen" if frozen else "train")
    network, batch = make_network(name, dropout=0.0), make_batch()
    set_training_mode(network, recipe)
    objective = Objective(network, recipe, PREPROCESSING, [0.5, 2.0, 1.0])
    mix = draw_mix(recipe, 0, 0, 8, (32, 32))
    whole, expected = gradients(objective, batch, mix, 1)
    sums, found = gradients(objective, batch, mix, parts)
    assert (sums.right, pytest.approx(sums.loss, rel=1e-5)) == (whole.right, whole.loss)
    for key, gradient in expected.items():
        assert torch.allclose(found[key], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-9), key


def test_bfloat16_stays_near_float32():
    batch, found = make_batch(), {}
    for word in ("float32", "bfloat16"):
        network = make_network()
        set_training_mode(network, Recipe())
        found[word] = gradients(Objective(network, Recipe(precision=word), PREPROCESSING), batch, None, 1)
    (a, exact), (b, rough) = found["float32"], found["bfloat16"]
    assert b.loss == pytest.approx(a.loss, rel=0.05)
    assert b.loss != a.loss
    assert all(g.dtype == torch.float32 for g in rough.values())
    key = "classifier.weight"
    assert torch.nn.functional.cosine_similarity(exact[key].flatten(), rough[key].flatten(), dim=0) > 0.99


# --- the teacher


def test_a_teachers_classes_are_matched_by_name(small_bundle):
    teacher = Teacher.open(small_bundle, ["blue", "red"])  # the bundle has red, green, blue
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        whole = teacher.network(images)
    assert torch.equal(teacher.logits(images), whole[:, [2, 0]])
    with pytest.raises(UsageError, match="does not know the class 'grean'; did you mean 'green'"):
        Teacher.open(small_bundle, ["blue", "grean"])
    assert Teacher.open(small_bundle, ["red", "blue"]).digest == teacher.digest
    assert not any(p.requires_grad for p in teacher.network.parameters())


@pytest.mark.parametrize(("own", "other"), [(32, 48), (48, 32), (32, 32)])
def test_student_and_teacher_see_the_same_augmented_picture(own, other):
    augmentation = Augmentation.parse(f"random_resized_crop({own}, scale=(0.3, 0.6)) | flip | erase(1.0)")
    student = Preprocessing.parse(f"rgb | resize({own}) | center_crop({own}) | normalize(half)")
    teacher = Preprocessing.parse(f"rgb | resize({other}) | center_crop({other}) | normalize(imagenet)")
    y, x = np.mgrid[:100, :120]
    picture = Image.fromarray(np.dstack([2 * y, 2 * x, (x + y) / 2]).astype(np.uint8))
    for seed in range(6):
        mine, theirs = Rendering(augmentation, student, teacher)(picture, np.random.default_rng(seed))
        assert (mine.shape, theirs.shape) == ((own, own, 3), (other, other, 3))
        common = [
            np.asarray(Image.fromarray(p).resize((8, 8), Image.Resampling.BOX)).astype(int) for p in (mine, theirs)
        ]
        assert np.abs(common[0] - common[1]).mean() < 4  # the erased rectangle, whose noise is averaged, included
    if own == other:
        assert np.array_equal(mine, augmentation(picture, np.random.default_rng(5)))


def test_a_grey_student_has_a_teacher_that_sees_colour():
    student = Preprocessing.parse("grey | resize(16) | center_crop(16) | normalize(half)")
    teacher = Preprocessing.parse("rgb | resize(24) | center_crop(24) | normalize(half)")
    rendering = Rendering(Augmentation.parse("random_resized_crop(16)"), student, teacher)
    mine, theirs = rendering(Image.new("L", (40, 30), 77), np.random.default_rng(0))
    assert (mine.shape, theirs.shape) == ((16, 16, 1), (24, 24, 3))
    assert (theirs == 77).all()


# --- torch.compile


class Tiny(Network):
    """A network that is compiled in seconds."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.ReLU())
        self.set_head(4, 3, dropout=0.0)


@pytest.mark.slow
def test_a_compiled_network_has_the_same_gradients():
    torch.manual_seed(0)
    network, batch = Tiny(), make_batch()
    _, expected = gradients(Objective(network, Recipe(), PREPROCESSING), batch, None, 1)
    _, found = gradients(Objective(network, Recipe(compile=True), PREPROCESSING), batch, None, 1)
    for key, gradient in expected.items():
        assert torch.allclose(found[key], gradient, rtol=1e-4, atol=1e-6), key


@pytest.mark.slow
def test_a_machine_without_a_compiler_ends_in_a_sentence(monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    with (
        inductor.patch(force_disable_caches=True),
        pytest.raises(TrainingError, match="train without --compile") as caught,
    ):
        Objective(Tiny(), Recipe(compile=True), PREPROCESSING).backward(Batch.alone(make_batch(6)))
    assert "\n" not in str(caught.value)
