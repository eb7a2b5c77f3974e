"""Compression: methods that compose, each on a page of its own, and a file whose bytes are counted.

>>> packed = zoo.compress(model, [Prune(density=0.08), Share(bits=5), Huffman()], train=train, valid=valid)
>>> packed.receipts[-1].file_bytes
"""

from zoo.compression.binary import Binarize
from zoo.compression.calibrate import Calibrate
from zoo.compression.container import load_packed
from zoo.compression.fold import FoldBatchNorm
from zoo.compression.halve import Halve
from zoo.compression.pipeline import Code, Huffman, Packed, compress, save_packed
from zoo.compression.prune import Prune
from zoo.compression.quantize import Quantize
from zoo.compression.receipts import LayerReceipt, Receipt, write_receipts
from zoo.compression.search import Auto
from zoo.compression.share import Share
from zoo.compression.stage import Stage, Treated, Workbench
from zoo.compression.structured.blocks import DropLayers
from zoo.compression.structured.stage import PruneChannels
from zoo.compression.switches import LearnSwitches
from zoo.compression.train import Train
from zoo.compression.vectors import ProductQuantize, ResidualQuantize

__all__ = [
    "Auto",
    "Binarize",
    "Calibrate",
    "Code",
    "DropLayers",
    "FoldBatchNorm",
    "Halve",
    "Huffman",
    "LayerReceipt",
    "LearnSwitches",
    "Packed",
    "ProductQuantize",
    "Prune",
    "PruneChannels",
    "Quantize",
    "Receipt",
    "ResidualQuantize",
    "Share",
    "Stage",
    "Train",
    "Treated",
    "Workbench",
    "compress",
    "load_packed",
    "save_packed",
    "write_receipts",
]
