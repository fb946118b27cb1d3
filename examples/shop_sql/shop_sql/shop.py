"""The shop: a small SQLite database, filled at random, and queries on it that can do no harm."""

from __future__ import annotations

import random
import sqlite3
from functools import cache

SCHEMA = """\
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER, quantity INTEGER, month INTEGER);
"""
CITIES = ("Lisbon", "Nairobi", "Osaka", "Quito", "Tampere")
CATEGORIES = ("books", "garden", "games", "kitchen")
NAMES = (
    *("Ada", "Bo", "Chidi", "Dana", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jun"),
    *("Kofi", "Lena", "Mira", "Noor", "Otto", "Pia", "Quinn", "Rosa", "Sami", "Tove"),
)

Table = list[tuple[object, ...]]
"""What a query returns."""

_MAX_ROWS = 1000
_MAX_STEPS = 2_000_000  # of SQLite's virtual machine: far more than any question needs
_MAX_BYTES = 100_000  # of a single value, and of the query
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_REFUSED_FUNCTIONS = {"random", "randomblob", "load_extension"}


class TooLong(Exception):
    """A query took more steps, or gave more rows, than any question needs."""


def query(sql: str, shop: int) -> Table:
    """Run a query on shop number `shop`, which it can read and nothing else.

    The bound is on steps and not on seconds, so that the same query always ends in the same way.

    Raises:
        TooLong: It reached the bound.
        sqlite3.Error: SQLite refuses it.
    """
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(_contents(shop))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_BYTES)
        connection.set_authorizer(_authorize)
        steps = iter(range(_MAX_STEPS // 1000))
        connection.set_progress_handler(lambda: next(steps, None) is None, 1000)
        rows = connection.execute(sql).fetchmany(_MAX_ROWS + 1)
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            raise TooLong(f"the query takes more than {_MAX_STEPS:,} steps") from error
        raise
    finally:
        connection.close()
    if len(rows) > _MAX_ROWS:
        raise TooLong(f"the query returns more than {_MAX_ROWS:,} rows")
    return rows


def _authorize(action: int, _first: str | None, second: str | None, *_rest: str | None) -> int:
    harmless = action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second not in _REFUSED_FUNCTIONS)
    return sqlite3.SQLITE_OK if harmless else sqlite3.SQLITE_DENY


@cache
def _contents(shop: int) -> bytes:
    """Fill a shop; the same number always gives the same one."""
    draw = random.Random(shop)
    products = [f"{category} {letter}" for category in CATEGORIES for letter in "ABCDEF"]
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    connection.executemany(
        "INSERT INTO customers (name, city) VALUES (?, ?)",
        [(name, draw.choice(CITIES)) for name in draw.sample(NAMES, len(NAMES))],
    )
    connection.executemany(
        "INSERT INTO products (name, category, price) VALUES (?, ?, ?)",
        [(name, name.split()[0], draw.randrange(3, 90)) for name in draw.sample(products, len(products))],
    )
    buyers = range(1, len(NAMES) - 2)  # some customers have not ordered yet
    connection.executemany(
        "INSERT INTO orders (customer_id, product_id, quantity, month) VALUES (?, ?, ?, ?)",
        [
            (draw.choice(buyers), draw.randint(1, len(products)), draw.randint(1, 9), draw.randint(1, 12))
            for _ in range(150)
        ],
    )
    connection.commit()
    contents = connection.serialize()
    connection.close()
    return contents
