"""The files of the page that edgekit serves: a fixed table, nothing else can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "web"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}
_PAGE = ("app.js", "camera.js", "draw.js", "measure.js", "style.css", "icon.svg")
_LITERT = ("core.js", "wasm-utils.js")
# As packed by gzip: for browsers with relaxed SIMD, without it, and for isolated pages with threads.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal")


@dataclass(frozen=True)
class Asset:
    """One file: where it lies, what it is, and whether it is packed."""

    path: Path
    type: str
    packed: bool = False


def _asset(name: str, packed: bool = False) -> Asset:
    return Asset(FOLDER / (name + (".gz" if packed else "")), _TYPES["." + name.rpartition(".")[2]], packed)


ASSETS: dict[str, Asset] = {
    "/": _asset("index.html"),
    **{f"/{name}": _asset(name) for name in _PAGE},
    **{f"/litert/{name}": _asset(f"litert/{name}") for name in _LITERT},
    **{f"/litert/{b}.{kind}": _asset(f"litert/{b}.{kind}", packed=True) for b in _BUILDS for kind in ("js", "wasm")},
}
# Of every answer; the policy lets the page load from and speak to this server alone.
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; worker-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# These isolate the page, which threads and a fine clock need. On origins that are not secure browsers complain of them.
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
