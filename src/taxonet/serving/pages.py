"""The routes of the page: a few files that are read once, and nothing from elsewhere."""

from importlib import resources

from fastapi import FastAPI, HTTPException, Response

PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "texts.js": ("texts.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


def add_page(app: FastAPI) -> None:
    """The page's files, read once."""
    folder = resources.files("taxonet.serving") / "page"
    files = {address: ((folder / name).read_bytes(), kind) for address, (name, kind) in PAGE.items()}

    @app.get("/{file}", include_in_schema=False)
    async def page(file: str) -> Response:
        if file not in files:
            raise HTTPException(404)
        data, kind = files[file]
        return Response(data, media_type=kind, headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return await page("")
