"""Deciders on past states: the cases that a server would have made, and what is made of them.

`cases`      each state with its evidence, as it was or altered
`deciding`   many cases decided at once, whatever fails
`reading`    whether decisions follow the evidence, beyond noise
`results`    what such a study finds
"""
