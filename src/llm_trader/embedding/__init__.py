"""Snapshots to vectors in which cosine similarity means something.

`features`  the scale-free features of a market state, with their constants and weights
`state`     features to angles to unit vectors; queries that lack some features
`text`      a state's wording, encoded by a transformer
`fastembed_models`, `model_folder`  the transformer: opened by FastEmbed, and what its files are
`text_cache`                        vectors of queries, kept in process and in Redis
"""
