"""Who asked what, when, and what came of it: lines that nobody can change unnoticed.

`log.py` writes a line for each request before its reply is sent; `storage/chain/` seals lines, and
finds what was changed, removed, moved or cut off. A line has no parameters and nothing else that a
client chose.
"""
