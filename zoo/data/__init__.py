"""Data sets as uint8 tensors in memory, and the batch code that augments and normalises them."""

from zoo.data.augment import Augment, augment_batch, mix_batch, normalize
from zoo.data.dataset import DATASETS, Dataset, DatasetInfo, split_validation
from zoo.data.load import dataset_info, describe, load_dataset, refresh_dataset
from zoo.data.preprocess import Preprocess, preprocess

__all__ = [
    "DATASETS",
    "Augment",
    "Dataset",
    "DatasetInfo",
    "Preprocess",
    "augment_batch",
    "dataset_info",
    "describe",
    "load_dataset",
    "mix_batch",
    "normalize",
    "preprocess",
    "refresh_dataset",
    "split_validation",
]
