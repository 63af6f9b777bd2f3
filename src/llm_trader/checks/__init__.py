"""What proves the rooms above on samples of their own data.

`leak_check`         an answer used only what was known at its time
`stored_points`      what an index holds, compared with the market data of now
`cutoff`             what was known at a time, made again with the future cut off
`agreement`          two indexes give equal answers
`copy_verification`  an index is a true copy of another
`recall`             how much an approximate search finds of what an exact one finds
`vector_comparison`  the state and the text vectors of an index, side by side
`sampling`           seeded random choices of what a check looks at
"""
