"""The parts of `make demo-trading`; `scripts/demo_trading.py` tells the story."""
