"""The page in a real browser: it draws, filters, takes keys and fits a phone; what a model wrote stays text."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.report import live
from dapo_trl.report.page import write_report

from ..support.run_folder import make_run, rollout, row, usual_run

pytestmark = pytest.mark.slow

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)} is on the path, and CHROMIUM is not set")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


class Page:
    """A page that is open, with everything that went wrong in it."""

    def __init__(self, browser, url, *, size=DESKTOP, scheme="light"):
        self.errors: list[str] = []
        self.page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        self.page.on(
            "console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url if url.startswith("http") else f"file://{url}")
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def all_drawn(self) -> int:
        """Scroll through the page, so that all charts are drawn; how many there are."""
        for figure in self.page.query_selector_all("figure.chart"):
            figure.scroll_into_view_if_needed()
        self.wait_until(
            "document.querySelectorAll('.plot').length === document.querySelectorAll('.plot canvas').length"
        )
        return len(self.page.query_selector_all(".plot canvas"))

    def open_more(self) -> None:
        self.page.click("#more summary")
        self.wait_until("document.querySelector('#more-grid figure') !== null")
        self.all_drawn()

    def wait_until(self, condition: str) -> None:
        """Playwright's own way is a script that the page's policy forbids."""
        deadline = time.monotonic() + 60
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(100)

    def rows(self) -> list[str]:
        return [row.inner_text() for row in self.page.query_selector_all("#rollout-list .row")]

    def selected(self) -> str:
        return self.page.inner_text("#rollout-list [aria-selected=true]")

    def fits(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture
def opened(browser) -> Iterator:
    pages: list[Page] = []

    def use(*arguments, **changes) -> Page:
        pages.append(Page(browser, *arguments, **changes))
        return pages[-1]

    yield use
    for page in pages:
        page.page.close()
        assert page.errors == []


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> str:
    return str(write_report([usual_run(tmp_path_factory.mktemp("usual") / "run")]))


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("three")
    longer = usual_run(folder / "second", steps=60, **{"config.yaml": "learning_rate: 0.5\n"})
    return str(write_report([usual_run(folder / "first"), longer, make_run(folder / "empty")], folder / "report.html"))


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_one_run(usual, opened, size, scheme):
    page = opened(usual, size=size, scheme=scheme)
    assert page.all_drawn() >= 18 and page.fits()
    page.open_more()
    assert page.fits() and page.requests == [f"file://{usual}"]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    page.click("#theme")
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)") != dark
    assert "0.400 → 0.500 (0.200 to 0.600)" in page.inner_text("#overview"), "as on the console"
    clipped = "healthy: low: below 5 %; high: up to 5 % (always 0: no effect)"
    assert page.inner_text("#chart-clipped .healthy") == clipped
    assert "math/Arithmetic-v0" in page.inner_text("#settings")


def test_numbers_in_words(usual, opened):
    """Accuracy as the console prints it, times exactly, and the question of a chat prompt."""
    page = opened(usual)
    assert page.evaluate("[0.4075, 0.97849, 1, null].map(accuracy)") == ["0.407", "0.978", "1.000", "–"]
    assert [f"{value:.3f}" for value in (0.4075, 0.97849, 1)] == ["0.407", "0.978", "1.000"]
    shown = page.evaluate("[0, 0.25, 50, 60, 100, 150, 3600, 5400, 90000, 259200].map(duration)")
    assert shown == ["0 s", "0.25 s", "50 s", "1 min", "1:40 min", "2:30 min", "1 h", "1:30 h", "25 h", "3.0 days"]
    chatml = (
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    )
    for prompt, question in (
        (chatml, "What is 1+1?"),
        (f"{chatml}<think>\n", "What is 1+1?"),
        ("<|user|>Compute 1 + 2.<|end|><|assistant|>", "Compute 1 + 2."),
        ("1 + 1 =", "1 + 1 ="),
    ):
        assert page.evaluate(f"questionOf({json.dumps(prompt)})") == question


def test_no_title_is_cut_off_on_a_phone(usual, opened):
    page = opened(usual, size=PHONE)
    cut_off = "[...document.querySelectorAll('.chart h3')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{cut_off}.map((e) => e.innerText)") == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_three_runs_of_which_one_is_empty(three, opened, size):
    page = opened(three, size=size)
    assert page.all_drawn() >= 24 and page.fits()
    assert "Nothing has been logged yet" in page.inner_text("#overview article:nth-child(3)")
    assert page.inner_text("#settings tr.differs").startswith("learning_rate") or "differs" in page.content()
    labels = page.get_attribute("#chart-reward .plot", "aria-label")
    assert "first: all sampled: from" in labels and "second: all sampled" in labels
    page.click("label.run-toggle:has-text('second') input")
    assert "second" not in page.get_attribute("#chart-reward .plot", "aria-label")
    assert not page.query_selector("#chart-groups-1") and page.query_selector("#chart-groups-0")
    page.select_option("#axis", "tokens")
    assert "at tokens" in page.get_attribute("#chart-reward .plot", "aria-label")
    page.select_option("#smoothing", "strong")
    page.check("#shares")
    assert "%" in page.get_attribute("#chart-ledger-tokens-0 .plot", "aria-label")


def test_an_empty_run(opened, tmp_path):
    page = opened(str(write_report([make_run(tmp_path / "run", **{"config.yaml": ""})])), size=PHONE)
    text = page.inner_text("main")
    assert page.fits() and all(
        said in text
        for said in ("holds no logs yet", "there are no curves", "There is no ledger", "no rollouts to look at")
    )


def test_filters_and_order(usual, opened):
    page = opened(usual)
    assert "31 match. 31 recorded" in page.inner_text("#rollout-count")
    page.select_option("#filter-verdict", "no_answer")
    assert page.rows() and all("no answer" in row for row in page.rows())
    page.select_option("#filter-level", "3")
    assert all("level 3" in row and "no answer" in row for row in page.rows())
    page.select_option("#filter-level", "1")
    assert page.rows() == [] and "No rollout matches" in page.inner_text("#rollout-list")
    page.click("#clear")
    page.select_option("#filter-sort", "highest advantage")
    advantages = page.evaluate("browser.shown.map((rollout) => rollout.advantage)")
    assert len(advantages) == 31 and advantages == sorted(advantages, reverse=True)
    page.fill("#filter-from", "8")
    page.fill("#filter-to", "16")
    assert {row.split(" · ")[0] for row in page.rows()} == {"after step 8", "after step 16"}
    page.click("#clear")
    page.select_option("#filter-account", "dropped")
    assert len(page.rows()) == 1 and "Not trained on" in page.inner_text("#rollout-detail")


def test_keys_alone(usual, opened):
    page = opened(usual)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.focus("#chart-reward .plot")
    page.wait_for_selector("#chart-reward canvas")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    tip = page.inner_text("#chart-reward .tip")
    assert tip.startswith("step 2") and "all sampled" in tip
    assert page.inner_text("#spoken").startswith("step 2, ")
    page.keyboard.press("Tab")
    page.focus("#chart-reward button")
    page.keyboard.press("Enter")
    assert page.query_selector("#chart-reward table")

    page.focus("#rollout-list")
    first = page.selected()
    page.keyboard.press("ArrowDown")
    second = page.selected()
    assert second != first
    page.keyboard.press("End")
    page.keyboard.press("Home")
    assert page.selected() == first
    marked = page.get_attribute("#rollout-list", "aria-activedescendant")
    assert page.inner_text(f"#{marked}") == first
    page.focus("#completion")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    said = page.inner_text(".about-token")
    assert "token 3" in said and "probability 90.5 % →" in said and "× advantage" in said
    nodes = "[...document.querySelectorAll('a, button, select, input, summary, [tabindex]')]"
    assert page.evaluate(f"{nodes}.every((node) => node.tabIndex <= 0)")  # the order of the keys is that of the page


def test_colours_follow_the_advantage(usual, opened):
    page = opened(usual)
    colour = "[...document.querySelectorAll('.token')].at(-1).style.backgroundColor"
    page.select_option("#filter-sort", "highest advantage")
    assert "--up" in page.evaluate(colour)
    page.select_option("#filter-sort", "lowest advantage")
    assert "--down" in page.evaluate(colour)
    page.select_option("#colouring", "change")
    assert "--up" in page.evaluate(colour)
    page.select_option("#colouring", "none")
    assert page.evaluate(colour) == ""


HOSTILE = {
    "script": "<script>window.pwned = 1</script></script><img src=x onerror='window.pwned = 1'>",
    "ansi": "\x1b[31mred\x1b[0m\x07\x08",
    "right to left": "\u202eabc\u2066\u200f\ufeff",
    "nothing": "a\0b",
    "half": "\ud800 \udfff",
    "entities": "&lt;b&gt; &#0; {{ 7 * 7 }} ${7 * 7}",
    "million": "lorem ipsum " * 84_000,
}


def test_hostile_text_is_text(opened, tmp_path):
    names = list(HOSTILE)
    rollouts = [
        rollout(
            step,
            pieces=[text[:4], text[4:]],
            prompt=text,
            solution=text,
            verdict=text[:40],
            level=text[:40],
            account=text[:30],
        )
        for step, text in enumerate(HOSTILE.values())
    ]
    rows = [row(1, 1, **{HOSTILE["script"]: 0.5, f"accuracy/level_{HOSTILE['script']}": 0.5})]
    config = {"model": HOSTILE["script"], HOSTILE["ansi"]: HOSTILE["right to left"]}
    folder = make_run(
        tmp_path / "<img src=x onerror='window.pwned = 1'>", rows, rollouts, **{"config.yaml": json.dumps(config)}
    )
    page = opened(str(write_report([folder], tmp_path / "page.html")))
    page.all_drawn()
    page.open_more()
    page.select_option("#filter-sort", "earliest first")
    shown = {}
    page.focus("#rollout-list")
    page.keyboard.press("Home")
    for name in names:
        shown[name] = page.inner_text("#completion")
        assert page.fits()
        page.keyboard.press("ArrowDown")
    assert shown["script"] == HOSTILE["script"] and shown["entities"] == HOSTILE["entities"]
    assert shown["ansi"] == "␛[31mred␛[0m␇␈" and shown["nothing"] == "a␀b"
    assert shown["right to left"] == "U+202EabcU+2066U+200FU+FEFF"
    assert "U+D800" in shown["half"] and "U+DFFF" in shown["half"]
    assert (
        len(shown["million"]) < 35_000 and "978,000 more characters are in the run's rollouts file" in shown["million"]
    )
    assert page.evaluate("window.pwned") is None and not page.query_selector("main img")
    assert "onerror" in page.inner_text("#overview h2")


def test_a_long_completion_is_shown_in_parts(opened, tmp_path):
    replies = [int(place % 10 > 0) for place in range(5000)]
    long = rollout(pieces=["word "] * 5000, tokens=90_000, left_out=[3072, 85_000], own=replies)
    page = opened(str(write_report([make_run(tmp_path, rollouts=[long])])))
    assert page.inner_text("#completion").count("word") == 3000
    assert len(page.query_selector_all("#completion .foreign")) == 300
    page.click("#completion button")
    assert page.inner_text("#completion").count("word") == 5000
    assert "85,000 tokens were not recorded" in page.inner_text("#completion")


def test_a_big_run(opened, tmp_path):
    """10,000 steps and 50,000 rollouts: a page of bounded size, of which the browser holds little at a time."""
    rows = [json.dumps(row(step, 100)).partition(",")[2] for step in range(100)]
    pieces = [f" word{i}" for i in range(40)]
    samples = [
        json.dumps(rollout(0, pieces=pieces[i % 7 :], advantage=(i - 100) / 100)).replace('"step": 0', '"step": STEP')
        for i in range(201)
    ]
    metrics = "".join(f'{{"step": {step},{rows[step // 101]}\n' for step in range(1, 10_001))
    recorded = "".join(samples[i % 201].replace("STEP", str(i // 5)) + "\n" for i in range(50_000))
    folder = make_run(tmp_path / "run", **{"metrics.jsonl": metrics, "rollouts-0.jsonl": recorded})
    path = write_report([folder])
    assert path.stat().st_size < 20e6
    page = opened(str(path))
    assert "of 50,000 recorded rollouts are in this page" in page.inner_text("#rollout-count")
    page.all_drawn()
    assert page.evaluate("document.getElementsByTagName('*').length") < 3000
    assert page.evaluate("state.runs[0].curves.step.length") <= 500
    page.select_option("#filter-sort", "lowest advantage")
    page.focus("#rollout-list")
    page.keyboard.press("End")
    assert len(page.rows()) < 40 and "Compute" in page.inner_text("#rollout-detail")


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator:
    monkeypatch.setattr(live, "REST", 0.0)
    folder = usual_run(tmp_path / "run")
    server = live.server([folder], port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, server.server_address[1]
    server.shutdown()
    server.server_close()


def test_live(served, opened):
    folder, port = served
    page = opened(f"http://127.0.0.1:{port}/")
    page.select_option("#filter-verdict", "wrong")
    page.select_option("#axis", "time")
    page.focus("#rollout-list")
    page.keyboard.press("ArrowDown")
    page.evaluate("scrollTo(0, 900)")
    chosen, place = page.selected(), "document.querySelector('#chart-entropy').getBoundingClientRect().top"
    before = page.evaluate(place)
    with (folder / "rollouts-0.jsonl").open("a") as file:
        file.write(json.dumps(rollout(99, verdict="wrong")) + '\n{"step": 100, "torn')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(99, 99)) + "\n")
    page.wait_until("state.runs[0].steps === 99")
    assert "12 match. 32 recorded" in page.inner_text("#rollout-count")
    assert page.selected() == chosen and page.input_value("#filter-verdict") == "wrong"
    assert page.input_value("#axis") == "time" and abs(page.evaluate(place) - before) < 1
    assert page.inner_text("#live").startswith("live, ")


def test_every_turn_shows_its_reward_and_advantage(tmp_path, opened):
    turns = [{"start": 0, "reward": 0.5, "advantage": 0.375}, {"start": 4, "reward": -0.25, "advantage": None}]
    page = opened(str(write_report([make_run(tmp_path / "run", [row(1, 1)], [rollout(turns=turns)])])))
    assert [mark.inner_text().strip() for mark in page.query_selector_all("#completion .mark")] == [
        "turn 1: reward +0.5, advantage +0.375",
        "turn 2: reward −0.25, advantage –",
    ]


def ask(port: int, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse()


def test_the_server_answers_to_this_machine_alone(served):
    folder, port = served
    assert ask(port, "/data", Host=f"localhost:{port}").status == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"):
        answer = ask(port, "/data", Host=host)
        assert answer.status == 403 and b"run" not in answer.read()
    answer = ask(port, "/data")
    tag = answer.headers["ETag"]
    assert answer.status == 200 and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/data", If_None_Match=tag).status == 304
    assert ask(port, "/metrics.jsonl").status == ask(port, "/../config.yaml").status == 404
    (folder / "metrics.jsonl").unlink()
    assert ask(port, "/data", If_None_Match=tag).status == 200
    shutil.rmtree(folder)
    assert ask(port, "/data").status == 503


def test_stalled_connections_neither_block_it_nor_stay(served, monkeypatch):
    _, port = served
    monkeypatch.setattr(live._Handler, "timeout", 0.2)
    before = threading.active_count()
    stalled = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(300)]
    assert ask(port, "/data").status == 200
    assert [connection.recv(1) for connection in stalled] == [b""] * 300  # closed by the server
    for thread in threading.enumerate():
        if thread.name.endswith("(process_request_thread)"):
            thread.join(30)
    assert threading.active_count() <= before


def test_a_port_that_is_taken(served, tmp_path, capsys):
    folder, port = served
    with pytest.raises(ConfigError, match=f"port is {port}: cannot be listened on"):
        live.server([folder], port=port)
    assert main(["watch", str(folder), "--port", str(port)]) == 2
    assert main(["watch", str(folder), "--port", "70000"]) == 2
    assert main(["watch", str(tmp_path / "missing")]) == 2
    assert "does not exist" in capsys.readouterr().err
