"""`bega ca renew`, `revoke`, `list`, `issuing`: what happens to certificates after they were issued, and the list."""

import json
import re
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from bega.clock import CLOCK_FLOOR_MS, wall_ms
from bega.revocation import Revoked, understood
from bega_firmware import ca, ca_verbs
from bega_firmware.authority import Pair, Role, list_pem, make_issuing, make_leaf, make_list, make_root
from bega_firmware.ca_folder import CaFolder
from bega_protocols.errors import ConfigError

NOW_MS = CLOCK_FLOOR_MS + 86_400_000 * 30
DAY_MS = 86_400_000
NAME = "City of Arad"
ROOT = make_root(NAME, NOW_MS)
ISSUING = make_issuing(NAME, 1, ROOT, NOW_MS)


def ask(folder: Path, verb: str, *arguments: object, now_ms: int = NOW_MS) -> int:
    """Do what `bega ca VERB` does, at a time of one's own."""
    parser, verbs = ca.command_line("bega ca", None, "")
    ca._add_init(verbs)
    ca._add_issue(verbs)
    ca_verbs.add_to(verbs)
    args = parser.parse_args([verb, "--ca", str(folder), *map(str, arguments)])
    return args.command(args, lambda: now_ms)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "ca"
    assert ask(folder, "init", "--name", NAME) == 0
    for name, role in (("air-7", "node"), ("air-8", "node"), ("gw-1", "gateway")):
        assert ask(folder, "issue", name, "--for", role) == 0
    assert ask(folder, "issue", "broker-1", "--for", "broker", "--host", "localhost", "--host", "192.168.10.2") == 0
    return folder


@pytest.fixture
def city(made, tmp_path) -> Path:
    """An authority with two nodes, a gateway and a broker."""
    return Path(shutil.copytree(made, tmp_path / "ca"))


def certificate(path: Path) -> x509.Certificate:
    content = path.read_bytes()
    is_text = b"-----BEGIN" in content
    return (x509.load_pem_x509_certificate if is_text else x509.load_der_x509_certificate)(content)


def heard(folder: Path):
    """Return the list as a gateway understands it, which has the root alone."""
    return understood((folder / "revoked.pem").read_bytes(), [certificate(folder / "root.pem")], "a list")


def rows(folder: Path, capsys, now_ms: int = NOW_MS) -> list[dict[str, str]]:
    capsys.readouterr()
    assert ask(folder, "list", "--json", now_ms=now_ms) == 0
    return json.loads(capsys.readouterr().out)


def test_authority_begins_with_a_list_of_nobody_and_a_broker_gets_it(city):
    """mosquitto with a list for no issuing key refuses everybody that this key signed."""
    assert heard(city).entries == ()
    assert (city / "identities/broker-1/revoked.pem").read_bytes() == (city / "revoked.pem").read_bytes()


def test_revoked_device_is_on_the_list_with_its_name_and_a_higher_number(city, capsys):
    before = heard(city)
    serial = certificate(city / "identities/air-7/node.der").serial_number
    assert ask(city, "revoke", "air-7", "--reason", "stolen") == 0
    after = heard(city)
    assert after.entries == (Revoked(serial, "air-7", True),)
    assert after.number > before.number, "within the same second too"
    assert after.revoked_since(before) == ["air-7"]
    assert after.barred == {"air-7"}
    assert b"stolen" not in (city / "revoked.pem").read_bytes()
    assert {row["name"]: (row["state"], row["why"][:6]) for row in rows(city, capsys)}["air-7"] == ("revoked", "stolen")


def test_each_list_begins_later_than_the_one_before_and_in_the_past(city):
    """OpenSSL keeps every list that it was given, and of one issuer goes by the one that begins last."""
    begins = []
    for name in ("air-7", "air-8", "gw-1"):
        assert ask(city, "revoke", name) == 0
        begins.append(x509.load_pem_x509_crl((city / "revoked.pem").read_bytes()).last_update_utc)
    assert begins == sorted(set(begins))
    assert begins[-1] < datetime.fromtimestamp(NOW_MS / 1000 - 86_000, UTC)


def test_list_is_good_for_as_long_as_the_issuing_key(city):
    """One that ended earlier would have mosquitto refuse everybody on that day."""
    revoked = x509.load_pem_x509_crl((city / "revoked.pem").read_bytes())
    assert revoked.next_update_utc == certificate(city / "issuing-1.pem").not_valid_after_utc


