"""From a state to the most similar past states, what followed them, and how far to trust that.

`retriever`   one query from vector to answer
`regime`      filters that keep points of the query's open-interest and funding regime
`episodes`    neighbours far enough apart in time to count as separate pieces of evidence
`reference`   what is usual in a window: base rates, similarity of random pairs, novelty
`statistics`  outcomes of the matches summed up
`calibration` what was measured of past evidence: conformal bands, and where neighbours had skill
`evidence`    outcomes of a wider neighbourhood beside the base rate, with intervals, a verdict
`answer`      the records of an answer, named as on the wire
`fusion`      one order out of two, by rank
`leak_check`  proof on samples that an answer used only what was known
`agreement`   whether two indexes answer alike
`vector_comparison`  the state and the text vectors of an index, measured side by side
"""
