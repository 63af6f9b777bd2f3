"""Files of lines that nobody can change unnoticed: the audit log, the journal of forecasts.

1. `lines.py` seals a line: its hash covers its bytes and the hash of the line before.
2. `writer.py` writes a line in one call, so that a killed process has written all that it answered.
3. `verification.py` reads all lines again, and finds what was changed, removed, moved or cut off.
"""