def test_revoking_again_changes_nothing_and_says_so(city, capsys):
    assert ask(city, "revoke", "air-7", "--reason", "lost") == 0
    assert ask(city, "revoke", "air-7", "--reason", "stolen", now_ms=NOW_MS + DAY_MS) == 0
    assert "was revoked before" in capsys.readouterr().out
    assert len(heard(city).entries) == 1
    assert next(row for row in rows(city, capsys) if row["name"] == "air-7")["why"].startswith("lost, ")


def test_whoever_was_revoked_is_let_in_again_only_when_asked_for(city, capsys):
    shutil.rmtree(city / "identities/air-7")
    assert ask(city, "revoke", "air-7", "--reason", "lost") == 0
    with pytest.raises(ConfigError, match=r"air-7 was revoked on .* \(lost\); --again"):
        ask(city, "issue", "air-7")
    with pytest.raises(ConfigError, match="air-7 was revoked"):
        ask(city, "renew", "air-7")
    assert ask(city, "issue", "air-7", "--again") == 0
    assert "let in again once" in capsys.readouterr().out
    after = heard(city)
    assert [(entry.name, entry.is_barred) for entry in after.entries] == [("air-7", False)]
    assert after.barred == frozenset()


def test_list_that_cannot_end_a_broker_is_said_to(city, capsys):
    """Who connects looks at no list, MicroPython's TLS cannot: a thief plays the broker until its certificate ends."""
    assert ask(city, "revoke", "broker-1") == 0
    assert "nodes and gateways look at no list" in capsys.readouterr().err
    assert ask(city, "revoke", "air-7") == 0
    assert capsys.readouterr().err == ""


def test_one_certificate_of_two_can_be_revoked(city, tmp_path):
    old = certificate(city / "identities/air-7/node.der")
    assert ask(city, "renew", "air-7", "--out", tmp_path / "new") == 0
    assert ask(city, "revoke", "air-7", "--serial", f"{old.serial_number:X}") == 0
    assert heard(city).entries == (Revoked(old.serial_number, "air-7", False),)
    with pytest.raises(ConfigError, match="air-7 has no certificate abc"):
        ask(city, "revoke", "air-7", "--serial", "abc")


def test_renewed_certificate_has_the_same_id_part_and_hosts_and_another_key(city, tmp_path):
    later_ms = NOW_MS + 300 * DAY_MS
    for name, file in (("air-7", "node.der"), ("broker-1", "broker-1.pem"), ("gw-1", "gw-1.pem")):
        assert ask(city, "renew", name, "--out", tmp_path / name, "--days", 400, now_ms=later_ms) == 0
        old, new = certificate(city / "identities" / name / file), certificate(tmp_path / name / file)
        assert new.subject == old.subject
        assert new.not_valid_after_utc > datetime.fromtimestamp(later_ms / 1000 + 399 * 86_400, UTC)
        assert new.public_key() != old.public_key()
        assert new.serial_number != old.serial_number
        same = x509.ExtendedKeyUsage if name != "broker-1" else x509.SubjectAlternativeName
        assert new.extensions.get_extension_for_class(same) == old.extensions.get_extension_for_class(same)
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {path.name for path in (city / "identities" / name).iterdir()}


