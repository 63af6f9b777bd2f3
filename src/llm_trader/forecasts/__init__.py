"""The forecasts that were served, and what came of them.

1. `numbers.py` takes from an answer what its forecasts are scored by.
2. `journal.py` writes them down before the reply is sent, so before the outcome is known.
3. `reading.py` reads the journal of all processes, in the order of time.
4. `scoring.py` keeps each forecast until its horizons have passed, and scores it once.
5. `outcomes.py` takes what followed from the market store.
6. `quality.py` says how good they were, with intervals; `served.py` does all of it in a server.

A score follows from a line of the journal and the store alone, so nothing can be scored twice, and
corrections of the store reach it.
"""
