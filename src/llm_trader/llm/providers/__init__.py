"""Language models behind one protocol.

`protocol`   what a request and a reply are, and what can go wrong between them
"""
