"""The page at `/`: plain files from `static/`, which ask this service and nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"

# A browser that holds to these loads nothing from elsewhere, runs no script but ours, and shows us in no frame.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for each time, and answered 304 while it is the same
}


class PageFiles(StaticFiles):
    """StaticFiles with the headers above."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Adds `/` and the files below `/page`. They hold no secret, so only the calls that they make need an API key."""
    files = PageFiles(directory=FOLDER)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if not request.url.path.endswith("/"):  # an app below a prefix: the page's addresses are relative to its folder
            return RedirectResponse(f"{request.url.path}/")
        return await files.get_response("index.html", request.scope)

    app.mount("/page", files)
