"""The search page: plain HTML, a style sheet and a script; no external resources."""

from importlib import resources

from fastapi import FastAPI, Request, Response

from limbeck.infinigram.service.limits import Refused
from limbeck.infinigram.service.served import Serving

_TYPES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI, serving: Serving) -> None:
    """Add `GET /`: the page, or the names of all indexes if the client accepts JSON, as in the official service."""
    folder = resources.files("limbeck.infinigram.service") / "static"
    files = {name: (folder / name).read_bytes() for name in (*_TYPES, "page.html")}
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

    @app.get("/", tags=["official"], response_class=Response)
    async def page(request: Request) -> Response:
        """The search page; with `Accept: application/json` the names of all indexes."""
        request.scope["labels"][0] = "page"
        accept = request.headers.get("accept", "")
        if "application/json" in accept and "text/html" not in accept:
            from starlette.responses import JSONResponse

            return JSONResponse(serving.names)
        return Response(files["page.html"], media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        request.scope["labels"][0] = "static"
        if name not in _TYPES:
            raise Refused(404, "no such file")
        return Response(files[name], media_type=_TYPES[name], headers={**headers, "Cache-Control": "max-age=300"})
