"""The archive of torch.export."""

from pathlib import Path

import torch
from exported_networks import images, network_of, relative_error

from zoo.data import normalize
from zoo.interop.archive import export_archive

IMAGE = (3, 32, 32)


def test_the_archive_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    model = network_of("lenet5")
    written = export_archive(model, tmp_path / "x.pt2", image=IMAGE, metadata={"top1": "0.9"})
    extra = {"top1": ""}
    read = torch.export.load(tmp_path / "x.pt2", extra_files=extra).module()
    assert extra == {"top1": "0.9"}
    for count in (1, 7):
        batch = images(count, IMAGE)
        with torch.no_grad():
            assert torch.equal(read(batch), written(batch))
            assert relative_error(read(batch), model(batch)) < 1e-5


def test_normalisation_can_be_inside(tmp_path: Path) -> None:
    model, mean, std = network_of("lenet5"), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    written = export_archive(model, tmp_path / "x.pt2", image=IMAGE, mean=mean, std=std)
    pixels = torch.randint(256, (3, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert relative_error(written(pixels), model(normalize(pixels, mean, std))) < 1e-5
