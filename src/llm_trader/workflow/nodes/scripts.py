"""The registered scripts: plain functions from one struct to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_trader.llm.prompt.render import render_both, render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.workflow.graph.kinds import ScriptFunction
from llm_trader.workflow.nodes.running import ScriptContext
from llm_trader.workflow.values import PromptInputs, Prompts


def format_prompt(inputs: PromptInputs, context: ScriptContext) -> Prompts:
    """The prompt with the evidence of an answer, and the same without it."""
    if inputs.answer is None:
        baseline = render_prompt("baseline", inputs.snapshot, None, context.prompt)
        return Prompts(rag=None, baseline=baseline)
    retrieved = Retrieved.of_answer(inputs.answer)
    rag, baseline = render_both(inputs.snapshot, retrieved, context.prompt)
    return Prompts(rag=rag, baseline=baseline)


SCRIPTS: Final[Mapping[str, ScriptFunction]] = {"format_prompt": format_prompt}
