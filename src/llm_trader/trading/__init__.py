"""The rules of a position, which an evaluation and the workflow share.

`rules`  when a position ends, and what trading costs
`exits`  which of them ends a position at an open or within a candle, and at what price
"""
