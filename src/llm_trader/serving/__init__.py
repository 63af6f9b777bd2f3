"""SERVE: the `rag.*` methods over JSON-RPC; the protocol itself is in `rpc`.

`wire` declares requests, results and the domain's error codes, `methods` answers the requests.
`subscriptions` and `evidence_push` send evidence unasked, `readiness` says whether all is well.
"""
