"""The pages and answers of the viewer, as a Starlette application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from radiobject.exceptions import RadiObjectError
from radiobject.radi_object import RadiObject
from radiobject.viewer.catalog import Catalog
from radiobject.viewer.guard import App, Guard
from radiobject.viewer.planes import read_plane
from radiobject.viewer.sheet import Sheet
from radiobject.viewer.tiles import touched_tiles

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Said by us: Windows takes them from its registry, where other programs call a script plain text,
which no browser runs."""


class _Pages(StaticFiles):
    def file_response(self, full_path: Any, *arguments: Any, **named: Any) -> Response:
        answer = super().file_response(full_path, *arguments, **named)
        answer.headers["content-type"] = _TYPES[Path(full_path).suffix]
        return answer


def create_app(radi: RadiObject, token: str, hosts: list[str]) -> App:
    """Return the guarded application that shows `radi`.

    Parameters
    ----------
    radi : RadiObject
        The data set, or a selection of it.
    token : str
        The secret that begins every path.
    hosts : list of str
        Accepted Host headers, such as "127.0.0.1:8000".
    """
    catalog = Catalog(radi)
    sheet = Sheet(catalog)

    def overview(request: Request) -> Any:
        return catalog.overview()

    def subjects(request: Request) -> Any:
        given = request.query_params
        return catalog.subjects(
            expression=given.get("filter", ""),
            text=given.get("text", ""),
            offset=max(0, int(given.get("offset", 0))),
            limit=min(1000, max(1, int(given.get("limit", 200)))),
        )

    def subject(request: Request) -> Any:
        return catalog.subject(request.query_params["id"])

    def volume(request: Request) -> Any:
        return catalog.volume(*_named(request))

    def plane(request: Request) -> Any:
        given = request.query_params
        place = catalog.locate(*_named(request))
        where = (int(given["axis"]), int(given["index"]), int(given.get("t", 0)))
        voxels = read_plane(place, *where, labels=given.get("labels") == "1")
        little = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
        headers = {"X-Dtype": voxels.dtype.name, "X-Shape": ",".join(map(str, voxels.shape))}
        return Response(little.tobytes(), media_type="application/octet-stream", headers=headers)

    def tiles(request: Request) -> Any:
        given = request.query_params
        centre, size = (_three(given[name]) for name in ("centre", "size"))
        return touched_tiles(catalog.locate(*_named(request)), centre, size, int(given.get("t", 0)))

    def image(request: Request) -> Any:
        given = request.query_params
        ends = [float(end) for end in given.get("window", "").split(",") if end]
        window = (ends[0], ends[1]) if len(ends) == 2 else None
        picture = sheet.image(given["id"], given["collection"], window)
        return Response(picture, media_type="image/png")

    def marks(request: Request) -> Any:
        return {"ids": sheet.marks(request.query_params["column"])}

    async def store(request: Request) -> Response:
        given = await request.json()
        names = ("column", "marked", "seen")
        return await run_in_threadpool(
            _answering(lambda _: sheet.store(*(given[name] for name in names))), request
        )

    answers = (overview, subjects, subject, volume, plane, tiles, image, marks)
    routes = [
        Route("/", lambda _: FileResponse(STATIC / "index.html", media_type="text/html")),
        Mount("/static", _Pages(directory=STATIC)),
        Route("/api/marks", store, methods=["POST"]),
        *(Route(f"/api/{answer.__name__}", _answering(answer)) for answer in answers),
    ]
    return Guard(Starlette(routes=routes), token, hosts, writes=("/api/marks",))


def _named(request: Request) -> tuple[str, str]:
    return request.query_params["collection"], request.query_params["volume"]


def _three(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if len(values) != 3:
        raise ValueError(f"expected three numbers, got {text!r}")
    return values


def _answering(answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
    """Make an answer a response, and an error of ours a message with a status."""

    def respond(request: Request) -> Response:
        try:
            found = answer(request)
        except KeyError as error:
            return _error(404, str(error.args[0]))
        except RadiObjectError as error:
            return _error(400 if isinstance(error, ValueError | TypeError) else 500, str(error))
        except ValueError as error:
            return _error(400, str(error))
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the page shows it; a server's traceback would be on the terminal.
            return _error(500, f"{type(error).__name__}: {error}")
        return found if isinstance(found, Response) else JSONResponse(found)

    return respond


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)
