"""The environments by the name of their benchmark."""

from midtrain_dagster.evaluate.environments import database, explain, shell, tools
from midtrain_dagster.evaluate.environments.play import Kind

KINDS: dict[str, Kind] = {
    "dbbench": database.KIND,
    "os_interaction": shell.KIND,
    "tool_steps": tools.KIND,
    "humanevalexplain": explain.KIND,
}
