"""JSON-RPC 2.0 over TCP. This room knows the protocol and nothing of markets.

A request passes through these files in this order; none of them knows a later one's business.

1. `server`      listens, keeps connections, drains on stop; `limits` holds its numbers and its gate
2. `connection`  one client: bytes in, replies side by side, bytes out; `deadlines` bound its waits
3. `framing`     finds documents in the byte stream, without I/O
4. `dispatcher`  batches, ids, deadlines, and the boundary that catches internal errors
5. `envelope`    decides what is a call and writes replies
6. `params`      decodes parameters into structs and reports all field errors at once
7. `builtin`     `rpc.ping`, `rpc.authenticate`, `rpc.discover`
8. `errors`      maps exceptions to JSON-RPC codes in one table

`auth` checks tokens and refuses to listen unprotected; `client` is the other end of the line.
"""