def test_what_an_older_bega_issued_can_be_renewed_when_its_part_is_said(city, tmp_path):
    (noted,) = (city / "issued/air-7").iterdir()
    noted.write_bytes(noted.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(ConfigError, match="say --for node or --for gateway"):
        ask(city, "renew", "air-7", "--out", tmp_path / "new")
    assert ask(city, "renew", "air-7", "--out", tmp_path / "new", "--for", "node") == 0


@pytest.mark.parametrize("verb", ["renew", "revoke"])
@pytest.mark.parametrize("name", ["../root", "AIR-7", "air", "a/b/c", "+", "air-7\n"])
def test_no_other_id_is_looked_for(city, verb, name):
    with pytest.raises(ConfigError, match="is no device id"):
        ask(city, verb, name)


@pytest.mark.parametrize("verb", ["renew", "revoke"])
def test_device_that_was_never_issued_is_said(city, verb):
    with pytest.raises(ConfigError, match="air-9 has no certificate of this authority"):
        ask(city, verb, "air-9")


def test_list_shows_first_what_ends_first_and_what_is_over_last(city, capsys):
    shutil.rmtree(city / "identities/air-8")
    assert ask(city, "issue", "air-3", "--days", 30) == 0
    assert ask(city, "issue", "air-1", "--days", 5) == 0
    assert ask(city, "revoke", "air-8") == 0
    shown = [(row["name"], row["for"], row["state"]) for row in rows(city, capsys, NOW_MS + 10 * DAY_MS)]
    assert shown[0] == ("air-3", "node", "ends soon")
    assert shown[-2:] == [("air-8", "node", "revoked"), ("air-1", "node", "ended")]
    assert {("gw-1", "gateway", "good"), ("broker-1", "broker", "good")} <= set(shown)
    assert ask(city, "list") == 0
    said = capsys.readouterr().out
    assert re.search(r"air-8 +node +20\d\d-\d\d-\d\d  revoked \(unsaid, 20", said)
    assert "issuing key 1" in said
    assert "root" in said


def test_next_issuing_key_signs_and_the_list_speaks_for_both(city, tmp_path, capsys):
    shutil.move(city / "root.key", tmp_path / "root.key")
    with pytest.raises(ConfigError, match=r"root\.key cannot be read"):
        ask(city, "issuing")
    assert ask(city, "revoke", "air-7") == 0
    later_ms = NOW_MS + 400 * DAY_MS
    assert ask(city, "issuing", "--root-key", tmp_path / "root.key", now_ms=later_ms) == 0
    assert "issuing key 2" in capsys.readouterr().out
    assert ask(city, "issue", "air-9", now_ms=later_ms) == 0
    assert ask(city, "revoke", "air-9", now_ms=later_ms) == 0
    issuing = [certificate(city / f"issuing-{number}.pem") for number in (1, 2)]
    issuing[1].verify_directly_issued_by(certificate(city / "root.pem"))
    certificate(city / "identities/air-9/node.der").verify_directly_issued_by(issuing[1])
    listed = heard(city)
    assert [entry.name for entry in listed.entries] == ["air-9", "air-7"]
    assert set(listed.issuing) == set(issuing)
    assert stat.S_IMODE((city / "issuing-2.key").stat().st_mode) == 0o600


def test_stolen_issuing_key_is_in_no_list_and_what_it_signed_is_good_no_more(city, tmp_path, capsys):
    assert ask(city, "revoke", "air-8") == 0
    with pytest.raises(ConfigError, match="has no issuing key 7"):
        ask(city, "issuing", "--stolen", 7)
    assert ask(city, "issuing", "--stolen", 1) == 0
    assert {path.name for path in city.glob("*-[0-9].*")} == {"stolen-1.pem", "issuing-2.pem", "issuing-2.key"}
    said = heard(city)
    assert certificate(city / "stolen-1.pem") not in said.issuing
    assert {row["state"] for row in rows(city, capsys)} == {"revoked"}
    assert ask(city, "issue", "air-7", "--out", tmp_path / "new") == 0, "as one that has none"
    assert ask(city, "renew", "gw-1", "--out", tmp_path / "gw") == 0
    assert certificate(tmp_path / "new/node.der").issuer == certificate(city / "issuing-2.pem").subject
    assert {row["name"] for row in rows(city, capsys) if row["state"] == "good"} == {"air-7", "gw-1"}


def test_issuing_key_that_ended_needs_no_list_and_one_that_is_left_alone_is_said(city, capsys):
    ended_ms = NOW_MS + 740 * DAY_MS
    with pytest.raises(ConfigError, match=r"the issuing key ended on .* `bega ca issuing`"):
        ask(city, "renew", "air-7", now_ms=ended_ms)
    with pytest.raises(ConfigError, match=r"ended on .* there is nothing to revoke"):
        ask(city, "revoke", "air-7", now_ms=ended_ms)
    assert ask(city, "issuing", now_ms=ended_ms) == 0
    assert heard(city).issuing == (certificate(city / "issuing-2.pem"),)
    capsys.readouterr()
    assert ask(city, "list", now_ms=ended_ms) == 0
    assert re.search(r"issuing key 1 .* ended", capsys.readouterr().out)


def test_issuing_key_whose_making_was_cut_off_is_made_anew(city):
    """The key alone is on disk: it has signed nothing, since nobody has its certificate."""
    (city / "issuing-2.key").write_bytes(b"half a key")
    assert ask(city, "issuing") == 0
    assert ask(city, "issue", "air-9") == 0


def test_key_of_another_root_makes_no_issuing_key(city, tmp_path):
    other = tmp_path / "other"
    assert ask(other, "init", "--name", "Another") == 0
    with pytest.raises(ConfigError, match="is not the key of the authority's root"):
        ask(city, "issuing", "--root-key", other / "root.key")
    assert not (city / "issuing-2.pem").exists()


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_list_that_was_damaged_or_lost_is_written_anew_with_a_higher_number(city, damage):
    assert ask(city, "revoke", "air-7") == 0
    before = heard(city).number
    (city / "revoked.pem").unlink()
    if damage is not None:
        (city / "revoked.pem").write_bytes(damage)
    assert ask(city, "revoke", "air-8", now_ms=NOW_MS + 5000) == 0
    assert {entry.name for entry in heard(city).entries} == {"air-7", "air-8"}
    assert heard(city).number > before


def test_list_of_another_authority_is_not_believed(city, tmp_path):
    other = tmp_path / "other"
    assert ask(other, "init", "--name", NAME) == 0
    with pytest.raises(ConfigError, match="is not signed by the authority"):
        understood((other / "revoked.pem").read_bytes(), [certificate(city / "root.pem")], "a list")


def test_device_cannot_make_a_list(city):
    """A node's certificate is of the same authority, and its key in the hands of whoever stole it."""
    leaf = make_leaf("air-7", Role.NODE, [], ISSUING, NOW_MS, 100)
    forged = make_list(leaf, 10**12, [], None, NOW_MS)
    mixed = list_pem(forged) + (city / "root.pem").read_bytes()
    for trusted in ([ROOT.certificate], [ROOT.certificate, ISSUING.certificate, leaf.certificate]):
        with pytest.raises(ConfigError, match="is not signed by the authority"):
            understood(mixed, trusted, "a list")
    named_alike = Pair(ISSUING.certificate, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match="is not signed by the authority"):
        understood(list_pem(make_list(named_alike, 1, [], None, NOW_MS)), [ISSUING.certificate], "a list")


GOOD = list_pem(make_list(ISSUING, 7, [(Revoked(5, "air-7", True), datetime(2026, 1, 1, tzinfo=UTC))], None, NOW_MS))


@given(at=st.integers(0, len(GOOD) - 1), octet=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
@example(at=37, octet=66, cut=0)  # another version number, for which cryptography has an error of its own
def test_damaged_list_is_refused_or_says_the_same(at, octet, cut):
    for pem in (GOOD[:at] + bytes((octet,)) + GOOD[at + 1 :], GOOD[:cut], GOOD[cut:] + GOOD[:at]):
        try:
            listed = understood(pem, [ROOT.certificate, ISSUING.certificate], "a list")
        except ConfigError:
            continue
        assert (listed.number, listed.entries) == (7, (Revoked(5, "air-7", True),))


def test_list_put_together_of_two_or_too_large_is_refused():
    other = list_pem(make_list(ISSUING, 8, [], None, NOW_MS))
    for pem in (GOOD + other, GOOD + GOOD):
        with pytest.raises(ConfigError, match="put together of several"):
            understood(pem, [ISSUING.certificate], "a list")
    with pytest.raises(ConfigError, match="larger than any list"):
        understood(GOOD + b" " * 1_000_000, [ISSUING.certificate], "a list")
    with pytest.raises(ConfigError, match="is no list of revoked"):
        understood(GOOD * 17, [ISSUING.certificate], "a list")


def test_hundred_revoked_devices_fit_into_a_command(city):
    """What a gateway takes has at most 8,192 bytes (docs/commands.md)."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    revoked = [(Revoked(2**158 + number, f"air-{number:04}", True), when) for number in range(100)]
    authority = CaFolder(city)
    pem = list_pem(make_list(authority.issuing(), 1_795_300_000, revoked, None, NOW_MS))
    pem += (city / "issuing-1.pem").read_bytes()
    assert len(json.dumps({"list": pem.decode()})) < 8_192 - 400


def test_disk_that_fails_leaves_the_list_as_it_was_or_whole(city, monkeypatch):
    before = (city / "revoked.pem").read_bytes()

    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left"):
        ask(city, "revoke", "air-7")
    monkeypatch.undo()
    assert (city / "revoked.pem").read_bytes() == before
    assert not list(city.glob(".*.part"))
    assert ask(city, "revoke", "air-7") == 0
    assert heard(city).barred == {"air-7"}


def test_thousand_identities_share_nothing_and_follow_from_nothing():
    """No id, serial number or key comes twice; whoever knows one MAC address or serial number knows no other."""
    names = [f"air-{number:04}" for number in range(1000)]
    first = [make_leaf(name, Role.NODE, [], ISSUING, NOW_MS, 1) for name in names]
    serials = [leaf.certificate.serial_number for leaf in first]
    points = {leaf.key.public_key().public_numbers().x for leaf in first}
    assert len(set(serials)) == len(points) == len(set(names)) == 1000
    steps = {after - before for before, after in pairwise(serials)}
    assert len(steps) == 999, "no count"
    ones = [sum(serial >> bit & 1 for serial in serials) for bit in range(158)]
    assert all(350 < count < 650 for count in ones), "no bit is the same in all: no maker's prefix, no time"


def test_command_says_no_secret_and_no_traceback(tmp_path):
    """As a program, so by the real clock."""
    city, said = tmp_path / "ca", ""
    assert ask(city, "init", "--name", NAME, now_ms=wall_ms()) == 0
    for name in ("air-7", "air-8"):
        assert ask(city, "issue", name, now_ms=wall_ms()) == 0
    for words in (["list"], ["revoke", "air-7", "--json"], ["renew", "air-8"], ["issuing"], ["revoke", "nobody-9"]):
        command = [sys.executable, "-m", "bega", "ca", words[0], "--ca", str(city), *words[1:]]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60)
        said += outcome.stdout + outcome.stderr
        assert outcome.returncode == (1 if words[-1] in ("nobody-9", "air-8") else 0), outcome.stderr
    assert "Traceback" not in said
    for key in city.rglob("*.key"):
        content = key.read_bytes()
        assert (content.splitlines()[1].decode() if content.startswith(b"-----") else content.hex()) not in said


def test_revoked_device_is_not_renewed_by_an_older_certificate_that_just_ended(city, tmp_path):
    """It would be in again without --again, and gateways, whose list bars it, would refuse what it sends."""
    assert ask(city, "issuing", now_ms=NOW_MS + 400 * DAY_MS) == 0
    assert ask(city, "renew", "air-7", "--out", tmp_path / "next", now_ms=NOW_MS + 700 * DAY_MS) == 0
    after_the_first_ended_ms = NOW_MS + 800 * DAY_MS
    assert ask(city, "revoke", "air-7", "--reason", "stolen", now_ms=after_the_first_ended_ms) == 0
    with pytest.raises(ConfigError, match="air-7 was revoked"):
        ask(city, "renew", "air-7", "--out", tmp_path / "third", now_ms=after_the_first_ended_ms)
    assert heard(city).barred == {"air-7"}


def test_issuing_key_ends_with_its_root_and_an_ended_root_signs_none(city, capsys):
    assert ask(city, "issuing", now_ms=NOW_MS + 3600 * DAY_MS) == 0
    assert "the root ends then" in capsys.readouterr().err
    root = certificate(city / "root.pem")
    assert certificate(city / "issuing-2.pem").not_valid_after_utc == root.not_valid_after_utc
    with pytest.raises(ConfigError, match=r"the root ended on .*a new authority: `bega ca init`"):
        ask(city, "issuing", now_ms=NOW_MS + 3700 * DAY_MS)


def test_list_never_begins_in_the_future_after_a_clock_that_was_ahead(city):
    """mosquitto refuses everybody while a list is not yet valid."""
    assert ask(city, "revoke", "air-7", now_ms=NOW_MS + 365 * DAY_MS) == 0
    with pytest.raises(ConfigError, match=r"begins on .*set the clock.* delete revoked.pem"):
        ask(city, "revoke", "air-8")
    (city / "revoked.pem").unlink()
    assert ask(city, "revoke", "air-8") == 0
    assert heard(city).barred == {"air-7", "air-8"}
    listed = x509.load_pem_x509_crl((city / "revoked.pem").read_bytes())
    assert listed.last_update_utc < datetime.fromtimestamp(NOW_MS / 1000, UTC)


class PowerCutError(BaseException):
    """Nothing that comes after it is done."""


@pytest.mark.parametrize("arguments", [("issue", "air-9"), ("issuing",)])
def test_power_cut_leaves_no_half_certificate_among_those_that_were_noted(city, monkeypatch, arguments):
    """One that cannot be read would stop every list and every issue from then on."""

    def cut(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if ".pem" in name:
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr("bega_firmware.ca_folder.os.fsync", cut)
        with pytest.raises(PowerCutError):
            ask(city, *arguments)
    assert ask(city, "revoke", "air-7") == 0
    assert ask(city, *arguments) == 0


def test_authority_without_a_folder_of_its_own_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="write it as city-ca"):
        ask(Path(), "init", "--name", NAME)
