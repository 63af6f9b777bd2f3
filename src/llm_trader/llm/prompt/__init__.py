"""Writes the prompt of a decision. The rules of its text are in docs/prompts.md.

`render`     the whole prompt, of an arm: `rag`, or `baseline`, which lacks the evidence alone
`system`     the stable first part: the task, and the form of the reply
`market`     the state of the market
`evidence`   what followed similar states
`retrieved`  the part of an answer that the evidence is written from
`numbers`    how numbers and foreign words are written
"""
