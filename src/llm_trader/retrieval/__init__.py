"""From a state to the most similar past states, what followed them, and how far to trust that.

`search_spec` which past states a query searches for, and what of them it shows
`retriever`   one query from state to answer
`regime`      filters that keep points in the query's regime of open interest and funding
`fusion`      one order out of two, by rank
`episodes`    neighbours far enough apart in time to count as separate pieces of evidence
`reference`   what is usual in a window: base rates, similarity of random pairs, novelty
`statistics`  the outcomes of the matches
`evidence`    the outcomes of the episodes beside the base rate, with intervals and a verdict
`intervals`   closed formulas for intervals and deviations
`calibration` what was measured of past evidence: conformal bands, and horizons with skill
`answer`      the records of an answer, named as on the wire
"""
