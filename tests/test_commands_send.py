"""`bega gateway command`: what is sent is what a gateway understands, and what comes back is said in words."""

import asyncio
import json
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from bega import mqtt
from bega.clock import wall_ms
from bega_gateway.command import main
from bega_gateway.commands import send
from bega_gateway.commands.order import understand
from bega_gateway.commands.send import HEADS, Letter, Way, asked, ledger_to_name, words, written
from bega_gateway.commands.signature import Seal
from bega_gateway.config import check
from bega_protocols.errors import ConfigError

ROOT = "city/arad/gw-1/"
EXAMPLE = Path(__file__).parent.parent / "gateway/examples/commands.toml"


def result(id_, status, **more):
    return json.dumps({"id": id_, "verb": "read", "status": status, "time_ms": wall_ms(), **more}).encode()


@pytest.fixture
def answering(embedded):
    """Send a command to a gateway that answers as `script` says: a list of payloads for each time that it is asked."""

    def ask(script, id_="a", for_s=60, again_s=0.05):
        way = Way(embedded.url, ROOT)
        heard, said = [], []

        async def gateway(ready):
            async with mqtt.connect(embedded.url, "gw-1", keep=False) as session:
                await session.subscribe(f"{ROOT}cmd/#")
                ready.set()
                async for message in session.messages():
                    heard.append(message)
                    for payload in script[len(heard) - 1] if len(heard) <= len(script) else []:
                        await session.publish(f"{ROOT}result", payload)

        async def run():
            ready = asyncio.Event()
            task = asyncio.create_task(gateway(ready))
            await ready.wait()
            expires_s = wall_ms() // 1000 + for_s
            letter = written(ROOT, "read", {"device": "boiler"}, id_, expires_s, None)
            try:
                return await asked(way, letter, wall_ms, said.append)
            finally:
                task.cancel()
                await asyncio.wait([task])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(send, "AGAIN_S", again_s)
            patch.setattr(send, "LATE_S", 0.2)
            return asyncio.run(run()), heard, said

    return ask


def test_the_result_of_ones_own_command_is_waited_for(answering):
    noise = [
        b"\xff",
        b"[]",
        b"{}",
        b'{"id":"a","status":[]}',
        result("b", "done"),
        result("a", "a word that nobody knows"),
        b"[" * 100_000,
    ]
    found, heard, _ = answering([[*noise, result("a", "done", result={"value": "21.5"})]])
    assert found["status"] == "done" and found["result"] == {"value": "21.5"}
    assert understand(f"{ROOT}cmd/", heard[0].topic, heard[0].payload).id == "a"


def test_a_command_that_is_being_done_or_had_no_room_is_sent_again_with_the_same_bytes(answering):
    script = [
        [],
        [result("a", "refused", reason="busy: send it again later")],
        [result("a", "begun", reason="it comes")],
    ]
    found, heard, said = answering([*script, [result("a", "failed", reason="the line is down")]])
    assert found["status"] == "failed"
    assert len({message.payload for message in heard}) == 1 and len(heard) >= 4
    assert said == ["busy: send it again later", "it comes"]


def test_of_a_gateway_that_says_nothing_there_is_no_result(answering):
    found, heard, _ = answering([], for_s=1)
    assert found is None and heard


def test_of_a_command_that_has_expired_it_is_still_heard_what_came_of_it(answering):
    found, heard, _ = answering([[result("a", "done", repeated=True)]], for_s=-90)
    assert (found["status"], found["repeated"], len(heard)) == ("done", True, 1)


def test_who_was_cut_off_asks_again_after_the_expiry(monkeypatch, capsys):
    letters = []

    async def post(way, letter, now_ms, say):
        letters.append(letter)
        return {"id": letter.id, "status": "done", "repeated": True}

    monkeypatch.setattr(send, "asked", post)
    to = ["--broker", "mqtt://b", "--gateway", "arad/gw-1"]
    assert main(["command", *to, "--id", "a", "--expires", "1795300600", "status"]) == 0
    assert [(letter.id, letter.expires_s) for letter in letters] == [("a", 1_795_300_600)]


def test_a_broker_that_is_not_there_is_said_at_once(capsys):
    asking = ["command", "--broker", "mqtt://127.0.0.1:1", "--gateway", "arad/gw-1", "status"]
    assert main(asking) == 1
    assert "nothing was sent" in capsys.readouterr().err


