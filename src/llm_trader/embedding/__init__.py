"""Turns snapshots into vectors whose cosine similarity compares market states.

`features`          the scale-free features of a market state, with their constants and weights
`state`             features to angles to unit vectors, also for queries that lack some features
`text`              the sentence of a state, encoded by a transformer
`fastembed_models`  opens transformers with FastEmbed; `model_folder` describes their files
`text_cache`        keeps the vectors of queries in the process and in Redis
"""
