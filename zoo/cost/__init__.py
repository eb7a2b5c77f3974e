"""What a network costs, counted: parameters, multiply-accumulates, memory, bytes. The only place that knows fvcore.

All figures are for one image in eval mode. Each is defined beside its field in `zoo.cost.records.Cost`.

    records      what comes back: Cost, LayerCost, Unsupported
    counters     two independent counts of multiply-accumulates: fvcore, and torch.utils.flop_counter alone
    weights      the parameters, seen through masks, codebooks and other parametrizations
    trace        one forward pass as a list of operators, and what follows from it: liveness, bytes
    measurement  measure(): one model in, one Cost out, the model as it was
    cache        cached_cost(): the same for a registered name, remembered until any source it rests on changes
"""

from zoo.cost.cache import cached_cost
from zoo.cost.counters import count_macs
from zoo.cost.measurement import measure
from zoo.cost.records import Cost, LayerCost, Unsupported

__all__ = ["Cost", "LayerCost", "Unsupported", "cached_cost", "count_macs", "measure"]
