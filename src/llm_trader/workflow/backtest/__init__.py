"""A graph over past states: the same nodes, guards and broker, by another clock.

`clock`     the time of the state that is decided on
`evidence`  what a server would have answered, computed for many states at once
`replay`    plays the market to the broker and runs the graph, state by state
"""
