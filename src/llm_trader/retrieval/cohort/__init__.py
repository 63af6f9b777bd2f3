"""Cohorts: past states like the one in question that also meet conditions, and what followed them.

`conditions` is the menu, the name of a cohort, and what looking at it costs; `outcomes` compares
what followed a cohort with what usually follows.
"""
