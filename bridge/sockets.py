"""The two ends of a WebSocket connection that every listener of the bridge shares: answering a close, making one."""

import asyncio
from typing import Final, cast

from picows import WSCloseCode, WSFrame, WSMsgType, WSTransport

CLOSE_PATIENCE_S: Final = 1.0


def closes(transport: WSTransport, frame: WSFrame) -> bool:
    """Answer `frame` if it is the peer's close, and say whether it was."""
    if frame.msg_type is not WSMsgType.CLOSE:
        return False
    if not transport.is_close_frame_sent:
        transport.send_close(frame.get_close_code(), frame.get_close_message())
    transport.disconnect()
    return True


def end(transport: WSTransport, close_code: int, reason: str) -> None:
    """Close with an application code (4000 to 4999).

    The socket stays open for the peer's own close: closing it on unread data would reset the connection, and the
    peer might never see why.
    """
    # The library names only the standard codes but sends any number.
    transport.send_close(cast("WSCloseCode", close_code), reason.encode())
    asyncio.get_running_loop().call_later(CLOSE_PATIENCE_S, transport.disconnect)
