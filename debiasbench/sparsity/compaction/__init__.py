"""Exact removal of dead channels: a masked network in, a smaller ordinary network out.

`compact` is the entry. `tracing` records the graph, `rules` find which features are dead,
`liveness` decides which channels go, `shrinking` cuts the layers.
"""
