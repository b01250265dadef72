"""Connections of one server process: time-outs for headers, and limits in total and per client address.

A connection is idle while it waits for its client: for the first byte, the rest of the headers, or the body. If a client opens
more connections than it may, the one that has been idle longest is closed, so that half-open connections never keep complete
requests out. If none is idle, the new connection is refused with 503. Bodies have their time-out in `limits.Guard`.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from limbeck.infinigram.service.limits import Limits

_TOO_MANY = json.dumps({"error": "too many connections; retry in a second"}).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TOO_MANY), _TOO_MANY)
)
_LATE = json.dumps({"error": "the request headers took too long; send them again"}).encode()
_TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_LATE), _LATE)
)
_Base: Any = AutoHTTPProtocol


class Connections:
    """The open connections of a process by client address, in the order in which they became idle."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._all: dict[str, dict[LimitedProtocol, None]] = {}
        self._count = 0

    def admit(self, connection: "LimitedProtocol") -> bool:
        """Add a connection, after closing an idle one if there are too many; False if none is idle."""
        own = self._all.get(connection.address, {})
        if len(own) >= self.limits.client_connections and not self._evict(own):
            return False
        if self._count >= self.limits.connections:
            most = max(self._all.values(), key=len)
            if not self._evict(most) and not any(self._evict(others) for others in list(self._all.values())):
                return False
        self._all.setdefault(connection.address, {})[connection] = None
        self._count += 1
        return True

    def drop(self, connection: "LimitedProtocol") -> None:
        """Remove a connection."""
        own = self._all.get(connection.address, {})
        if connection not in own:
            return
        del own[connection]
        self._count -= 1
        if not own:
            del self._all[connection.address]

    def answered(self, connection: "LimitedProtocol") -> None:
        """Move a connection that becomes idle behind all others of its client."""
        own = self._all.get(connection.address, {})
        if connection in own:
            del own[connection]
            own[connection] = None

    def _evict(self, connections: "dict[LimitedProtocol, None]") -> bool:
        oldest = next((one for one in connections if one.idle), None)
        if oldest is None:
            return False
        self.drop(oldest)
        oldest.transport.abort()
        return True


class LimitedProtocol(_Base):  # type: ignore[misc]
    """uvicorn's HTTP protocol with a time-out for headers."""

    registry: Connections  # of the process; set before it serves

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Admit or refuse a connection."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._timer: asyncio.TimerHandle | None = None
        if self.registry.admit(self):
            self._await_headers()
        else:
            transport.write(_REFUSAL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self.registry.drop(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the time-out at the first byte of a request, and stop it when its headers are complete."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._awaits_headers:
            self._stop_timer()
        elif self._timer is None:
            self._await_headers()

    def on_response_complete(self) -> None:
        """The connection waits for the next request, whose first byte starts the time-out."""
        self.registry.answered(self)
        super().on_response_complete()

    @property
    def idle(self) -> bool:
        """Whether the connection waits for its client."""
        return self._awaits_headers or bool(self.cycle.more_body)

    @property
    def _awaits_headers(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _await_headers(self) -> None:
        self._timer = self.loop.call_later(self.registry.limits.header_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._awaits_headers and not self.transport.is_closing():
            self.transport.write(_TIMED_OUT)
            self.transport.close()
