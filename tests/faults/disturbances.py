"""What is done to a stage. Each takes the injector, a place for the trial's copy of the project, the trial and a seeded random
generator, and returns whether the run after it was equal to an undisturbed one, and what happened."""

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from forked import child, wait
from small_graph import ORDER, STAGES, InThisProcess, train

from midtrain_dagster.repair import damages, give_up
from midtrain_dagster.tables import Tables


def start(injector: Any, root: Path, trial: dict[str, Any], before: Callable[[], None] = lambda: None) -> tuple[int, Path]:
    """A copy of the project as it was before the stage, and the stage as a victim in it."""
    shutil.copytree(injector.picture(trial["situation"], trial["stage"]), root)
    answer = root.with_name(root.name + ".victim")

    def work() -> None:
        before()
        injector.project.do(STAGES[trial["stage"]].asset, root)

    return child(work, answer), answer


def finish(pid: int, answer: Path) -> dict[str, Any]:
    code = wait(pid)
    told = json.loads(answer.read_text()) if code in (0, 1) and answer.exists() else {}
    answer.unlink(missing_ok=True)
    return {"code": code, "error": told.get("error", "")}


def killed_at_a_time(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """SIGKILL after a random share of the stage's time; sooner where the stage was quicker than that."""
    delay = chance.uniform(0.0, 1.0) * injector.seconds[trial["situation"]][trial["stage"]]
    while True:
        pid, answer = start(injector, root, trial)
        time.sleep(delay)
        hit = os.waitpid(pid, os.WNOHANG)[0] == 0
        if hit:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            answer.unlink(missing_ok=True)
            return {"killed": True, "delay": round(delay, 3), **injector.compared(root, trial)}
        shutil.rmtree(root)
        delay *= 0.6


def killed_at_a_call(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """SIGKILL just before, during or just after one of the calls that change something on disk."""
    calls = chance.randint(1, trial.get("calls", 8))
    moment, pause = chance.choice(("before", "during", "after")), chance.uniform(0.0, 0.01)
    while True:
        pid, answer = start(injector, root, trial, partial(die_at, calls, moment, pause))
        outcome = finish(pid, answer)
        if outcome["code"] == -signal.SIGKILL:
            return {"killed": True, "call": f"{moment} {calls}", **injector.compared(root, trial)}
        if outcome["error"]:
            return {"killed": False, "equal": False, "why": outcome["error"]}
        shutil.rmtree(root)
        if calls == 1 and moment == "before":
            return {"killed": False, "equal": False, "why": "the stage changed nothing on disk"}
        calls, moment = calls // 2 or 1, "before" if calls == 1 else moment


def killed_and_moved_on(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Killed as above; before the second run its inputs have changed, which came of runs that went through."""
    outcome = killed_at_a_call(injector, root, trial, chance)
    if not outcome.get("killed"):
        return outcome
    shutil.rmtree(root)
    pid, answer = start(injector, root, trial, partial(die_at, int(outcome["call"].split()[1]), "after", 0.0))
    finish(pid, answer)
    stage = STAGES[trial["stage"]]
    later = root.with_name(root.name + ".later")
    shutil.copytree(injector.picture("grown", trial["stage"]), later)
    for kept in (*(f"tables/{name}" for name in stage.tables), *([f"artifacts/{stage.artifact}"] if stage.artifact else [])):
        shutil.rmtree(later / "lake" / kept, ignore_errors=True)
        if (root / "lake" / kept).exists():
            shutil.copytree(root / "lake" / kept, later / "lake" / kept)
    shutil.rmtree(root)
    later.rename(root)
    return {**outcome, **injector.compared(root, trial, after="grown")}


def die_at(number: int, moment: str, pause: float) -> None:
    """Arm this process: SIGKILL to itself and its children at the `number`-th call that changes the disk."""
    import deltalake.writer

    from midtrain_dagster import tables

    seen: list[str] = []

    def end() -> None:
        os.killpg(os.getpgid(0), signal.SIGKILL)

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(function.__name__)
            mine = len(seen) == number
            if mine and moment == "before":
                end()
            if mine and moment == "during":
                threading.Timer(pause, end).start()
            result = function(*arguments, **options)
            if mine:
                end()
            return result

        return call

    tables.write_deltalake = watched(deltalake.writer.write_deltalake)  # type: ignore[attr-defined]
    for owner, name in ((os, "replace"), (os, "rename"), (Path, "write_text"), (pl.DataFrame, "write_parquet")):
        setattr(owner, name, watched(getattr(owner, name)))


def full_disk(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """No file may grow beyond a few hundred bytes to some ten thousand, as when the disk is full in the middle of it."""
    limit = chance.choice((0, 200, 700, 2000, 6000, 20000))

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return failed_in_words(injector, root, trial, before, lift=lambda: None)


def failed_in_words(
    injector: Any, root: Path, trial: dict[str, Any], before: Callable[[], None], lift: Callable[[], None]
) -> dict[str, Any]:
    """The victim fails with an error for people, or the fault did not touch it; the second run is equal."""
    shutil.copytree(injector.picture(trial["situation"], trial["stage"]), root)
    answer = injector.work / f"{root.name}.victim"
    told: dict[str, Any] = {}
    reading, writing = os.pipe()

    def work() -> None:
        before()
        try:
            injector.project.do(STAGES[trial["stage"]].asset, root)
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])

    pid = child(work, answer)
    code = wait(pid)
    os.close(writing)
    told["error"] = os.read(reading, 4000).decode("utf-8", "replace")
    os.close(reading)
    answer.unlink(missing_ok=True)
    lift()
    worded = not told["error"] or told["error"].startswith("MidtrainError")
    return {"failed": bool(told["error"]) or code < 0, "in words": worded, **told, **injector.compared(root, trial)}


def read_only(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """No directory of the lake may be written to; root is made to mind that, too."""

    def before() -> None:
        mind_permissions()
        for path in [root / "lake", *(p for p in (root / "lake").rglob("*") if p.is_dir())]:
            path.chmod(0o555)

    def lift() -> None:
        for path in [root / "lake", *(p for p in (root / "lake").rglob("*") if p.is_dir())]:
            path.chmod(0o755)

    return failed_in_words(injector, root, trial, before, lift)


def mind_permissions() -> None:
    """Give up root's right to write where the mode forbids it (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH), if we have it."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(ctypes.byref(header), ctypes.byref(data))
    for part in range(2):
        data[part] &= ~0b110
    if libc.capset(ctypes.byref(header), ctypes.byref(data)):
        raise OSError(ctypes.get_errno(), "capset")


def failing_storage(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Storage that is slow, and fails at a random call with an input/output error."""
    number = chance.randint(1, 6)

    def before() -> None:
        import deltalake.writer

        from midtrain_dagster import tables

        seen: list[int] = []

        def flaky(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                seen.append(1)
                time.sleep(0.02)
                if len(seen) == number:
                    raise OSError(5, "Input/output error")
                return function(*arguments, **options)

            return call

        tables.write_deltalake = flaky(deltalake.writer.write_deltalake)  # type: ignore[attr-defined]
        os.replace = flaky(os.replace)  # type: ignore[assignment]
        os.rename = flaky(os.rename)  # type: ignore[assignment]

    return failed_in_words(injector, root, trial, before, lift=lambda: None)


def two_at_once(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Two runs of one asset in one place. Both may go through, or one is told of the other; nothing is there twice."""
    first, answer = start(injector, root, trial)
    time.sleep(chance.uniform(0.0, 0.5) * injector.seconds[trial["situation"]][trial["stage"]])
    second_answer = root.with_name(root.name + ".second")
    second = child(lambda: injector.project.do(STAGES[trial["stage"]].asset, root), second_answer)
    outcomes = [finish(first, answer), finish(second, second_answer)]
    errors = [outcome["error"] for outcome in outcomes if outcome["error"]]
    worded = all(error.startswith("MidtrainError") for error in errors)
    result = injector.compared(root, trial)
    return {"in words": worded, "error": " | ".join(errors), **result, "equal": result["equal"] and len(errors) < 2}


def clock_jumped(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """All that was written before the stage has times of another year, as after a clock that was wrong and was set right."""
    shutil.copytree(injector.picture(trial["situation"], trial["stage"]), root)
    days = chance.choice((-400, 400))
    for path in (root / "lake").rglob("*"):
        if path.parent.name == "_delta_log" and path.suffix == ".json":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                if "commitInfo" in line:
                    line["commitInfo"]["timestamp"] += days * 86_400_000
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        then = path.stat().st_mtime + days * 86_400
        os.utime(path, (then, then))
    return injector.compared(root, trial)


def damaged_file(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A file of a table that the stage has written is cut, changed or deleted. It is found, given up, and made again."""
    shutil.copytree(injector.picture(trial["situation"], trial["stage"]), root)
    stage = STAGES[trial["stage"]]
    injector.once(lambda: injector.project.do(stage.asset, root))

    def damaged() -> str:
        table = Tables(root / "lake" / "tables")
        files = [Path(file) for name in stage.tables if table.exists(name) for file in table.files(name)]
        victim = chance.choice(sorted(file for file in files if len(pl.read_parquet(file, hive_partitioning=False))))
        kind, content = chance.choice(("cut", "changed", "deleted")), victim.read_bytes()
        if kind == "cut":
            victim.write_bytes(content[: chance.randrange(len(content))])
        elif kind == "changed":
            place = chance.randrange(4, len(content) // 2)
            other = bytes(255 - byte for byte in content[place : place + 40])
            victim.write_bytes(content[:place] + other + content[place + 40 :])
        else:
            victim.unlink()
        return f"{kind} {victim.relative_to(root)}"

    done = injector.once(damaged)

    def mended() -> list[str]:
        table = Tables(root / "lake" / "tables")
        found = damages(table)
        for damage in found:
            give_up(table, damage)
        assets = {"duplicate_clusters" if d.asset.startswith("signatures/") else d.asset for d in found}
        for asset in (asset for asset in ORDER if asset in assets):
            injector.project.do(asset, root)
        return sorted(assets)

    found = injector.once(mended)
    return {"damage": done, "found": found, **injector.compared(root, trial)}


def training_killed(injector: Any, root: Path, trial: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The training process dies as the kernel kills it when memory runs out; the asset fails, and the next run goes on."""
    delay = chance.uniform(0.1, 0.9) * injector.seconds[trial["situation"]]["train"]

    def launch(self: Any, context: Any, plan: Path) -> dict[str, Any]:
        answer = root.with_name(root.name + ".training")
        pid = child(lambda: train(plan), answer)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        raise RuntimeError(f"training ended by signal {-code}")

    def before() -> None:
        InThisProcess.launch = launch  # type: ignore[method-assign]

    return failed_in_words(injector, root, trial, before, lift=lambda: None) | {"in words": True}
