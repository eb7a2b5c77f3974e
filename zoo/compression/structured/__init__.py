"""Structured pruning: channels, neurons and blocks that are really removed, over a dependency graph of our own.

labels, rules, tracer   one forward pass in which every channel is followed from maker to readers
graph                   what can only be removed together
shrink                  the smaller network, proved by following the channels that stay
importance, choice      which channels go
stage, blocks           PruneChannels, DropLayers
"""

from zoo.compression.structured.blocks import DropLayers
from zoo.compression.structured.graph import Family, Graph
from zoo.compression.structured.importance import IMPORTANCES, importance
from zoo.compression.structured.shrink import dependency_graph, shrink
from zoo.compression.structured.stage import PruneChannels

__all__ = ["IMPORTANCES", "DropLayers", "Family", "Graph", "PruneChannels", "dependency_graph", "importance", "shrink"]
