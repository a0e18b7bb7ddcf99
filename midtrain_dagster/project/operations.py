"""How a project is run day by day: what is watched, how fresh it must be, what it costs and may cost, what is kept.

Nothing here decides what a run makes; a change here makes nothing out of date.
"""

from pydantic import Field

from midtrain_dagster.settings import Settings


class MachinePrices(Settings):
    """What the machine costs, in the currency of the teacher's price table."""

    cpu_hour: float = Field(0.0, ge=0, description="An hour of one core at work.")
    gpu_hour: float = Field(0.0, ge=0, description="An hour of one accelerator held.")


class Budget(Settings):
    """What one run may use. A run that reaches a limit ends in order: what is finished stays, training keeps its checkpoint."""

    hours: float | None = Field(None, gt=0, description="From the start of the run.")
    money: float | None = Field(None, gt=0, description="Machine and teacher together.")
    gpu_hours: float | None = Field(None, gt=0, description="Accelerators times hours held.")


class Retention(Settings):
    """What `midtrain vacuum` keeps. Whatever a checkpoint was made from is kept in any case."""

    days: float = Field(30.0, ge=0, description="Versions and artifacts younger than this stay.")
    schedule: str | None = Field("0 4 * * 0", description="Cron line of the weekly vacuum; null: never by itself.")


class Operations(Settings):
    """The `operations:` section of a project file."""

    watch: tuple[str, ...] = Field((), description="Sources whose place is looked at all the time; `*`: every source of files.")
    watch_seconds: int = Field(60, ge=1, description="Between two looks.")
    fresh_hours: float | None = Field(
        None, gt=0, description="A source that was not looked at for so long is stale in the UI; a warning comes at half of it."
    )
    reevaluate: str | None = Field(
        "0 5 * * 1", description="Cron line: checkpoints against benchmarks that were added since; null: never by itself."
    )
    priority: dict[str, int] = Field({}, description="Recipe → priority of its runs in the queue; 0 where not named.")
    network_pool: bool = Field(True, description="Sources that are fetched over the network run one at a time.")
    retention: Retention = Retention()
    prices: MachinePrices = MachinePrices()
    budget: Budget = Budget()
    openlineage: str | None = Field(
        None,
        description="Address of an OpenLineage endpoint; without one OPENLINEAGE_URL is looked at. Key: OPENLINEAGE_API_KEY.",
    )
