"""The task by itself: what is right, what is wrong, and what a query cannot do."""

import gymnasium
import pytest
from shop_sql.questions import questions
from shop_sql.shop import query

import envs

NAMES = "Which customers live in Osaka? Give their names."


@pytest.fixture
def judge():
    """Ask the verdict on a query for a question."""
    env, index = next(
        (env, index)
        for env in (gymnasium.make("sql/Shop-v0", split=split).unwrapped for split in ("train", "test"))
        for index in range(env.num_rows)
        if NAMES in env.row(index)["prompt"]
    )

    def judge(text: str, fenced: bool = True) -> str:
        env.reset(options={"index": index})
        return env.step(f"```sql\n{text}\n```" if fenced else text)[4]["verdict"]

    return judge


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_reward_is_sound(split):
    envs.check_reward_env("sql/Shop-v0", env_kwargs={"split": split}, rows=8, strict=True)


def test_the_splits_share_no_question():
    train, test = ({question.text for question in questions(split)} for split in ("train", "test"))
    assert len(train) > 60 and len(test) > 20 and not train & test


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM customers WHERE city = 'Osaka'",
        "select c.name\nfrom customers as c\nwhere lower(c.city) like 'osaka'\norder by c.name desc;",
        "WITH here AS (SELECT * FROM customers WHERE city = 'Osaka') SELECT name FROM here",
    ],
)
def test_any_query_with_the_right_result_is_correct(judge, sql):
    assert judge(sql) == "correct"


def test_a_constant_is_right_in_one_shop_alone(judge):
    rows = query("SELECT name FROM customers WHERE city = 'Osaka'", 1)
    assert judge("VALUES " + ", ".join(f"('{name}')" for (name,) in rows)) == "wrong"


@pytest.mark.parametrize(
    ("sql", "verdict"),
    [
        ("SELECT name, city FROM customers WHERE city = 'Osaka'", "wrong"),
        ("SELECT name FROM customers", "wrong"),
        ("SELEC name FROM customers", "crash"),
        ("SELECT 1; SELECT 2", "crash"),
        ("DROP TABLE customers", "crash"),
        ("ATTACH 'stolen.db' AS other", "crash"),
        ("PRAGMA writable_schema = 1", "crash"),
        ("SELECT name FROM customers ORDER BY random()", "crash"),
        ("SELECT hex(zeroblob(1000000000))", "crash"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n", "timeout"),
        ("SELECT 1 FROM orders, orders AS a, orders AS b", "timeout"),
    ],
)
def test_what_is_wrong_or_harmful_is_told_apart(judge, sql, verdict):
    assert judge(sql) == verdict


def test_only_the_last_block_after_the_thinking_counts(judge):
    right = "```sql\nSELECT name FROM customers WHERE city = 'Osaka'\n```"
    wrong = "```sql\nSELECT 1\n```"
    assert judge(f"<think>{wrong}</think>\nFirst {wrong}, no: {right}", fenced=False) == "correct"
    assert judge(f"{right} or {wrong}", fenced=False) == "wrong"
    assert judge(f"<think>{right}", fenced=False) == "no_answer"
    assert judge("SELECT name FROM customers WHERE city = 'Osaka'", fenced=False) == "no_answer"
