"""The questions, each with a query that answers it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from .shop import CATEGORIES, CITIES, query

SHOPS = (1, 2, 3)
"""Every answer is compared on several shops: a query that is right on one by luck, or that holds its result as a
constant, is wrong on another."""
_TEST_SHARE = 4  # one question in this many belongs to the test split

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Question:
    """A question in words, and a query that answers it; `ordered` says whether it asks for an order."""

    text: str
    sql: str
    ordered: bool = False

    @property
    def split(self) -> Split:
        """The split it belongs to, the same in every process."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=8).digest()
        return "test" if int.from_bytes(digest, "big") % _TEST_SHARE == 0 else "train"


@cache
def questions(split: Split) -> tuple[Question, ...]:
    """Return the questions of a split that tell a right query from a wrong one: what they ask for is not empty, and not
    the same in every shop."""
    own = [question for question in _all() if question.split == split]
    results = {question: [query(question.sql, shop) for shop in SHOPS] for question in own}
    return tuple(q for q in own if all(results[q]) and any(result != results[q][0] for result in results[q]))


_ORDERS = "orders o JOIN products p ON p.id = o.product_id JOIN customers c ON c.id = o.customer_id"


def _all() -> Iterator[Question]:
    for city in CITIES:
        where = f"WHERE c.city = '{city}'"
        yield Question(f"Which customers live in {city}? Give their names.", f"SELECT c.name FROM customers c {where}")
        yield Question(
            f"How many orders were placed by customers from {city}?", f"SELECT COUNT(*) FROM {_ORDERS} {where}"
        )
        for category in CATEGORIES:
            yield Question(
                f"How many items (the sum of quantities) of the category {category} did customers from {city} order?",
                f"SELECT TOTAL(o.quantity) FROM {_ORDERS} {where} AND p.category = '{category}'",
            )
    for category in CATEGORIES:
        where = f"WHERE p.category = '{category}'"
        yield Question(
            f"What is the average price of the products of the category {category}?",
            f"SELECT AVG(p.price) FROM products p {where}",
        )
        yield Question(
            f"What are the names and prices of the products of the category {category}, the cheapest first, and those "
            "of the same price by name?",
            f"SELECT p.name, p.price FROM products p {where} ORDER BY p.price, p.name",
            ordered=True,
        )
        yield Question(
            f"What is the revenue (quantity times price, summed) of each month in which the category {category} was "
            "sold? Give the month and the revenue, in the order of the months.",
            f"SELECT o.month, SUM(o.quantity * p.price) FROM {_ORDERS} {where} GROUP BY o.month ORDER BY o.month",
            ordered=True,
        )
    for price in range(10, 90, 5):
        yield Question(
            f"How many products cost more than {price}?", f"SELECT COUNT(*) FROM products WHERE price > {price}"
        )
        yield Question(
            f"How many items (the sum of quantities) were ordered of products that cost more than {price}?",
            f"SELECT SUM(o.quantity) FROM {_ORDERS} WHERE p.price > {price}",
        )
    for count in range(3, 12):
        yield Question(
            f"Which customers placed at least {count} orders? Give their names.",
            f"SELECT c.name FROM {_ORDERS} GROUP BY c.id HAVING COUNT(*) >= {count}",
        )
        yield Question(
            f"Which products were ordered by more than {count} different customers? Give their names.",
            f"SELECT p.name FROM {_ORDERS} GROUP BY p.id HAVING COUNT(DISTINCT c.id) > {count}",
        )
    for month in range(1, 13):
        yield Question(
            f"How many different customers ordered something in month {month}?",
            f"SELECT COUNT(DISTINCT o.customer_id) FROM orders o WHERE o.month = {month}",
        )
        yield Question(
            f"Which customers ordered nothing in month {month}? Give their names in alphabetical order.",
            "SELECT name FROM customers WHERE id NOT IN "
            f"(SELECT customer_id FROM orders WHERE month = {month}) ORDER BY name",
            ordered=True,
        )
