"""How much each set of coupled channels matters: a score of every class, larger where it matters more."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.compression.structured.graph import Graph
from zoo.data import Dataset, normalize
from zoo.errors import CompressionError, unknown

BATCH = 128
IMPORTANCES = ("l1", "l2", "bn", "apoz", "taylor", "random")
NEED_DATA = ("apoz", "taylor")
COMPARABLE = ("bn", "apoz", "taylor", "random")  # between layers as they are; norms are not


def importance(
    model: nn.Module, graph: Graph, method: str, *, data: Dataset | None = None, samples: int = 512, seed: int = 0
) -> dict[int, float]:
    """Score of every class of `graph` that the method can judge; `model` has no parametrizations.

    l1, l2: norm of the filters that make the channel (arXiv:1608.08710, section 3.1). bn: magnitude of its batch-norm
    scale (network slimming, arXiv:1708.06519). apoz: 1 - share of zeros in it where the next layer reads it
    (arXiv:1607.03250, equation 1). taylor: squared sum of weight * gradient, of the batch norm where there is one, else
    of the filters (arXiv:1906.10771). random: uniform. The scores of coupled channels are averaged.
    data: labelled images for apoz and taylor, of which `samples` drawn by `seed` are used.
    Raises UnknownNameError for another method, CompressionError without images.
    """
    if method not in IMPORTANCES:
        raise unknown("importance", method, IMPORTANCES)
    if method in NEED_DATA and data is None:
        raise CompressionError(f"importance={method!r} needs images; give train=zoo.load_dataset(NAME, 'train').")
    if method == "random":
        return _random(graph, seed)
    if method == "bn":
        return _average(graph, _scales(model, graph), "outputs")
    if data is not None and method in NEED_DATA:
        batches = partial(labelled_batches, model, data, samples, seed)
        if method == "apoz":
            return _average(graph, _nonzero_shares(model, graph, batches()), "inputs")
        return _taylor(model, graph, batches())
    return _average(graph, _norms(model, graph, 1 if method == "l1" else 2), "outputs")


def _average(graph: Graph, by_layer: Mapping[str, Tensor], side: str) -> dict[int, float]:
    """Mean over the members of each class of the scores of layers' inputs or outputs."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for name, scores in by_layer.items():
        layer = graph.layers[name]
        classes = graph.class_of(layer.inputs if side == "inputs" else layer.outputs)
        for channel, score in zip(classes, scores.double().tolist(), strict=True):
            sums[channel] = sums.get(channel, 0.0) + score
            counts[channel] = counts.get(channel, 0) + 1
    wanted = {channel for family in graph.families for channel in family.channels}
    return {channel: total / counts[channel] for channel, total in sums.items() if channel in wanted}


def _random(graph: Graph, seed: int) -> dict[int, float]:
    channels = [channel for family in graph.families for channel in family.channels]
    scores = torch.rand(len(channels), generator=torch.Generator().manual_seed(seed))
    return dict(zip(channels, scores.tolist(), strict=True))


def _norms(model: nn.Module, graph: Graph, order: int) -> dict[str, Tensor]:
    weights = {name: _tensor(model, name, "weight") for name, layer in graph.layers.items() if layer.kind != "norm"}
    return {name: w.detach().cpu().flatten(1).norm(order, 1) for name, w in weights.items() if w is not None}


def _scales(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    scales = {name: _tensor(model, name, "weight") for name, layer in graph.layers.items() if layer.kind == "norm"}
    return {name: scale.detach().cpu().abs() for name, scale in scales.items() if scale is not None}


def _nonzero_shares(model: nn.Module, graph: Graph, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Share of non-zero activations of each input of each layer with weights."""
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def count(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            other = [d for d in range(args[0].dim()) if d != (1 if args[0].dim() == 4 else args[0].dim() - 1)]
            share = (args[0] != 0).double().mean(other).cpu()
            found[name] = found.get(name, torch.zeros_like(share)) + share * len(args[0])
            calls[name] = calls.get(name, 0) + len(args[0])

        return hook

    names = [name for name, layer in graph.layers.items() if layer.kind != "norm"]
    handles = [model.get_submodule(name).register_forward_pre_hook(count(name)) for name in names]
    try:
        with torch.no_grad():
            for images_NCHW, _ in batches:
                model(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    return {name: share / calls[name] for name, share in found.items()}


def _taylor(model: nn.Module, graph: Graph, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[int, float]:
    found: dict[str, Tensor] = {}
    learned = {name: model.get_submodule(name) for name in graph.layers}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.requires_grad_(True)
        for images_NCHW, labels_N in batches:
            model.zero_grad()
            cross_entropy(model(images_NCHW), labels_N).backward()
            for name, module in learned.items():
                products = [p * p.grad for p in module.parameters(recurse=False) if p.grad is not None]
                if products:
                    change = torch.stack([p.detach().cpu().reshape(len(p), -1).sum(1) for p in products]).sum(0)
                    found[name] = found.get(name, torch.zeros_like(change)) + change**2
    finally:
        model.zero_grad()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    norms = {name: score for name, score in found.items() if graph.layers[name].kind == "norm"}
    filters = {name: score for name, score in found.items() if name not in norms}
    return _average(graph, filters, "outputs") | _average(graph, norms, "outputs")


def labelled_batches(model: nn.Module, data: Dataset, samples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and labels, on the model's device, drawn without replacement."""
    device = next(model.parameters()).device
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:samples]
    for some in rows.split(BATCH):
        some = some.to(data.images.device)
        images_NCHW = normalize(data.images[some].to(device), data.mean, data.std)
        yield images_NCHW, data.labels[some].to(device)


def _tensor(model: nn.Module, name: str, tensor: str) -> Tensor | None:
    value = getattr(model.get_submodule(name), tensor)
    return value if isinstance(value, Tensor) else None
