"""JSON-RPC over HTTP and WebSocket: a second door into the same gate and the same queue.

1. `server`     listens, keeps the connections, and drains them on stop
2. `connection` one HTTP connection: sizes and memory of what it receives; `receipt` its deadline
3. `origin`     checks Host and Origin, so that no web page reaches the server
4. `app`        turns an HTTP request into a document for the dispatcher, and its reply into a
                response; `status` has the HTTP status of each JSON-RPC error
5. `websocket`  documents as frames, and notifications to the client

Starlette routes requests, uvicorn reads and writes HTTP; both are imported in this folder only.
"""
