"""SERVE: the `rag.*` methods over JSON-RPC; the protocol itself is in `rpc`.

`wire` declares requests and results, `methods` answers them, `error_codes` adds the domain's codes
to those of the protocol.
"""
