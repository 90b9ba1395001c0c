"""The page at `/`: static files, which send requests to this service only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"

# With these headers a browser loads nothing from other servers, runs no other script, and shows no page in a frame.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # the browser asks each time, and gets 304 while nothing has changed
}


class PageFiles(StaticFiles):
    """Static files with the headers above."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        if isinstance(response, FileResponse):  # it would send parts, and answer a wrong range with a text of its own
            kept = {name: response.headers[name] for name in ("etag", "last-modified")}
            response = Response(Path(response.path).read_bytes(), media_type=response.media_type, headers=kept)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Add `/` and the files below `/page`. They hold no secret, so only the calls that they make need an API key."""
    files = PageFiles(directory=FOLDER)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/page", files)
