"""What the nodes of a graph do.

`running`     calls the service of a node's type
`retrieving`  the tool: a query over JSON-RPC
`scripts`     the registered Python functions; the prompt is one
`deciding`    asks a model, or the aggregator, and records the decision
`trading`     guard and execution, with what they ask of a broker
"""
