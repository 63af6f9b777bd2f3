"""SERVE: JSON-RPC 2.0 over TCP.

A request passes through these files in this order; none of them knows a later one's business.

1. `server`      listens, keeps connections, drains on stop; `limits` are its numbers and its gate
2. `connection`  one client: bytes in, answers side by side, bytes out; `clocks` bound its waits
3. `framing`     documents out of the byte stream, without I/O
4. `rpc`         the dispatcher: batches, ids, deadlines, the internal-error boundary
5. `envelope`    what is a call, what is not, and how a reply is written
6. `params`      parameters into structs, all field errors at once
7. `builtin`     `rpc.ping`, `rpc.authenticate`, `rpc.discover`
8. `errors`      exceptions to JSON-RPC codes, one table

`auth` checks tokens and refuses to listen unprotected; `client` is the other end of the line.
"""
