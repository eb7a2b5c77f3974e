"""Scores: counted by hand, on every image once, and the model left as it was."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from zoo.data import Dataset, normalize
from zoo.errors import DataError
from zoo.evaluation import Evaluation, evaluate, predict_logits, score


class Brightness(nn.Module):
    """Class 1 for a bright image, class 0 for a dark one; it counts its batches and checks its mode."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.classes = classes
        self.batches: list[int] = []
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(len(images_NCHW))
        logits = torch.zeros(len(images_NCHW), self.classes)
        logits[:, 1] = self.norm(images_NCHW).mean((1, 2, 3))
        return logits


def test_a_confusion_matrix_by_hand() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 3, 1], [1, 0, 2], [5, 0, 0]])
    labels = torch.tensor([0, 1, 2, 2, 1])
    result = score(logits, labels)
    assert (result.correct, result.total, result.top1) == (3, 5, 0.6)
    assert result.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert result.confusion.dtype == torch.int64
    by_hand = -(logits.double().log_softmax(1)[range(5), labels]).mean()
    assert result.loss == pytest.approx(float(by_hand))


def test_every_image_is_scored_once_and_normalised(tiny: Dataset) -> None:
    model = Brightness()
    odd = tiny.labels.view(-1, 1, 1, 1) % 2
    bright = replace(tiny, images=(255 * odd).to(torch.uint8).expand(-1, 3, 32, 32))
    result = evaluate(model, bright, batch_size=30)
    assert model.batches == [30, 30, 30, 10]
    assert result.total == 100
    assert result.correct == 20  # the zeros and the ones
    assert result.confusion[:, 0].tolist() == [10, 0] * 5
    assert result.confusion[:, 1].tolist() == [0, 10] * 5
    logits = predict_logits(model, bright, 7, torch.device("cpu"))
    with torch.no_grad():
        assert logits.equal(model.eval()(normalize(bright.images, bright.mean, bright.std)))
    assert logits.dtype == torch.float32


def test_the_mode_of_every_module_is_restored(tiny: Dataset) -> None:
    model = Brightness().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, tiny)
    assert model.training
    assert not model.norm.training
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_the_mode_is_restored_after_a_failure(tiny: Dataset) -> None:
    class Broken(nn.Module):
        def forward(self, _images: Tensor) -> Tensor:
            raise ZeroDivisionError

    model = Broken().train()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, tiny)
    assert model.training


@pytest.mark.parametrize("classes", [9, 11])
def test_a_mismatch_of_classes_is_said(tiny: Dataset, classes: int) -> None:
    with pytest.raises(DataError, match=f"the model has {classes} classes and tiny has 10"):
        evaluate(Brightness(classes), tiny)


def test_nothing_to_score_is_said(tiny: Dataset) -> None:
    with pytest.raises(DataError, match="tiny has no images to score"):
        evaluate(Brightness(), tiny.subset([]))


def test_half_precision_is_for_the_forward_pass(tiny: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 1024, 10))
    full, half = (predict_logits(model, tiny, 50, torch.device("cpu"), precision) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.float32
    assert not half.equal(full)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


def test_top1_is_a_share() -> None:
    assert Evaluation(1, 4, 0.0, torch.zeros(2, 2)).top1 == 0.25
