"""Sends the state of each market to every intake, once per symbol and interval boundary.

`sender.py` goes through the steps; `boundary.py` and `jobs.py` compute, `intake.py` sends.
"""
