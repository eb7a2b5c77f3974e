"""Compression: methods that compose, each on a page of its own, and a file whose bytes are counted.

>>> packed = zoo.compress(model, [Prune(density=0.08), Share(bits=5), Huffman()], train=train, valid=valid)
>>> packed.receipts[-1].file_bytes
"""

from zoo.compress.binary import Binarize
from zoo.compress.calibrate import Calibrate
from zoo.compress.container import load_packed
from zoo.compress.fold import FoldBatchNorm
from zoo.compress.pipeline import Code, Huffman, Packed, compress, save_packed
from zoo.compress.prune import Prune
from zoo.compress.quantize import Quantize
from zoo.compress.receipts import LayerReceipt, Receipt, write_receipts
from zoo.compress.search import Auto
from zoo.compress.share import Share
from zoo.compress.stage import Stage, Treated, Workbench
from zoo.compress.structured.blocks import DropLayers
from zoo.compress.structured.stage import PruneChannels
from zoo.compress.vectors import ProductQuantize, ResidualQuantize

__all__ = [
    "Auto",
    "Binarize",
    "Calibrate",
    "Code",
    "DropLayers",
    "FoldBatchNorm",
    "Huffman",
    "LayerReceipt",
    "Packed",
    "ProductQuantize",
    "Prune",
    "PruneChannels",
    "Quantize",
    "Receipt",
    "ResidualQuantize",
    "Share",
    "Stage",
    "Treated",
    "Workbench",
    "compress",
    "load_packed",
    "save_packed",
    "write_receipts",
]
