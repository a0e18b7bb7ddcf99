"""Tool-use trajectories: a request, then plan, call and observation in turns, then an answer (ReAct, arXiv:2210.03629)."""

import json
from typing import Any

from midtrain_dagster.project.generators import Trajectories
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.generator import Conversation, Draft, Parent, Rejected, Verdict, WritingGenerator, usable
from midtrain_dagster.synthesize.prompts import fill
from midtrain_dagster.synthesize.simulated_tools import Tool, tools
from midtrain_dagster.synthesize.teacher import Message

STEP = {
    "type": "object",
    "properties": {
        "thought": {"type": "string"},
        "tool": {"type": "string"},
        "arguments": {"type": "object"},
        "answer": {"type": "string"},
    },
    "required": ["thought"],
}


class TrajectoryWriting(WritingGenerator):
    """The teacher plans, calls and answers; the calls are executed here. An answer that no observation bears out is none."""

    format, prompts = "trajectory", ("tool_question", "tool_step")
    settings: Trajectories

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        parent = parents[0]
        passage = self.passages(parent)[0]
        offered = tools(self.settings.tools, passage)
        shown = "\n".join(json.dumps(tool.schema()) for tool in offered.values())
        (reply,) = yield [self.request(parent, 0, fill("tool_question", tools=shown, passage=passage))]
        wish = acceptance.strip(usable(reply))
        if acceptance.too_short(wish, 4):
            raise Rejected("too short")
        messages: list[Message] = [
            {"role": "system", "content": fill("tool_step", tools=shown)},
            {"role": "user", "content": wish},
        ]
        observations: list[str] = []
        for turn in range(self.settings.turns + 1):
            (reply,) = yield [self.request(parent, 1 + turn, messages, json_schema=STEP, temperature=0.0)]
            step = json.loads(usable(reply))
            if "answer" in step:
                return [self._verdict(1 + turn, parent, messages, step, observations, shown)]
            seen = self._execute(offered, step)
            if seen in observations:
                raise Rejected("goes in circles")
            observations.append(seen)
            messages = [
                *messages,
                {"role": "assistant", "content": json.dumps(step, ensure_ascii=False)},
                {"role": "user", "content": f"Observation: {seen}"},
            ]
        raise Rejected("no answer in time")

    def _execute(self, offered: dict[str, Tool], step: dict[str, Any]) -> str:
        """The observation of a call. Raises Rejected for a tool that there is not; a wrong argument is an observation."""
        tool = offered.get(str(step.get("tool")))
        if tool is None:
            raise Rejected("unknown tool")
        try:
            return tool(step.get("arguments"))
        except ValueError as error:
            return f"error: {error}"

    def _verdict(
        self, number: int, parent: Parent, messages: list[Message], step: dict[str, Any], observations: list[str], shown: str
    ) -> Verdict:
        answer = str(step["answer"])
        true = [seen for seen in observations if not seen.startswith("error: ") and seen != "nothing found"]
        if not true:
            return Verdict(number, None, "no tool used", answer)
        if acceptance.grounded(answer, f"{messages[1]['content']} {' '.join(true)}") < 0.6 or not acceptance.grounded(
            answer, " ".join(true)
        ):
            return Verdict(number, None, "answer not grounded", answer)
        turns = [*messages[1:], {"role": "assistant", "content": json.dumps(step, ensure_ascii=False)}]
        lines = [f"Tools:\n{shown}", *(_line(message) for message in turns)]
        told = {"tools": list(self.settings.tools), "calls": len(observations), "messages": [dict(m) for m in turns]}
        return Verdict(number, Draft("\n\n".join(lines), "trajectory", parent.language, told), None, answer)


def _line(message: Message) -> str:
    """A turn as text: what the user says, what the assistant thinks, calls and answers, what is observed."""
    content = str(message["content"])
    if message["role"] == "user":
        return content if content.startswith("Observation: ") else f"User: {content}"
    step = json.loads(content)
    thought = f"Thought: {step['thought']}\n"
    if "answer" in step:
        return f"{thought}Answer: {step['answer']}"
    return f"{thought}Call: {step['tool']}({json.dumps(step['arguments'], ensure_ascii=False)})"
