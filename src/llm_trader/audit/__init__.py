"""Who asked what, when, and what came of it: lines that nobody can change unnoticed.

1. `log.py` writes a line for each request before its reply is sent.
2. `chain.py` seals a line: its hash covers its bytes and the hash of the line before.
3. `verification.py` reads all lines again, and finds what was changed, removed, moved or cut off.

A line has no parameters and nothing else that a client chose.
"""
