"""``GET /health`` and ``GET /metrics`` on an address of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol

from fedjoint.deploy.address import parse
from fedjoint.errors import UserError

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Figures(Protocol):
    """What is shown of a program."""

    def healthy(self) -> tuple[bool, str]:
        """Return whether all is well, and a word about it."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as Prometheus' client library has them."""


class Exposition:
    """Answers whoever asks on an address, as long as it is entered. It shows figures, no names.

    Args:
        address: ``host:port``.
        figures: what to show.

    Raises:
        UserError: Prometheus' client library is not installed, or the address is taken.
    """

    def __init__(self, address: str, figures: Figures) -> None:
        try:
            import prometheus_client  # an optional dependency
        except ImportError:
            raise UserError(
                "--metrics needs Prometheus' client library: pip install prometheus-client"
            ) from None

        class Registry(prometheus_client.CollectorRegistry):
            def collect(self) -> Iterable[Metric]:
                return figures.collect()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    well, text = figures.healthy()
                    self._answer(200 if well else 503, "text/plain", text.encode() + b"\n")
                elif self.path == "/metrics":
                    body = prometheus_client.generate_latest(Registry(auto_describe=False))
                    self._answer(200, prometheus_client.CONTENT_TYPE_LATEST, body)
                else:
                    self._answer(404, "text/plain", b"/health or /metrics\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass  # every few seconds, for ever

        try:
            self._server = ThreadingHTTPServer(parse(address), Handler)
        except OSError as error:
            raise UserError(f"--metrics {address}: {error.strerror}; choose another") from None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Exposition:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
