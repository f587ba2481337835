"""What a client needs to be let in: user, password, certificates. Read once, at the start, and told to nobody.

Knows no connection. Errors name the setting and the file, never what is in it.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from streamer.errors import ConfigError
from streamer.settings import MqttSettings

__all__ = ["Access", "access_for"]

MOST_PASSWORD = 4096


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; the library would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Access:
    """User, password and TLS, ready to use; its repr shows neither password nor context."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


def access_for(settings: MqttSettings, base: str = ".") -> Access:
    """User and password (setting, then file, then environment), and the TLS context.

    Args:
        settings: the `mqtt` section.
        base: folder that relative paths start from.

    Raises:
        ConfigError: a file is missing or unreadable, holds no certificate, or there is a password without a user.
    """
    username = settings.username or os.environ.get(settings.username_env) or None
    password = _password(settings, base)
    if password is not None and username is None:
        raise ConfigError(
            f"a password is given but no user; set mqtt.username or ${settings.username_env}", path="mqtt.username"
        )
    return Access(username, password, _context(settings, base) if settings.tls else None)


def _password(settings: MqttSettings, base: str) -> str | None:
    if settings.password is not None:
        return settings.password.get_secret_value()
    if settings.password_file is not None:
        path = _file(settings.password_file, base, "password_file")
        lines = path.read_bytes()[:MOST_PASSWORD].decode("utf-8", "replace").splitlines()
        if not lines or not lines[0]:
            raise ConfigError(f"{path} holds no password in its first line", path="mqtt.password_file")
        return lines[0]
    return os.environ.get(settings.password_env) or None


def _context(settings: MqttSettings, base: str) -> ssl.SSLContext:
    """TLS 1.2 or later that checks the broker's certificate and name; there is no way to switch that off."""
    authorities = _file(settings.ca_file, base, "ca_file") if settings.ca_file else None
    try:
        context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{authorities} holds no certificates: {error}", path="mqtt.ca_file") from error
    context.sslsocket_class = _Socket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file:
        own = _file(settings.cert_file, base, "cert_file")
        key = _file(settings.key_file, base, "key_file") if settings.key_file else None
        try:
            context.load_cert_chain(own, key, password=_no_passphrase)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{own}: no certificate with its key: {error}", path="mqtt.cert_file") from error
    return context


def _no_passphrase() -> str:
    """A key with a passphrase cannot be used unattended; without this, OpenSSL would ask on the terminal."""
    return ""


def _file(name: str, base: str, setting: str) -> Path:
    path = Path(base) / Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"no file {str(path)!r}", path=f"mqtt.{setting}")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{str(path)!r} may not be read by this user", path=f"mqtt.{setting}")
    return path
