"""GraphQL over HTTP: its fields are the `rag.*` methods, each call with a turn of its own.

A request passes through these modules in this order.

1. `endpoint`  takes the document in a turn of the queue, and puts the answers together
2. `document`  parses and validates; keeps what clients send again
3. `schema`    the types, made from the structs of the wire by Strawberry
4. `plan`      the fields to answer, within limits of depth, aliases and number
5. `answers`   picks these fields from results, within the turn of the call

It needs the extra `graphql`. Strawberry would run a document as well, but takes 8 µs for each
value, outside of any turn: for a whole answer longer than its query.
"""
