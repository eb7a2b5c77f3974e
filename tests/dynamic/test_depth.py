"""Early exits: what leaves is skipped, what stays is unchanged, and rules do what they say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.compression import Code, PruneChannels, compress, load_packed, save_packed
from zoo.cost import count_macs
from zoo.data import Dataset
from zoo.dynamic import (
    Answers,
    EarlyExits,
    ExitRule,
    add_exits,
    choose_rule,
    curve,
    evaluate_early,
    exit_answers,
    exit_macs,
    outcome,
    uncertainty,
)
from zoo.errors import RecipeError, UnknownNameError
from zoo.recipes import get_recipe
from zoo.registry import build
from zoo.training.objectives import CrossEntropy

BRANCHY = {"branchy_lenet5": (1, 28), "branchy_vgg11_bn": (3, 32), "branchy_resnet56": (3, 32)}
# Stages of other networks that everything passes through.
ATTACHED = {
    "squeezenet1_1": "features.4",
    "mobilenetv1_025": "features.5",
    "inception_v3": "features.mixed5d",
    "xception": "features.block4",
    "alexnet": "features.pool2",
}


def built(name: str) -> EarlyExits:
    """A registered network with exits, whose batch norms have seen something."""
    torch.manual_seed(0)
    channels, side = BRANCHY[name]
    model = build(name, num_classes=10, in_chans=channels, image_size=side)
    assert isinstance(model, EarlyExits)
    with torch.no_grad():
        model.train().forward_with_auxiliary(torch.randn(16, channels, side, side))
    return model.eval()


def some_images(name: str, count: int) -> Tensor:
    channels, side = BRANCHY[name]
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BRANCHY)
def test_each_image_gets_the_answer_of_the_exit_by_which_it_leaves(name: str) -> None:
    model, images = built(name), some_images(name, 7)
    with torch.no_grad():
        last, exits = model.forward_with_auxiliary(images)
    every = [*exits, last]
    assert torch.equal(last, model(images))
    plan = torch.tensor([0, len(exits), 0, 1, len(exits), 1, 0])  # where each image is to leave

    def leaves(index: int, logits: Tensor) -> Tensor:
        present = plan[plan >= index]
        assert len(logits) == len(present), "those that left are computed no further"
        return present == index

    logits, taken = model.forward_early(images, leaves)
    assert taken.tolist() == plan.tolist()
    expected = torch.stack([every[index][row] for row, index in enumerate(plan.tolist())])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", BRANCHY)
def test_nothing_runs_after_the_last_image_has_left(name: str) -> None:
    model, images = built(name), some_images(name, 3)
    called: list[str] = []
    for label, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _m, _x, _y, label=label: called.append(label))
    model.forward_early(images, lambda _index, logits: torch.ones(len(logits), dtype=torch.bool))
    in_first_exit = {label for label in called if label.startswith("exits.0.")}
    assert in_first_exit
    assert not [label for label in called if label.startswith("exits.1.")]
    called_in_all = len(called)
    called.clear()
    model(images)
    assert called_in_all - len(in_first_exit) < len(called), "the backbone was left half way"
    logits, taken = model.forward_early(images, lambda _index, logits: torch.zeros(len(logits), dtype=torch.bool))
    assert torch.equal(logits, model(images))
    assert taken.tolist() == [len(model.exits)] * 3


@pytest.mark.parametrize("name", BRANCHY)
def test_the_cost_of_an_exit_is_the_way_there(name: str) -> None:
    model = built(name)
    channels, side = BRANCHY[name]
    macs = exit_macs(model, (channels, side, side))
    assert list(macs) == sorted(set(macs))
    plain = count_macs(model, (channels, side, side))
    assert plain == count_macs(model.backbone, (channels, side, side)), "forward runs no exit"
    shapes = []
    for stage in model.stages:
        model.backbone.get_submodule(stage).register_forward_hook(lambda _m, _x, y: shapes.append(tuple(y.shape[1:])))
    with torch.no_grad():
        model(some_images(name, 1))
    exits = sum(count_macs(head, shape) for head, shape in zip(model.exits, shapes, strict=True))
    assert macs[-1] == plain + exits
    assert zoo.measure(model, (channels, side, side)).macs == plain


@pytest.mark.parametrize("name", ATTACHED)
def test_exits_go_on_any_architecture(name: str) -> None:
    torch.manual_seed(0)
    backbone = build(name, num_classes=5, in_chans=3, image_size=32)
    model = add_exits(backbone, [ATTACHED[name]], image=(3, 32, 32), num_classes=5).eval()
    images = torch.randn(4, 3, 32, 32)
    keep = torch.tensor([True, False, False, True])
    logits, taken = model.forward_early(images, lambda _index, _logits: keep)
    assert taken.tolist() == [0, 1, 1, 0]
    torch.testing.assert_close(logits[~keep], backbone(images)[~keep], rtol=1e-4, atol=1e-6)


def test_stages_are_put_in_the_order_in_which_they_run_and_the_mode_stays() -> None:
    backbone = build("resnet20").train()
    model = add_exits(backbone, ["stages.1", "stages.0"], image=(3, 32, 32), num_classes=10, weights=(0.5, 0.7))
    assert model.stages == ("stages.0", "stages.1")
    assert model.auxiliary_weights == (0.5, 0.7)
    assert backbone.training


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (["classifier"], r"an exit after 'classifier' .* take an earlier stage"),
        (["pool"], "the stage 'pool' gives an exit no map"),
        (["stages.1.0.conv1"], "a shortcut passes by the stage 'stages.1.0.conv1'"),
        ([""], "no stage is called ''"),
        (["stages.4"], r"no stage is called 'stages\.4'\. Did you mean 'stages"),
    ],
)
def test_an_exit_that_cannot_be_is_one_sentence(stages: list[str], sentence: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=sentence):
        add_exits(build("resnet20"), stages, image=(3, 32, 32), num_classes=10)


def test_an_exit_after_the_last_map_is_refused() -> None:
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(RecipeError, match="would come after the last layer"):
        add_exits(convolutions, ["1"], image=(3, 8, 8), num_classes=10)
    assert add_exits(convolutions, ["0"], image=(3, 8, 8), num_classes=10).stages == ("0",)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (1.0, 1.0, 1.0)])
def test_weights_are_one_an_exit(weights: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match="2 numbers of 0 or more"):
        add_exits(build("resnet20"), ["stages.0", "stages.1"], image=(3, 32, 32), num_classes=10, weights=weights)


def test_the_loss_weighs_the_exits() -> None:
    model = built("branchy_lenet5").train()
    images, targets = some_images("branchy_lenet5", 4), torch.arange(4)
    last, (first,) = model.forward_with_auxiliary(images)
    model.auxiliary_weights = (0.25,)
    loss = CrossEntropy(0.1)(model, images, targets)
    parts = [nn.functional.cross_entropy(logits, targets, label_smoothing=0.1) for logits in (last, first)]
    torch.testing.assert_close(loss, parts[0] + 0.25 * parts[1])


def test_uncertainty_runs_from_certain_to_even() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(uncertainty(logits, "entropy"), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(uncertainty(logits, "confidence"), torch.tensor([0.0, 0.75]))


@pytest.mark.parametrize(
    ("thresholds", "measure", "sentence"),
    [((1.5,), "entropy", "a threshold of 1.5"), ((-0.1,), "entropy", "-0.1"), ((float("nan"),), "entropy", "nan"),
     ((0.5,), "margin", "measure='margin' was given; entropy or confidence")],
)  # fmt: skip
def test_a_rule_out_of_range_is_refused(thresholds: tuple[float, ...], measure: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        ExitRule(thresholds, measure)  # type: ignore[arg-type]


def graded(count: int = 400) -> Answers:
    """An exit that is right where it is sure, a second that is better, and a whole network that is best."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(10, (count,), generator=generator)
    answers = []
    for skill in (2.0, 3.0, 5.0):
        logits = torch.randn(count, 10, generator=generator)
        strength = torch.rand(count, generator=generator) * skill * 2
        logits[torch.arange(count), labels] += strength
        answers.append(logits * (1 + strength[:, None]))
    return Answers(torch.stack(answers), labels)


