"""JSON-RPC 2.0 over TCP. This room knows the protocol and nothing of markets.

A request passes through these modules in this order.

1. `server`      listens, keeps connections, drains on stop; `admission` is its gate
2. `connection`  one client: bytes in, concurrent replies, bytes out
3. `framing`     finds documents in the byte stream, without I/O
4. `dispatcher`  batches, ids, deadlines, and the boundary that catches internal errors
5. `envelope`    recognises calls and writes replies
6. `params`      decodes parameters into structs and reports all field errors at once
7. `builtin`     `rpc.ping`, `rpc.authenticate`, `rpc.discover`
8. `errors`      maps exceptions to JSON-RPC codes; a server extends its table
9. `observer`    reports each request to logs, metrics and audit

`config` has the settings, and `client` sends requests.
"""
