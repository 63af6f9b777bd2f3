"""Reads what a model replied, strictly: what could be meant otherwise is refused.

`reading`     a reply to a decision
`objects`     the one JSON object of a reply
`fields`      the object to a decision
`statements`  a reply without JSON
`schema`      the JSON Schema for structured output
`repair`      the messages that show a model what was wrong
`error`       why a reply cannot be used
"""
