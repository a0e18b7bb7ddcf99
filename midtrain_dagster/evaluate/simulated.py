"""Seeded rows for agents: a shop behind APIs that have to be called one after another, and small jobs in a shell."""

from random import Random
from typing import Any

CUSTOMERS = ("Ada Okafor", "Bruno Lindt", "Chen Wei", "Dara Singh", "Elif Kaya", "Farah Nouri", "Goran Petrov", "Hana Sato")
ARTICLES = ("lamp", "kettle", "atlas", "rucksack", "violin", "tripod", "blanket", "compass")
APIS = [
    {"name": "find_customer", "description": "The id of a customer.", "parameters": {"name": "string"}},
    {"name": "list_orders", "description": "A customer's order ids, oldest first.", "parameters": {"customer_id": "integer"}},
    {"name": "get_order", "description": "Article, price and status of an order.", "parameters": {"order_id": "integer"}},
    {"name": "get_stock", "description": "How many of an article are in stock.", "parameters": {"article": "string"}},
]


def tool_step_rows(seed: int, n: int) -> list[dict[str, Any]]:
    """`n` queries that need three or four calls, each of which needs the result of the one before."""
    return [_query(Random(f"{seed}\0tools\0{number}")) for number in range(n)]


def _query(rng: Random) -> dict[str, Any]:
    ids = rng.sample(range(100, 1000), len(CUSTOMERS))
    stock = {article: rng.randint(1, 90) for article in ARTICLES}
    responses = [_response("get_stock", {"article": article}, {"in_stock": count}) for article, count in stock.items()]
    owned: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    numbers = iter(rng.sample(range(10_000, 100_000), 3 * len(CUSTOMERS)))
    for name, identity in zip(CUSTOMERS, ids, strict=True):
        orders = [
            (
                next(numbers),
                {"article": rng.choice(ARTICLES), "price": rng.randint(5, 400), "status": rng.choice(("sent", "open"))},
            )
            for _ in range(rng.randint(1, 3))
        ]
        owned[name] = orders
        responses.append(_response("find_customer", {"name": name}, {"customer_id": identity}))
        responses.append(_response("list_orders", {"customer_id": identity}, {"order_ids": [order for order, _ in orders]}))
        responses += [_response("get_order", {"order_id": order}, about) for order, about in orders]
    at = rng.randrange(len(CUSTOMERS))
    name, identity = CUSTOMERS[at], ids[at]
    order, about = owned[name][-1]
    needed = [
        {"name": "find_customer", "arguments": {"name": name}},
        {"name": "list_orders", "arguments": {"customer_id": identity}},
        {"name": "get_order", "arguments": {"order_id": order}},
    ]
    if rng.random() < 0.5:
        query, answer = f"What did the most recent order of {name} cost? Answer with the number.", str(about["price"])
    else:
        query = f"How many of the article that {name} ordered last are in stock? Answer with the number."
        answer = str(stock[about["article"]])
        needed.append({"name": "get_stock", "arguments": {"article": about["article"]}})
    return {"query": query, "apis": APIS, "responses": responses, "needed": needed, "answer": answer}


def _response(name: str, arguments: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "arguments": arguments, "result": result}


def shell_rows(seed: int, n: int) -> list[dict[str, Any]]:
    """`n` jobs in AgentBench's format, in turn: count, find, sum (judged by the answer), and change files (judged by a check)."""
    makers = (_count_lines, _find_file, _sum_column, _rename)
    return [makers[number % len(makers)](Random(f"{seed}\0shell\0{number}")) for number in range(n)]


def _shell_row(description: str, init: str, example: str, **judged: Any) -> dict[str, Any]:
    evaluation = {**judged, "example": {"code": example}}
    return {"description": description, "create": {"local": "default", "init": {"code": init}}, "evaluation": evaluation}


def _count_lines(rng: Random) -> dict[str, Any]:
    word, others = rng.sample(ARTICLES, 2)
    lines = [rng.choice((word, others)) for _ in range(rng.randint(8, 25))]
    init = "printf '%s\\n' " + " ".join(lines) + " > sold.txt"
    asked = f"How many lines of the file sold.txt are exactly `{word}`? Answer with the number."
    return _shell_row(asked, init, f"grep -cx {word} sold.txt", match=str(lines.count(word)))


def _find_file(rng: Random) -> dict[str, Any]:
    folders, secret = rng.sample(ARTICLES, 3), str(rng.randint(1000, 9999))
    init = "\n".join(f"mkdir -p store/{folder}; echo nothing > store/{folder}/note.txt" for folder in folders)
    init += f"\necho {secret} > store/{folders[1]}/.code"
    asked = "Somewhere below the directory store is a hidden file. What number does it hold?"
    return _shell_row(asked, init, "find store -name '.*' -type f -exec cat {} +", match=secret)


def _sum_column(rng: Random) -> dict[str, Any]:
    rows = [(rng.choice(ARTICLES), rng.randint(1, 99)) for _ in range(rng.randint(4, 9))]
    init = "printf '%s\\n' " + " ".join(f"{article},{count}" for article, count in rows) + " > counts.csv"
    asked = "The file counts.csv has lines `article,count`. What is the sum of the counts?"
    return _shell_row(asked, init, "awk -F, '{s += $2} END {print s}' counts.csv", match=str(sum(count for _, count in rows)))


def _rename(rng: Random) -> dict[str, Any]:
    names = rng.sample(ARTICLES, 3)
    init = "\n".join(f"echo {name} > {name}.txt" for name in names)
    check = " && ".join(f"[ -f {name}.md ] && [ ! -e {name}.txt ] && [ $(cat {name}.md) = {name} ]" for name in names)
    asked = "Rename every file that ends in .txt so that it ends in .md."
    return _shell_row(
        asked, init, 'for f in *.txt; do mv "$f" "${f%.txt}.md"; done', check=[{"language": "bash", "code": check}]
    )
