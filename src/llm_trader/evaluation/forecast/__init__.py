"""Forecasts from past neighbours, and how good they were beside a volatility model."""
