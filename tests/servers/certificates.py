"""A certificate authority of the test servers' own, and what it signed, made with openssl."""

from __future__ import annotations

import fcntl
import pathlib
import subprocess

_DAYS = "825"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


def _authority(folder: pathlib.Path, name: str, title: str) -> None:
    _openssl("req", "-x509", *_NEW_KEY, "-days", _DAYS, "-subj", f"/CN={title}",
             "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"))


def _signed(folder: pathlib.Path, name: str, subject: str, authority: str, extensions: str) -> None:
    request, config = folder / f"{name}.csr", folder / f"{name}.cnf"
    config.write_text(extensions)
    _openssl("req", *_NEW_KEY, "-subj", f"/CN={subject}", "-keyout", str(folder / f"{name}.key"), "-out", str(request))
    _openssl("x509", "-req", "-in", str(request), "-days", _DAYS, "-CA", str(folder / f"{authority}.pem"), "-CAkey",
             str(folder / f"{authority}.key"), "-set_serial", str(int.from_bytes(name.encode())), "-extfile", str(config),
             "-out", str(folder / f"{name}.pem"))
    request.unlink()
    config.unlink()


def make(folder: pathlib.Path) -> None:
    """ca, server (127.0.0.1, localhost), client (prism, signed by ca), and another-ca with its client, whom no server trusts:
    NAME.pem and NAME.key each. Does nothing where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").exists():
            return
        _authority(folder, "ca", "Prism test authority")
        _authority(folder, "another-ca", "Another authority")
        _signed(folder, "server", "localhost", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _signed(folder, "client", "prism", "ca", "extendedKeyUsage=clientAuth\n")
        _signed(folder, "another-client", "prism", "another-ca", "extendedKeyUsage=clientAuth\n")
        for key in folder.glob("*.key"):
            key.chmod(0o600)
        (folder / "complete").touch()