@pytest.fixture(scope="module")
def key_files(tmp_path_factory):
    """Give (private, public) files of one key."""
    folder, key = tmp_path_factory.mktemp("keys"), Ed25519PrivateKey.generate()
    (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / "private.pem", folder / "public.pem"


@pytest.mark.parametrize(
    ("line", "verb", "keys"),
    [
        ("read boiler", "read", {"device": "boiler"}),
        ("write boiler setpoint 21.5", "write", {"device": "boiler", "name": "setpoint", "value": "21.5"}),
        ("write boiler setpoint -5", "write", {"device": "boiler", "name": "setpoint", "value": -5}),
        ("write boiler pump false", "write", {"device": "boiler", "name": "pump", "value": False}),
        ("act valve close", "act", {"device": "valve", "action": "close"}),
        ("act air span_ppm 2000", "act", {"device": "air", "action": "span_ppm", "value": 2000}),
        ("blink --node air-1", "blink", {"node": "air-1", "for_s": 10}),
        ("restart_line hall", "restart_line", {"line": "hall"}),
        ("restart_node air-1", "restart_node", {"node": "air-1"}),
        ("status", "status", {}),
    ],
)
def test_what_stands_on_the_command_line_is_sent_and_signed(line, verb, keys, key_files, monkeypatch, capsys):
    letters = []

    async def post(way, letter, now_ms, say):
        letters.append((way, letter))
        return {"id": letter.id, "status": "done"}

    monkeypatch.setattr(send, "asked", post)
    to = ["--broker", "mqtt://b", "--gateway", "arad/gw-1", "--sign-with", str(key_files[0])]
    assert main(["command", *to, *line.split()]) == 0
    assert capsys.readouterr().out == "done\n"
    [(way, letter)] = letters
    assert (way.broker, way.root, letter.topic) == ("mqtt://b", ROOT, f"{ROOT}cmd/{verb}")
    order = understand(f"{ROOT}cmd/", letter.topic, letter.payload)
    assert Seal(key_files[1]).fits(order.signature, order.canonical)
    sent = json.loads(letter.payload)
    assert {key: sent[key] for key in sent.keys() - {"id", "expires", "sig"}} == keys


def test_a_list_of_revoked_certificates_is_sent_as_it_stands_in_its_file(tmp_path, monkeypatch, capsys):
    letters = []

    async def post(way, letter, now_ms, say):
        letters.append(letter)
        return {"id": letter.id, "status": "done"}

    monkeypatch.setattr(send, "asked", post)
    to = ["command", "--broker", "mqtt://b", "--gateway", "arad/gw-1", "revoke"]
    (tmp_path / "revoked.pem").write_text("-----BEGIN X509 CRL-----\nAA==\n")
    assert main([*to, str(tmp_path / "revoked.pem")]) == 0
    assert json.loads(letters[0].payload)["list"] == "-----BEGIN X509 CRL-----\nAA==\n"
    assert main([*to, str(tmp_path / "none.pem")]) == 1
    (tmp_path / "revoked.pem").write_text("A" * 8_200)
    assert main([*to, str(tmp_path / "revoked.pem")]) == 1
    assert "longer than 8192 bytes" in capsys.readouterr().err
    assert len(letters) == 1


def test_a_gateway_whose_ledger_was_damaged_is_asked_once_more_with_its_name(key_files, monkeypatch, capsys):
    letters = []

    async def post(way, letter, now_ms, say):
        letters.append(letter)
        if len(letters) == 1:
            return {"id": letter.id, "status": "refused", "reason": "x", "result": {"ledger": "0123abcd"}}
        return {"id": letter.id, "status": "done"}

    monkeypatch.setattr(send, "asked", post)
    to = ["--broker", "mqtt://b", "--gateway", "arad/gw-1", "--sign-with", str(key_files[0])]
    assert main(["command", *to, "status"]) == 0
    first, again = (understand(f"{ROOT}cmd/", letter.topic, letter.payload) for letter in letters)
    assert (first.ledger, again.ledger, again.id) == ("", "0123abcd", first.id)
    assert Seal(key_files[1]).fits(again.signature, again.canonical)


@pytest.mark.parametrize("result", [{}, {"result": []}, {"result": {"ledger": 7}}, {"result": {"ledger": ""}}])
def test_a_refusal_for_another_reason_names_no_ledger(result):
    assert ledger_to_name({"status": "refused", **result}) == ""
    assert ledger_to_name({"status": "done", "result": {"ledger": "a"}}) == ""


def test_a_node_is_handed_what_is_in_a_file(tmp_path):
    (tmp_path / "node.json").write_text('{"every_s": 30}')
    letter = written(ROOT, "configure_node", {"node": "air-1", "configuration": {"every_s": 30}}, "n", 9, None)
    assert json.loads(letter.payload)["configuration"] == {"every_s": 30}
    with pytest.raises(ConfigError, match="number with a point"):
        written(ROOT, "configure_node", {"node": "air-1", "configuration": {"every_s": 0.5}}, "n", 9, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("status", "say --broker and --gateway, or --config"),
        ("--broker mqtt://b --gateway gw-1 status", "write CITY/NAME"),
        ("--broker mqtt://b --gateway a/+ status", "write CITY/NAME"),
        ("--broker broker.city:8883 --gateway a/b status", "write mqtt://host:port or mqtts://host:port"),
        ("--broker mqtt://b:99999 --gateway a/b status", "write mqtt://host:port or mqtts://host:port"),
        ("--broker mqtt://b --cert-file me.pem --gateway a/b status", "--cert-file is used with mqtts:// only"),
        ("--broker mqtt://b --gateway a/b --expires 5 status", "must expire after now"),
        ("--broker mqtt://b --gateway a/b --expires-in 90000 status", "within 24 hours"),
        ("--broker mqtt://b --gateway a/b --id ö status", "id must be text"),
        ("--broker mqtt://b --gateway a/b --sign-with /nowhere status", "cannot be used"),
        ("--broker mqtt://b --gateway a/b blink --for-s 90", "for_s"),
        (f"--broker mqtt://b --gateway a/b write boiler setpoint {'9' * 5000}", "value"),
        (f"--broker mqtt://b --gateway a/b write boiler setpoint {'9' * 20}", "a number is too large"),
        ("--broker mqtt://b --gateway a/b configure_node n /nowhere", "/nowhere"),
        ("--config /nowhere status", "/nowhere"),
    ],
)
def test_what_could_not_work_is_said_before_anything_is_sent(options, said, capsys, monkeypatch):
    monkeypatch.setattr(send, "asked", None)
    assert main(["command", *options.split()]) == 1
    assert said in capsys.readouterr().err


