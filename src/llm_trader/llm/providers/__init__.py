"""Language models behind one protocol.

`protocol`      what a request and a reply are, and what can go wrong between them
`capabilities`  what each model takes, and what its provider says of it
`connecting`    the provider that the settings name, with its SDK
`sdk_connection`  attempts, rate, deadline and failures of a call through an SDK
`sdk_failures`  what SDKs raise, as kinds of failure
`anthropic_messages`, `openai_responses`, `chat_completions`  requests and replies of each interface
"""
