"""How a desk takes notices and gives them out. The city's signature is the right to publish: there is no password.

POST /v1/notices          one signed message (signed.py) -> 201 {"id": ..., "was_shown": true}, or 400 and a sentence
GET  /public/v1/notices   {"notices": ["<base64 of a signed message>", ...]}
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bega_kiosk.notices import MOST_BYTES, Board
from bega_protocols.errors import WireError

PUBLISH, PUBLIC = "/v1/notices", "/public/v1/notices"


def notice_routes(board: Board, on_taken: Callable[[], None] = lambda: None) -> list[Route]:
    """Return the two routes; `on_taken` is called after a notice was taken, so that kiosks can be told to fetch."""

    async def publish(request: Request) -> Response:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    return PlainTextResponse(f"a notice has at most {MOST_BYTES} bytes\n", 413)
        except ClientDisconnect:  # half a notice is none, and nobody is there to be told
            return Response(status_code=400)
        shown = {notice.id for notice in board.every()}
        try:
            notice = board.take(bytes(body))
        except WireError as error:
            return PlainTextResponse(f"{error.why}\n", 400)
        on_taken()
        return JSONResponse({"id": notice.id, "was_shown": notice.id in shown}, 201)

    async def give_out(request: Request) -> Response:
        messages = [b64encode(message).decode() for message in board.messages()]
        return JSONResponse({"notices": messages}, headers={"Cache-Control": "no-store"})

    return [Route(PUBLISH, publish, methods=["POST"]), Route(PUBLIC, give_out)]