def test_a_public_key_signs_nothing(key_files):
    with pytest.raises(ConfigError, match="cannot be used"):
        written(ROOT, "status", {}, "a", 9, key_files[1])


def test_results_are_said_in_words():
    now_ms = 1_795_300_000_000
    said = words({"status": "done", "time_ms": now_ms, "result": {"value": "21.5", "lines": 3}}, now_ms)
    assert said == ["done", "  value: 21.5", "  lines: 3"]
    late = {"status": "expired", "reason": "it came too late", "time_ms": now_ms + 90_000}
    assert words(late, now_ms) == ["expired, nothing was done: it came too late", "its clock is 90 s ahead of ours"]
    assert words({**late, "time_ms": now_ms - 20_000}, now_ms)[1:] == []
    again = {"status": "unknown", "reason": "look", "repeated": True, "time_ms": 1}
    assert words(again, now_ms)[1] == "it was begun before; this is what came of it then"


ANYTHING = st.none() | st.integers() | st.text(max_size=9) | st.dictionaries(st.text(max_size=5), st.text(max_size=5))


@settings(max_examples=50)
@given(status=st.sampled_from(sorted(HEADS)), reason=ANYTHING, facts=ANYTHING, time_ms=ANYTHING, repeated=ANYTHING)
def test_no_result_reaches_the_terminal_as_it_came(status, reason, facts, time_ms, repeated):
    result = {"status": status, "reason": reason, "result": facts, "time_ms": time_ms, "repeated": repeated}
    assert all(line.isprintable() for line in words(result, 0))


def test_the_example_takes_commands(tmp_path):
    config, problems = check(EXAMPLE)
    assert not problems and config and config.commands
    assert set(config.devices["boiler"].writes) == {"setpoint", "pump"} and config.devices["hall-air"].actions
    assert "public_key" in EXAMPLE.read_text() and "public_key" not in tomllib.loads(EXAMPLE.read_text())["commands"]


def test_the_help_has_an_example_that_a_reader_can_copy(capsys):
    with pytest.raises(SystemExit):
        main(["command", "--help"])
    assert "write boiler setpoint 21.5" in capsys.readouterr().out


def test_a_letter_is_the_same_each_time():
    assert isinstance(written(ROOT, "status", {}, "a", 9, None), Letter)
    assert written(ROOT, "status", {}, "a", 9, None) == written(ROOT, "status", {}, "a", 9, None)
