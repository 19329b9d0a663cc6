"""How the interpreter reaches the port's modules here: names are looked up and called by their path, values as JSON.

A path is a module's name or "#7" for an object that was handed out, then names joined by dots. JSON has no bytes, no
tuples and no objects: {"b": hex}, {"t": [...]}, {"r": path}; {"m": hex} is a buffer that may come back filled as
`into`, {"c": name} a function of the firmware's, {"e": [name, *args]} an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bega_simulators.board.cut import PowerCut
from bega_simulators.board.port import MODULES, Handler, Mask, Part, Sleep

INVALID = 22  # errno of what the port raises as ValueError


class Remote:
    """The modules of one boot, and the objects that the firmware made of their classes."""

    def __init__(self, call: Callable[..., Any], is_off: Callable[[], bool]) -> None:
        """call(op, ...) asks the board's parts; is_off() says that a reset was asked for: nobody is answered then."""
        self._call = call
        self._is_off = is_off
        self._roots: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every object."""
        self._roots = {name: self._bound(module)() for name, module in MODULES.items()}
        for module in self._roots.values():
            for part in module._CLASSES:
                setattr(module, part.__name__, self._bound(part))

    def do_get(self, path: str, name: str) -> Any:
        """Return what `name` is there: a value, or the path of what can be called."""
        found = getattr(self._resolve(path), name, None)
        if found is None or name.startswith("_"):
            return {"e": ["AttributeError", name]}
        return {"r": f"{path}.{name}"} if callable(found) else found

    def do_ask(self, path: str, args: list[Any], more: dict[str, Any]) -> Any:
        """Call it. Raises PowerCut if that was the last thing that the interpreter did."""
        buffers: list[bytearray] = []
        given = [self._received(arg, buffers) for arg in args]
        named = {name: self._received(arg, buffers) for name, arg in more.items()}
        before = [bytes(buffer) for buffer in buffers]
        try:
            answer = self._sent(self._resolve(path)(*given, **named))
        except OSError as error:
            answer = _refusal(error)
        except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            answer = {"e": [type(error).__name__, *map(str, error.args)]}
        if self._is_off():
            raise PowerCut
        filled = [buffer for buffer, old in zip(buffers, before, strict=True) if buffer != old]
        return {"into": filled[0].hex(), "ok": answer} if filled else answer

    def _bound(self, part: type[Part]) -> type[Part]:
        return type(part.__name__, (part,), {"_call": staticmethod(self._call)})

    def _resolve(self, path: str) -> Any:
        first, *rest = path.split(".")
        found = self._roots[first]
        for name in rest:
            found = getattr(found, name)
        return found

    def _received(self, value: Any, buffers: list[bytearray]) -> Any:
        if isinstance(value, list):
            return [self._received(part, buffers) for part in value]
        if not isinstance(value, dict):
            return value
        ((kind, facts),) = value.items()
        if kind == "r":
            return self._resolve(facts)
        if kind == "c":
            return Handler(facts)
        if kind == "b":
            return bytes.fromhex(facts)
        buffers.append(bytearray.fromhex(facts))
        return buffers[-1]

    def _sent(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return {"b": value.hex()}
        if isinstance(value, tuple):
            return {"t": [self._sent(part) for part in value]}
        if isinstance(value, list):
            return [self._sent(part) for part in value]
        if isinstance(value, Sleep):
            return {"sleep": value.ms}
        if isinstance(value, Mask):
            return {"mask": value.on, "ok": value.before}
        if isinstance(value, Part):
            name = f"#{len(self._roots)}"
            self._roots[name] = value
            return {"r": name}
        return value


def _refusal(error: OSError) -> dict[str, list[Any]]:
    """Return it as the port raises it: with its number alone, the IDF's (negative) with their names."""
    if error.errno == INVALID:
        return {"e": ["ValueError", error.strerror]}
    if not error.errno or error.errno < 0:
        return {"e": ["OSError", *([error.errno] if error.errno else []), error.strerror]}
    return {"e": ["OSError", error.errno]}
