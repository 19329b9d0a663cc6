"""What Home Assistant asks of a description, typed from its documents, and a reader that behaves as it does.

Home Assistant 2026.9: integrations `mqtt` (discovery), `sensor.mqtt`, `binary_sensor.mqtt`, `sensor` and
`binary_sensor` (device classes), homeassistant/components/sensor/const.py (units and state classes of each class).
Nothing here comes from `bega_gateway`.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import paho.mqtt.client as paho


def _words(text: str) -> set[str]:
    return set(text.split())


ALL = frozenset({"measurement", "measurement_angle", "total", "total_increasing"})
NOW = frozenset({"measurement"})
SUMS = frozenset({"total", "total_increasing"})
LITRES = {"m³", "L", "mL", "ft³", "CCF", "MCF", "gal", "fl. oz."}
ENERGY = {"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh", "cal", "kcal", "Mcal", "Gcal"}
PRESSURE = {"Pa", "mPa", "hPa", "kPa", "bar", "cbar", "mbar", "mmHg", "inHg", "inH₂O", "psi"}
PER_M3 = "μg/m³"  # with the Greek mu, as it is spelled since 2025.9

# sensor: device class: (units, None for no unit; state classes)
SENSOR_CLASSES: dict[str, tuple[set[str | None], frozenset[str]]] = {
    "apparent_power": ({"VA", "kVA", "mVA"}, NOW),
    "aqi": ({None}, NOW),
    "atmospheric_pressure": (set(PRESSURE), NOW),
    "battery": ({"%"}, NOW),
    "carbon_dioxide": ({"ppm"}, NOW),
    "conductivity": ({"S/cm", "mS/cm", "μS/cm"}, NOW),
    "current": ({"A", "mA", "μA"}, NOW),
    "distance": ({"cm", "ft", "in", "km", "m", "mi", "mm", "nmi", "yd"}, ALL),
    "duration": ({"d", "h", "min", "s", "ms", "μs"}, ALL),
    "energy": (set(ENERGY), SUMS),
    "frequency": ({"Hz", "mHz", "kHz", "MHz", "GHz"}, NOW),
    "gas": ({"m³", "L", "ft³", "CCF", "MCF"}, SUMS),
    "humidity": ({"%"}, NOW),
    "illuminance": ({"lx"}, NOW),
    "moisture": ({"%"}, NOW),
    "pm1": ({PER_M3}, NOW),
    "pm25": ({PER_M3}, NOW),
    "pm4": ({PER_M3}, NOW),
    "pm10": ({PER_M3}, NOW),
    "power": ({"mW", "W", "kW", "MW", "GW", "TW"}, NOW),
    "power_factor": ({"%", None}, NOW),
    "precipitation": ({"cm", "in", "mm"}, ALL),
    "reactive_energy": ({"varh", "kvarh"}, SUMS),
    "reactive_power": ({"mvar", "var", "kvar"}, NOW),
    "signal_strength": ({"dB", "dBm"}, NOW),
    "speed": ({"m/s", "m/min", "mm/s", "km/h", "ft/s", "in/s", "mph", "kn", "Beaufort", "mm/h", "mm/d"}, NOW),
    "temperature": ({"°C", "°F", "K"}, NOW),
    "temperature_delta": ({"°C", "°F", "K"}, NOW),
    "timestamp": ({None}, frozenset()),
    "volatile_organic_compounds": ({PER_M3, "mg/m³"}, NOW),
    "voltage": ({"V", "mV", "μV", "kV", "MV"}, NOW),
    "volume": (set(LITRES), SUMS),
    "volume_storage": (set(LITRES), NOW),
    "volume_flow_rate": ({"m³/h", "m³/min", "m³/s", "L/h", "L/min", "L/s", "mL/s", "ft³/min", "gal/min"}, NOW),
    "water": ({"m³", "L", "ft³", "CCF", "MCF", "gal"}, SUMS),
    "weight": ({"kg", "g", "mg", "μg", "oz", "lb", "st"}, NOW | SUMS),
}
BINARY_CLASSES = _words(
    "battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock moisture motion"
    " moving occupancy opening plug power presence problem running safety smoke sound tamper update vibration"
    " window"
)
OF_BOTH = _words(
    "platform name unique_id state_topic json_attributes_topic json_attributes_template availability"
    " availability_mode device_class enabled_by_default entity_category expire_after force_update icon qos encoding"
    " value_template default_entity_id"
)
FIELDS = {
    "sensor": OF_BOTH | _words("unit_of_measurement state_class options suggested_display_precision"),
    "binary_sensor": OF_BOTH | _words("payload_on payload_off off_delay"),
}
DEVICE_FIELDS = _words(
    "identifiers connections name manufacturer model model_id serial_number hw_version sw_version configuration_url"
    " suggested_area via_device"
)
ROOT_FIELDS = {"device", "origin", "components", "availability", "availability_mode", "state_topic", "qos", "encoding"}
TOPIC = re.compile(r"[^+#\0]+")
CONFIG_TOPIC = re.compile(r"homeassistant/device/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")


def require_description(topic: str, payload: bytes) -> dict[str, Any]:
    """Return what is described; AssertionError with the reason where Home Assistant would refuse it."""
    assert CONFIG_TOPIC.fullmatch(topic), topic
    whole = json.loads(payload)
    assert whole.keys() >= {"device", "origin", "components"}, "device discovery asks for all three"
    assert whole.keys() <= ROOT_FIELDS
    device, origin = whole["device"], whole["origin"]
    assert device.keys() <= DEVICE_FIELDS
    assert device["identifiers"], "a device is told by its identifiers"
    assert device["name"]
    assert origin["name"], "the origin has a name"
    assert origin.keys() <= {"name", "sw_version", "support_url"}
    for key, component in whole["components"].items():
        require_component(key, component)
    return whole


def require_component(key: str, component: dict[str, Any]) -> None:
    platform = component["platform"]
    assert component.keys() <= FIELDS[platform], f"{key}: {component.keys() - FIELDS[platform]}"
    assert component["unique_id"], "an entity of a device has a unique_id"
    assert component["name"]
    topics = [component["state_topic"], *(source["topic"] for source in component.get("availability", []))]
    assert all(TOPIC.fullmatch(topic) for topic in topics), key
    assert component.get("availability_mode", "latest") in ("all", "any", "latest")
    assert component.get("entity_category", "diagnostic") == "diagnostic", "the only one that a sensor may have"
    expires = component.get("expire_after", 0)
    assert isinstance(expires, int) and expires >= 0, key
    device_class = component.get("device_class")
    if platform == "binary_sensor":
        assert device_class in BINARY_CLASSES | {None}, key
        return
    unit, state_class = component.get("unit_of_measurement"), component.get("state_class")
    require_units(key, device_class, unit, state_class)


def require_units(key: str, device_class: str | None, unit: str | None, state_class: str | None) -> None:
    """Home Assistant spells the micro sign as Greek mu before it compares (AMBIGUOUS_UNITS)."""
    unit = unit.replace("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}") if unit else unit
    assert state_class in ALL | {None}, key
    assert state_class != "measurement_angle" or unit == "°", key
    if device_class is not None:
        units, state_classes = SENSOR_CLASSES[device_class]
        assert unit in units, f"{key}: {device_class} knows no {unit}"
        assert state_class is None or state_class in state_classes, f"{key}: {device_class} is no {state_class}"


class HomeAssistant:
    """Reads discovery as Home Assistant does: an entity is what its description, values and availability make it.

    It counts only values that come after the description was understood, as it does.
    """

    def __init__(self, port: int) -> None:
        self.kept: dict[str, bytes] = {}  # every message that the broker kept for us, by topic
        self.refused: list[str] = []
        self._devices: dict[str, dict[str, Any]] = {}  # by discovery topic
        self._heard: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"home-assistant-{id(self):x}")
        self._client.reconnect_delay_set(0.2, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("homeassistant/#", 1)
        self._client.on_message = self._take
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect_async("127.0.0.1", port, keepalive=5)
        self._client.loop_start()
        assert ready.wait(10), "no subscription"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say_birth(self) -> None:
        self._client.publish("homeassistant/status", b"online", qos=1).wait_for_publish(10)

    def heard(self) -> list[str]:
        """Return every topic on which anything came."""
        with self._lock:
            return [*self._heard, *self._devices]

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return the descriptions, by the device's name."""
        with self._lock:
            return {whole["device"]["name"]: whole for whole in self._devices.values()}

    def component(self, unique_id: str) -> dict[str, Any] | None:
        return next(
            (
                component
                for whole in self.devices().values()
                for component in whole["components"].values()
                if component["unique_id"] == unique_id
            ),
            None,
        )

    def state(self, unique_id: str) -> str | None:
        """Return what is shown: a value, "unavailable" or "unknown"; None if there is no such entity."""
        component = self.component(unique_id)
        if component is None:
            return None
        sources = [source["topic"] for source in component.get("availability", [])]
        if any(self._heard.get(topic) != b"online" for topic in sources):
            return "unavailable"
        value = self._heard.get(component["state_topic"])
        return "unknown" if value is None else value.decode()

    def attributes(self, unique_id: str) -> dict[str, Any]:
        component = self.component(unique_id)
        return json.loads(self._heard.get(component["json_attributes_topic"], b"{}")) if component else {}

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        if message.retain:
            self.kept[message.topic] = message.payload
        if not message.topic.endswith("/config"):
            with self._lock:
                self._heard[message.topic] = message.payload
            return
        with self._lock:
            if not message.payload:
                self._devices.pop(message.topic, None)
                return
            try:
                whole = require_description(message.topic, message.payload)
            except (AssertionError, KeyError, ValueError) as error:
                self.refused.append(f"{message.topic}: {error!r}")
                return
            self._devices[message.topic] = whole
        for component in whole["components"].values():
            for topic in (component["state_topic"], component.get("json_attributes_topic")):
                if topic:
                    client.subscribe(topic, 1)
            for source in component.get("availability", []):
                client.subscribe(source["topic"], 1)
