"""Certificates for tests, made by the openssl command."""

import pathlib
import subprocess


def _openssl(*args, folder, text=None):
    done = subprocess.run(["openssl", *map(str, args)], cwd=folder, input=text, text=True, capture_output=True,
                          check=False,
                          timeout=60)
    assert done.returncode == 0, done.stderr


class Authority:
    """Signs certificates; everything lies in `folder`."""

    def __init__(self, folder, name="authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.certificate = self.folder / f"{name}.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 7,
                 "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt",
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                 folder=folder)

    def issue(self, name, names=(), common_name=None):
        """(certificate, key) for a server or a client with these subject alternative names, "DNS:x", "IP:x"."""
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-subj", f"/CN={common_name or name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                 folder=self.folder)
        extensions = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        if names:
            extensions += f"subjectAltName={','.join(names)}\n"
        (self.folder / f"{name}.ext").write_text(extensions)
        _openssl("x509", "-req", "-in", f"{name}.csr", "-CA", self.certificate, "-CAkey", f"{self.name}.key",
                 "-CAcreateserial", "-days", 7, "-out", f"{name}.crt", "-extfile", f"{name}.ext", folder=self.folder)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"
