"""How --verify-with shows who it is, and knows whom it talks to; the options and variables are those of `hearth`."""

import os
import pathlib

from hearth_pack.errors import UsageError

OPTIONS = (("token-file", "the token for what the server does not allow everybody; its first line"),
           ("ca", "trust servers whose certificate this one has signed, PEM; means --tls"),
           ("cert", "our own certificate, for servers that want one"), ("key", "its key"))


def add_options(group):
    group.add_argument("--tls", action="store_true", default=_is_set(os.environ.get("HEARTH_TLS")),
                       help="speak TLS with the server of --verify-with")
    for name, text in OPTIONS:
        variable = "HEARTH_" + name.upper().replace("-", "_")
        group.add_argument(f"--{name}", metavar="FILE", default=os.environ.get(variable) or None, help=text)


def _is_set(text):
    return (text or "").lower() in ("1", "true", "yes", "on")


def _read(file):
    if file is None:
        return None
    try:
        return pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


class Trust:
    """What the options say, read."""

    def __init__(self, options):
        if bool(options.cert) != bool(options.key):
            raise UsageError("--cert and --key go together")
        self._ca, self._cert, self._key = _read(options.ca), _read(options.cert), _read(options.key)
        self._tls = options.tls or self._ca is not None or self._cert is not None
        self._token = None
        if options.token_file is not None:
            lines = [line.strip() for line in _read(options.token_file).decode("ascii", "replace").splitlines()]
            tokens = [line for line in lines if line and not line.startswith("#")]
            if not tokens or not tokens[0].isascii():
                raise UsageError(f"{options.token_file} holds no token")
            self._token = tokens[0]

    def credentials(self, grpc):
        """None: without TLS."""
        return grpc.ssl_channel_credentials(self._ca, self._key, self._cert) if self._tls else None

    def metadata(self):
        return [("authorization", f"Bearer {self._token}")] if self._token else []
