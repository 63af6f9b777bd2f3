"""A server that speaks the language models' interfaces as of November 2026, for tests and demos.

`server`   accepts connections, in a thread of its own
`apis`     what the three interfaces take and give: Responses, chat completions, Messages
`faults`   what can go wrong on the way, by script
`replies`  what the stand-in for a model says: a function of the request, which can be replaced
"""
