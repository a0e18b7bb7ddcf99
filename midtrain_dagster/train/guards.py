"""What keeps a run from harming its model: steps that are not applied, and reasons to end early. All of them counted."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from midtrain_dagster.train.plan import Guards


@dataclass
class Watch:
    """The guards' memory; it is part of a checkpoint, so that a resumed run decides as an undisturbed one."""

    rules: Guards
    recent: deque[float] = field(default_factory=deque)
    counts: dict[str, int] = field(default_factory=lambda: {"nonfinite": 0, "spike": 0, "rollbacks": 0})
    in_a_row: int = 0
    general_before: float | None = None

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """`nonfinite` or `spike` if this step must not be applied, else None. Counts it, and remembers healthy losses."""
        found = None
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            found = "nonfinite"
        elif self._is_spike(loss):
            found = "spike"
        if found:
            self.counts[found] += 1
            self.in_a_row += 1
            return found
        self.in_a_row = 0
        self.recent.append(loss)
        while len(self.recent) > self.rules.spike_window:
            self.recent.popleft()
        return None

    def _is_spike(self, loss: float) -> bool:
        if not self.rules.spike_deviations or len(self.recent) < self.rules.spike_minimum:
            return False
        mean = math.fsum(self.recent) / len(self.recent)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in self.recent) / len(self.recent))
        return loss > mean + self.rules.spike_deviations * max(deviation, 0.01 * mean)

    def must_stop(self, problem: str) -> str | None:
        """The reason to end the run after this problem, or None to go on with the next step."""
        if problem == "spike" and self.rules.spike_action == "stop":
            return "the loss spiked"
        if self.in_a_row > self.rules.max_skipped_in_a_row:
            return f"{self.in_a_row} steps in a row could not be applied ({problem})"
        return None

    def forgets(self, general_loss: float) -> bool:
        """Whether the general validation loss rose beyond tolerance. The first call, before training, sets the mark."""
        if self.general_before is None:
            self.general_before = general_loss
        tolerance = self.rules.general_tolerance
        return tolerance is not None and general_loss > self.general_before + tolerance

    def state(self) -> dict[str, Any]:
        return {k: (list(v) if isinstance(v, deque) else v) for k, v in vars(self).items() if k != "rules"}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, deque(value) if name == "recent" else value)
