"""A node's label: what is on it can be read back, by a phone and by eyes, from what the printer gets."""

import json
import re
import struct

import pytest
import zxingcpp
from PIL import Image

from bega_firmware import book, command
from bega_firmware.label import make_label, support_month
from bega_firmware.label_image import Label, draw
from bega_firmware.label_raster import brother_ql, zpl
from bega_protocols.errors import ConfigError

NOW_MS = 1_795_344_000_000  # 2026-11-22
LONG = "air-pole-strada-mihai-eminescu-7"  # as long as an id can be
PLAIN = Label("air-7", "0.1.0", "2031-11", "Timișoara, Piața Unirii", "ESP32-DevKitC")
FULL = Label(LONG, "10.11.12-rc.1+2", "2031-11", "Întreprinderea de Salubrizare Țânțăreni", "meter carrier, ESP32")


def held(image):
    """Return what a reader makes of a picture."""
    return [code.text for code in zxingcpp.read_barcodes(image.convert("L"))]


def of_zpl(raster):
    """Return the picture that a ZPL printer makes: ^GFA,size,size,bytes a row,hex (1 is black)."""
    text = raster.decode("ascii")
    size, row_bytes, digits = re.search(r"\^GFA,\d+,(\d+),(\d+),([0-9A-F\n]+)\^FS", text).groups()
    dots = bytes.fromhex(digits.replace("\n", ""))
    assert len(dots) == int(size)
    width, height = (int(re.search(rf"\^{word}(\d+)", text)[1]) for word in ("PW", "LL"))
    whole = Image.frombytes("1", (int(row_bytes) * 8, height), bytes(byte ^ 0xFF for byte in dots))
    return whole.crop((0, 0, width, height))


def of_ql(raster):
    """Return what a QL's head burns, left as on the label: each row 720 pins, the first at the right."""
    start = raster.index(b"\x1biz")
    rows = struct.unpack_from("<I", raster, start + 7)[0]
    body = raster[raster.index(b"M\x00", start) + 2 : -1]
    assert raster[-1:] == b"\x1a" and len(body) == rows * 93
    lines = [body[at + 3 : at + 93] for at in range(0, len(body), 93)]
    assert {body[at : at + 3] for at in range(0, len(body), 93)} == {b"g\x00\x5a"}
    burnt = Image.frombytes("1", (720, rows), bytes(byte ^ 0xFF for byte in b"".join(lines)))
    return burnt.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize("dpi", [203, 300])
@pytest.mark.parametrize("label", [PLAIN, FULL], ids=["plain", "full"])
def test_code_is_read_back_from_the_picture_and_from_both_rasters(label, dpi):
    drawn = draw(label, 62, 29, dpi)
    wanted = [f"bega:{label.node}?firmware={label.firmware}"]
    assert held(drawn.image) == wanted
    assert held(of_zpl(zpl(drawn))) == wanted
    assert of_zpl(zpl(drawn)).tobytes() == drawn.image.tobytes()
    if dpi == 300:
        assert held(of_ql(brother_ql(drawn, 62, 29))) == wanted


def test_a_ql_of_die_cut_labels_gets_all_that_is_black():
    drawn = draw(FULL, 62, 29, 300)
    burnt = of_ql(brother_ql(drawn, 62, 29))
    assert burnt.size == (720, 271)
    assert burnt.convert("L").histogram()[0] == drawn.image.convert("L").histogram()[0]
    reached = drawn.image.crop((18, 36, 18 + 696, 36 + 271))  # not mirrored: a reader of codes would not mind
    assert burnt.crop((12, 0, 12 + 696, 271)).tobytes() == reached.tobytes()


def test_a_size_of_no_die_cut_label_goes_on_the_roll():
    raster = brother_ql(draw(PLAIN, 60, 30, 300), 60, 30)
    assert raster[raster.index(b"\x1biz") + 4] == 0x0A
    assert held(of_ql(raster)) == [PLAIN.qr_text]


@pytest.mark.parametrize(("width_mm", "dpi"), [(80, 300), (62, 203)])
def test_what_no_ql_takes_is_refused(width_mm, dpi):
    with pytest.raises(ConfigError, match="62 mm wide, at 300 dpi"):
        brother_ql(draw(PLAIN, width_mm, 29, dpi), width_mm, 29)


def test_what_is_cut_or_has_no_letters_is_said():
    assert draw(PLAIN, 62, 29, 300).complaints == []
    complaints = draw(Label("air-7", "0.1.0", "2031-11", "Београд", "x" * 80), 62, 29, 300).complaints
    assert "no Б е о г р а д" in complaints[1]
    assert complaints[0].startswith("'xxx") and complaints[0].endswith("…'")


def test_letters_with_a_comma_below_are_drawn_as_such():
    """Other fonts and printers' own draw `?` or a cedilla; what is drawn differs from both."""
    pictures = {
        draw(Label("air-7", "0.1.0", "2031-11", site), 62, 29, 300).image.tobytes() for site in ("ș", "ş", "?", "s")
    }
    assert len(pictures) == 4


@pytest.mark.parametrize(("width_mm", "height_mm"), [(30, 29), (62, 10), (62, 18)])
def test_a_label_that_is_too_small_is_refused(width_mm, height_mm):
    with pytest.raises(ConfigError, match=r"too small|do not fit|does not fit"):
        draw(FULL, width_mm, height_mm, 300)


def test_support_ends_with_a_month_five_years_on_or_as_asked():
    assert support_month("", lambda: NOW_MS) == "2031-11"
    assert support_month("2036-02", lambda: NOW_MS) == "2036-02"
    for wrong in ("2026-10", "2031-13", "soon"):
        with pytest.raises(ConfigError, match="--support-until"):
            support_month(wrong, lambda: NOW_MS)


def test_a_label_of_another_size_leaves_no_old_raster(tmp_path):
    assert len(make_label(tmp_path, "air-7", firmware="0.1.0")["files"]) == 3
    assert len(make_label(tmp_path, "air-7", firmware="0.1.0", dpi=203)["files"]) == 2
    assert not list(tmp_path.glob("*.ql"))


def test_command_takes_from_the_book_what_is_not_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    assert command.main(["label", "air-7"]) == 1
    assert "--firmware" in capsys.readouterr().err
    book.note(tmp_path, book.FLASHED, True, "", mac="24:0a", board="esp32_devkitc", firmware="0.1.0")
    book.note(tmp_path, book.PROVISIONED, True, "", mac="24:0a", node="air-7", site="timisoara")
    assert command.main(["label", "air-7", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["board"], facts["site"], facts["qr"]) == ("ESP32-DevKitC", "timisoara", "bega:air-7?firmware=0.1.0")
    assert held(Image.open(facts["files"][0])) == ["bega:air-7?firmware=0.1.0"]
    assert command.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labelled_ms"]


@pytest.mark.parametrize("wrong", [["Air_7"], ["air-7", "--firmware", "1 0"], ["air-7", "--firmware", "1?x"]])
def test_what_may_not_stand_in_the_code_is_refused(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    assert command.main(["label", "--firmware", "0.1.0", *wrong]) == 1
    assert "bega node label: " in capsys.readouterr().err
