"""Forecasts from past neighbours, and how good they were beside the base rate."""
