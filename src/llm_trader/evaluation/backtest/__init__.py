"""What decisions made from forecasts would have earned."""
