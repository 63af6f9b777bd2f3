"""Tools for assistants, by the Model Context Protocol.

1. `tools`      each tool: its arguments, the method that it calls, and its answer
2. `answers`    the answers: parts of the methods' results, without what differs from call to call
3. `receipts`   what makes an answer anew, and its digest
4. `calls`      a call becomes one of the dispatcher, with its turn, limits and records
5. `protocol`   the official SDK's server, also on stdio; it and `endpoint` alone import the SDK
6. `endpoint`   `POST /mcp`
"""
