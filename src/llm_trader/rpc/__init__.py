"""JSON-RPC 2.0 over TCP, HTTP and WebSocket. This room knows the protocol and nothing of markets.

A request passes through these modules in this order.

1. `server`        keeps connections, drains on stop; `listener` accepts them
2. `connection`    one client: bytes in, concurrent replies, bytes out
3. `framing`       finds documents in the byte stream, without I/O
4. `dispatcher`    batches, ids, deadlines, and the boundary that catches internal errors
5. `envelope`      recognises calls and writes replies
6. `admission`     the gate: keys, limits, load; `fair_queue` says whose turn it is
7. `params`        decodes parameters into structs and reports all field errors at once
8. `builtin`       `rpc.ping`, `rpc.authenticate`, `rpc.discover`
9. `errors`        maps exceptions to JSON-RPC codes; a server extends its table
10. `reply_budget` bounds what clients leave unread, `unread_watch` for how long; `loop_clock` has
    the time that they may be held to
11. `observer`     reports each request to logs, metrics and audit

`keys` says who a client is and what it may do, `key_file` keeps them; `client_limits` counts what
each has used, in `token_buckets`, and with `shared_limits` in a Redis. `tls` has the certificate of
all doors.

`http/` is the door of HTTP and WebSocket into the same dispatcher, and `http_on_tcp` tells who
knocks at the wrong one. `config` has the settings. `client` sends requests on one connection; ids
and framing of its side, for TCP and HTTP, are in `conversation`.
"""
