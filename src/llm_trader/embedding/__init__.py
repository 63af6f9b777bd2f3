"""Snapshots to vectors in which cosine similarity means something.

`features`  the scale-free features of a market state, with their constants and weights
`state`     features to angles to unit vectors; queries that lack some features
"""
