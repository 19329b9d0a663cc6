"""From a citizen's finger to the desk and back: real kiosk, agent, broker, desk and browser, each its own process."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from playwright.sync_api import sync_playwright

from bega.broker import EmbeddedBroker
from bega.clock import mono_ms
from bega.look.panels import PANELS
from bega_kiosk.agent import Agent
from bega_kiosk.desk.link import Link
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.outbox import Outbox
from tests.kiosk_feed import running_kiosk, wait_until
from tests.kiosk_gate import CHROMIUM, FLAGS, opened

NOW_MS, DAY_MS = 1_795_000_000_000, 86_400_000
REPORTS = 500


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@contextlib.contextmanager
def running_desk(folder, broker):
    """Run `bega desk run`; yield its address. It must end with 0."""
    ready = folder / "desk.json"
    command = [sys.executable, "-m", "bega", "desk", "run", "--data", str(folder / "desk"), "--mqtt", broker.url]
    with (folder / "desk.log").open("ab") as log:
        process = subprocess.Popen([*command, "--port", "0", "--ready-file", str(ready)], stderr=log)
        try:
            wait_until(lambda: ready.exists() or process.poll() is not None, 20.0)
            assert process.poll() is None, (folder / "desk.log").read_text()
            yield json.loads(ready.read_text())["desk"]
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(10.0) == 0, (folder / "desk.log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def desk(folder, *words):
    said = subprocess.run(
        [sys.executable, "-m", "bega", "desk", *words, "--data", str(folder / "desk")], capture_output=True, check=True
    )
    return said.stdout.decode()


def test_report_goes_from_the_finger_to_the_desk_and_its_state_comes_back(tmp_path, broker):
    with (
        running_desk(tmp_path, broker) as desk_address,
        running_kiosk(tmp_path, f'reports.mqtt="{broker.url}"', 'kiosk.panel="10"') as (address, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with opened(browser, PANELS["10"]) as page:
            page.set_default_timeout(20_000)

            def tap(name):
                page.locator(f"button:has-text('{name}'), a:has-text('{name}')").first.tap()
                page.wait_for_timeout(350)

            page.goto(address + "/?lang=ro")
            page.goto(address + "/report?lang=ro")
            tap("Groapă")
            tap("Scriu strada")
            for letter in "ABCD":
                page.locator(f"button.letter[value='{letter.lower()}']").tap()
            assert page.locator("#text").input_value() == "Abcd"
            tap("Mai departe")
            for name in ("De azi", "Nu", "Nu, atât", "Nu, fără nume"):
                tap(name)
            assert "Pe ce stradă, lângă ce? Abcd" in page.locator("main").inner_text()
            tap("Trimiteți")
            page.wait_for_selector(".code")
            code = re.sub(r"\s", "", page.locator(".code").inner_text())
            page.wait_for_selector("#sentence:text-is('Am trimis. Vă mulțumim!')", timeout=20_000)
            (row,) = json.loads(desk(tmp_path, "list", "--json"))
            assert (row["code"], row["answers"]["street"], row["language"]) == (code, "Abcd", "ro")
            where = {
                path.parent.name for path in tmp_path.rglob("*") if path.is_file() and b"Abcd" in path.read_bytes()
            }
            assert where == {"desk"}, "nothing of it is left on the kiosk, nor in a log"
            desk(tmp_path, "set", code, "--state", "work", "--number", "20114")
            with urllib.request.urlopen(f"{desk_address}/public/v1/reports/{code}", timeout=5) as answer:
                told = json.load(answer)
            assert (told["state"], told["number"]) == ("work", "20114")
            assert "Abcd" not in str(told)
            page.wait_for_selector("#number:text-is('Numărul sesizării este 20114.')", timeout=20_000)
            page.goto(address + "/report/code?lang=ro")
            page.fill("#text", code.lower())
            tap("Mai departe")
            page.wait_for_selector("#sentence:text-is('Se lucrează.')")
            assert "Ultima veste de la primărie" in page.locator("#notes").inner_text()
            assert page.evaluate("history.length") <= 4
        browser.close()


def test_week_without_a_network_brings_each_report_once(tmp_path, broker):
    """Seven virtual days, five starts of the kiosk; then a broker that dies in the middle, and a desk that was late."""
    now_ms = [NOW_MS]
    codes = []
    for _ in range(5):
        box = Outbox(tmp_path, "kiosk-week", lambda: now_ms[0], os.urandom)
        for _ in range(REPORTS // 5):
            codes.append(box.keep("problem", {"details": f"report {len(codes)} жșő"}, "ro"))
            now_ms[0] += 7 * DAY_MS // REPORTS
    store = DeskStore(tmp_path / "desk", lambda: now_ms[0])

    async def carry():
        agent = Agent(box, "city/week/kiosk-week/", broker.url, "kiosk-week", lambda: 5 * mono_ms(), tmp_path / "hint")
        link = Link(store, "week", broker.url, "desk-week")
        tasks = [asyncio.create_task(agent.run())]
        await until(lambda: agent.sent >= REPORTS // 5)
        assert store.count() == 0, "the broker had them, the desk had not: nothing is freed"
        assert all(box.is_waiting(code) for code in codes)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        tasks.append(asyncio.create_task(link.run()))
        await until(lambda: not box.waiting())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return agent, link

    async def until(is_so):
        async with asyncio.timeout(100):
            while not is_so():  # noqa: ASYNC110 - what is waited for lies in a file
                await asyncio.sleep(0.05)

    agent, link = asyncio.run(carry())
    reports = [row.report for row in store.rows(2 * REPORTS)]
    assert sorted(report.code for report in reports) == sorted(codes)
    assert {report.answers["details"] for report in reports} == {f"report {n} жșő" for n in range(REPORTS)}
    assert (link.taken, store.count()) == (REPORTS, REPORTS)
    assert agent.sent > REPORTS, "some were sent twice, and stored once"
    store.close()
