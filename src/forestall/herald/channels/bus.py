"""D-Bus, by jeepney: the signal that systembus-notify shows, and notes on a session's desktop.

jeepney is optional and imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from forestall.herald.errors import MissingPart
from forestall.herald.event import clean
from forestall.herald.outcome import Never, Outcome, Sent

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM_PATH = "/"
SYSTEM_INTERFACE = "net.nuetzlich.SystemNotifications"
TIMEOUT_S = 5.0
_NOTES_NAME = "org.freedesktop.Notifications"
_NOTES_PATH = "/org/freedesktop/Notifications"


def signal_on_system_bus(summary: str, body: str, *, address: str = "SYSTEM") -> Outcome:
    """Emit Notify(summary, body); an old warning is no use later, so a failure is final."""
    try:
        connection = connect(address)
    except (MissingPart, OSError) as error:
        return Never(clean(str(error)) or "no system bus")
    try:
        jeepney = _jeepney()
        emitter = jeepney.DBusAddress(SYSTEM_PATH, interface=SYSTEM_INTERFACE)
        connection.send(jeepney.new_signal(emitter, "Notify", "ss", (summary, body)))
    except OSError as error:
        return Never(f"the system bus: {error.strerror}")
    finally:
        connection.close()
    return Sent()


def connect(address: str) -> Any:  # noqa: ANN401 - jeepney has no types we could name without it
    """Connect to a bus.

    Raises: MissingPart; OSError with a reason, whatever went wrong.
    """
    _jeepney()
    refused = import_module("jeepney.auth").AuthenticationError
    blocking = import_module("jeepney.io.blocking")
    try:
        return blocking.open_dbus_connection(address, auth_timeout=TIMEOUT_S)
    except KeyError as error:
        # jeepney's way to say that the environment does not name the bus.
        raise OSError(f"no bus: {clean(str(error.args[0]), 120)} is not set") from None
    except (refused, ValueError) as error:
        raise OSError(f"no bus at {address}: {clean(str(error), 120)}") from None
    except OSError as error:
        why = error.strerror or clean(str(error), 120) or type(error).__name__
        raise OSError(f"no bus at {address}: {why}") from None


class Notes:
    """Notes on the desktop of one session; a note can be replaced and withdrawn.

    Args:
        address: The session's bus; SESSION for the one of our environment.

    Raises: MissingPart; OSError.
    """

    def __init__(self, address: str = "SESSION") -> None:
        self._jeepney = _jeepney()
        self._connection = connect(address)
        self._service = self._jeepney.DBusAddress(
            _NOTES_PATH, bus_name=_NOTES_NAME, interface=_NOTES_NAME
        )

    def close(self) -> None:
        """Leave the bus."""
        self._connection.close()

    def show(
        self,
        summary: str,
        body: str,
        *,
        urgency: int,
        replaces: int = 0,
        actions: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Show a note and return its number.

        Raises: OSError when the desktop does not take it.
        """
        flat = [text for pair in actions for text in pair]
        hints = {"urgency": ("y", urgency), "desktop-entry": ("s", "forestall")}
        arguments = ("forestall", replaces, "dialog-warning", summary, body, flat, hints, -1)
        return int(self._call("Notify", "susssasa{sv}i", arguments)[0])

    def withdraw(self, number: int) -> None:
        """Take a note away.

        Raises: OSError.
        """
        self._call("CloseNotification", "u", (number,))

    def _call(self, method: str, signature: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        message = self._jeepney.new_method_call(self._service, method, signature, arguments)
        # TimeoutError is an OSError: who waits for a desktop waits no longer than this.
        reply = self._connection.send_and_get_reply(message, timeout=TIMEOUT_S)
        if reply.header.message_type is not self._jeepney.MessageType.method_return:
            said = reply.body[0] if reply.body else "it says no more"
            raise OSError(f"the desktop refused {method}: {clean(str(said), 120)}")
        return tuple(reply.body)


def _jeepney() -> Any:  # noqa: ANN401 - as above
    try:
        return import_module("jeepney")
    except ImportError:
        raise MissingPart(
            "jeepney is not installed; desktop notes need it: pip install 'forestall[alerts]'"
        ) from None