MACS = (100, 250, 1000)


def test_an_outcome_counts_who_leaves_where() -> None:
    answers = graded()
    nobody = outcome(answers, ExitRule((0.0, 0.0)), MACS)
    assert nobody.leaving == (0, 0, 400)
    assert nobody.mean_macs == 1000
    assert nobody.correct == int((answers.logits[2].argmax(1) == answers.labels).sum())
    all_at_second = outcome(answers, ExitRule((0.0, 1.0)), MACS)
    assert all_at_second.leaving == (0, 400, 0)
    assert all_at_second.mean_macs == 250
    assert all_at_second.correct == int((answers.logits[1].argmax(1) == answers.labels).sum())
    some = outcome(answers, ExitRule((0.3, 0.5)), MACS)
    assert min(some.leaving) > 0
    assert sum(some.leaving) == some.total == 400
    assert some.mean_macs == sum(n * cost for n, cost in zip(some.leaving, MACS, strict=True)) / 400
    assert some.top1 == some.correct / 400


@pytest.mark.parametrize("measure", ["entropy", "confidence"])
def test_a_chosen_rule_keeps_to_what_was_wanted(measure: str) -> None:
    answers = graded()
    every = curve(answers, MACS, measure=measure, levels=200)  # type: ignore[arg-type]
    assert every[0].mean_macs == 1000
    assert every[-1].mean_macs < 200
    wanted = every[0].top1 - 0.01
    chosen = choose_rule(answers, MACS, accuracy=wanted, measure=measure)  # type: ignore[arg-type]
    assert chosen.top1 >= wanted
    assert chosen.mean_macs < 900
    assert chosen.rule.measure == measure
    assert all(found.mean_macs >= chosen.mean_macs for found in every if found.top1 >= wanted)
    thrifty = choose_rule(answers, MACS, mean_macs=400, measure=measure)  # type: ignore[arg-type]
    assert thrifty.mean_macs <= 400
    assert all(found.correct <= thrifty.correct for found in every if found.mean_macs <= 400)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"accuracy": 1.0}, r"accuracy=1.0 was wanted; the best rule gives 0\."),
        ({"mean_macs": 50.0}, "leaving at once takes 1"),
        ({}, "give either accuracy"),
        ({"accuracy": 0.9, "mean_macs": 300.0}, "give either accuracy"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_sentence(wanted: dict[str, float], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        choose_rule(graded(), MACS, **wanted)  # type: ignore[arg-type]


def test_a_rule_of_another_number_of_exits_is_refused(digits: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(RecipeError, match="1 thresholds were given for a network with 2 exits"):
        outcome(graded(), ExitRule((0.5,)), MACS)
    with pytest.raises(RecipeError, match="2 thresholds were given for a network with 1 exits"):
        evaluate_early(built("branchy_lenet5"), digits[1], ExitRule((0.5, 0.5)), (1, 2))


@pytest.mark.slow
def test_trained_on_digits_most_leave_early_and_the_stored_file_does_the_same(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, test = digits
    torch.manual_seed(0)
    model = zoo.create_model("branchy_lenet5", dataset="digits")
    assert isinstance(model, EarlyExits)
    recipe = replace(get_recipe("mnist-plain"), epochs=6, batch_size=32)
    zoo.fit(model, train, None, recipe)
    macs = exit_macs(model, train.image)
    answers = exit_answers(model, test)
    whole = zoo.evaluate(model, test)
    assert outcome(answers, ExitRule((0.0,)), macs).correct == whole.correct
    assert whole.top1 > 0.9
    rule = ExitRule((0.3,))
    foretold = outcome(answers, rule, macs)
    for batch_size in (7, 500):
        found = evaluate_early(model, test, rule, macs, batch_size=batch_size)
        assert abs(found.correct - foretold.correct) <= 1
        assert abs(found.mean_macs - foretold.mean_macs) <= (macs[1] - macs[0]) / len(test)
    assert foretold.leaving[0] > len(test) / 2
    assert foretold.top1 > 0.9
    packed = compress(model, [PruneChannels(0.25), Code()], dataset="digits")
    save_packed(tmp_path / "small.zpk", packed)
    small, _ = load_packed(tmp_path / "small.zpk")
    assert isinstance(small, EarlyExits)
    assert exit_macs(small, train.image)[0] < macs[0]
    again = evaluate_early(small, test, rule, exit_macs(small, train.image))
    assert again.correct == evaluate_early(packed.model, test, rule, exit_macs(small, train.image)).correct  # type: ignore[arg-type]
