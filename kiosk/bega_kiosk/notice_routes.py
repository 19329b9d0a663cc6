"""How a desk takes notices and gives them out. The city's signature is the right to publish: there is no password.

POST /v1/notices          Given, as JSON: what is published, with the list that names it -> 201 {"number": ...};
                          409 where another list came meanwhile, 400 and a sentence for everything else
GET  /public/v1/notices   Given, as JSON: every notice, and the list ("" before the first was signed)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bega_kiosk.notice_list import PUBLIC, PUBLISH, read_given, write_given
from bega_kiosk.notices import MOST_BYTES, Board, NotNext
from bega_protocols.errors import WireError

MOST_POST_BYTES = 16 * MOST_BYTES  # a list, and a notice or two


def notice_routes(board: Board, on_taken: Callable[[], None] = lambda: None) -> list[Route]:
    """Return the two routes; `on_taken` is called after a list was taken, so that kiosks can be told to fetch."""

    async def publish(request: Request) -> Response:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_POST_BYTES:
                    return PlainTextResponse(f"at most {MOST_POST_BYTES} bytes are taken at once\n", 413)
        except ClientDisconnect:  # half a notice is none, and nobody is there to be told
            return Response(status_code=400)
        try:
            messages, list_message = read_given(bytes(body))
            if not list_message:
                raise WireError("there is no signed list with it; is the command that sent it older than this desk?")
            is_here = list_message == board.list_message  # anybody can send it again: no kiosk is called for that
            # In a thread: it waits for the disk, and whoever asks how a report is shall not.
            listed = await asyncio.to_thread(board.publish, messages, list_message)
        except NotNext as error:
            return PlainTextResponse(f"{error.why}\n", 409)
        except WireError as error:
            return PlainTextResponse(f"{error.why}\n", 400)
        if not is_here:
            on_taken()
        return JSONResponse({"number": listed.number}, 201)

    async def give_out(request: Request) -> Response:
        body = write_given(board.messages(), board.list_message)
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return [Route(PUBLISH, publish, methods=["POST"]), Route(PUBLIC, give_out)]
