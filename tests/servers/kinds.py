"""The servers that tests and benchmarks use, each with what it takes to start it, to ask it, and to find it.

Every server has an open door for the most of the tests, and a guarded one: a password (user `secure`), TLS by the certificates of the test
authority, and a user `limited` who may do next to nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import uuid

import install
from process import Server, ServerError

PASSWORD = "correct-horse"
LIMITED_PASSWORD = "battery-staple"


def _http(port: int, path: str, *, authority: pathlib.Path | None = None) -> int:
    """The status of an answer."""
    connection: http.client.HTTPConnection
    if authority:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=ssl.create_default_context(cafile=str(authority)))
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as failure:
        raise OSError(str(failure)) from failure
    finally:
        connection.close()


def _needs(program: install.Program) -> str | None:
    return None if program.present else f"{program.name} {program.version} is not installed; scripts/install-deps --servers does that"


class Postgres(Server):
    name = "postgres"
    stop_signal = signal.SIGINT  # ends its clients' sessions, and in order

    def missing(self) -> str | None:
        for program in ("initdb", "postgres", "psql"):
            if not install.debian(program):
                return f"{program} was not found; scripts/install-deps --servers installs PostgreSQL"
        return None

    def prepare(self) -> None:
        cluster = self.data / "cluster"
        if not (cluster / "PG_VERSION").exists():
            shutil.rmtree(cluster, ignore_errors=True)
            if account := self._account():
                os.chown(self.data, account.pw_uid, account.pw_gid)
            initdb = [str(install.debian("initdb")), "-D", str(cluster), "-U", "prism", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
            done = subprocess.run(self._unprivileged(initdb), cwd=self.data, capture_output=True, text=True)
            if done.returncode:
                raise ServerError(f"initdb failed:\n{done.stderr}")
        for source, target in (("server.pem", "server.pem"), ("server.key", "server.key"), ("ca.pem", "ca.pem")):
            copy = cluster / target
            copy.write_bytes((self.openssl_files() / source).read_bytes())
            self._own(copy)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port(),
            "unix_socket_directories": "",  # their paths may be no longer than 107 bytes
            "wal_level": "logical",
            "max_wal_senders": 20,
            "max_replication_slots": 40,
            "max_connections": 300,
            "max_prepared_transactions": 20,
            "ssl": "on",
            "ssl_cert_file": "server.pem",
            "ssl_key_file": "server.key",
            "ssl_ca_file": "ca.pem",
            "password_encryption": "scram-sha-256",
            "log_min_messages": "warning",
            "shared_buffers": "64MB",
        }
        self._write(cluster / "prism.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self._write(
            cluster / "pg_hba.conf",
            # TYPE     DATABASE         USER       ADDRESS      METHOD
            "host      all              prism      127.0.0.1/32 trust\n"
            "host      replication      prism      127.0.0.1/32 trust\n"
            "hostssl   all              certified  127.0.0.1/32 cert map=certified\n"
            "hostssl   all,replication  secure     127.0.0.1/32 scram-sha-256\n"
            "host      all              limited    127.0.0.1/32 scram-sha-256\n",
        )
        self._write(cluster / "pg_ident.conf", "certified prism certified\n")

    def command(self) -> list[str]:
        cluster = self.data / "cluster"
        return self._unprivileged([str(install.debian("postgres")), "-D", str(cluster), "-c", f"config_file={cluster}/prism.conf"])

    def environment(self) -> dict[str, str]:
        return {"TZ": "UTC"}

    def answers(self) -> bool:
        return self._sql("postgres", "SELECT 1").returncode == 0

    def fill(self) -> None:
        users = "".join(
            f"DO $$ BEGIN CREATE ROLE {name} LOGIN {options}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
            for name, options in (
                ("secure", f"SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"),
                ("limited", f"PASSWORD '{LIMITED_PASSWORD}'"),
                ("certified", ""),
            )
        )
        exists = self._sql("postgres", "SELECT 1 FROM pg_database WHERE datname = 'prism'")
        for database, sql in (("postgres", users), ("postgres", "" if exists.stdout.strip() else "CREATE DATABASE prism")):
            done = self._sql(database, sql)
            if done.returncode:
                raise ServerError(f"postgres: {done.stderr}")

    def variables(self) -> dict[str, str]:
        at = f"127.0.0.1:{self.port()}/prism"
        return {
            "PRISM_TEST_POSTGRES": f"postgresql://prism@{at}",  # superuser, no password, TLS or not
            "PRISM_TEST_POSTGRES_SECURE": f"postgresql://secure@{at}",  # superuser; only with password and TLS
            "PRISM_TEST_POSTGRES_SECURE_PASSWORD": PASSWORD,
            "PRISM_TEST_POSTGRES_CERTIFIED": f"postgresql://certified@{at}",  # only with PRISM_TEST_CLIENT_CERT
            "PRISM_TEST_POSTGRES_LIMITED": f"postgresql://limited@{at}",  # may connect, and create nothing
            "PRISM_TEST_POSTGRES_LIMITED_PASSWORD": LIMITED_PASSWORD,
        }

    def _account(self) -> pwd.struct_passwd | None:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                pass
        raise ServerError("postgres: there is neither a user postgres nor nobody to run it as")

    def _unprivileged(self, command: list[str]) -> list[str]:
        if not (account := self._account()):
            return command
        # With root's way into folders, for a checkout that others must not enter.
        return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
                "--inh-caps=+dac_read_search,+dac_override", "--ambient-caps=+dac_read_search,+dac_override", *command]  # fmt: skip

    def _write(self, path: pathlib.Path, text: str) -> None:
        path.write_text(text)
        self._own(path)

    def _own(self, path: pathlib.Path) -> None:
        path.chmod(0o600)
        if account := self._account():
            os.chown(path, account.pw_uid, account.pw_gid)

    def _sql(self, database: str, sql: str) -> subprocess.CompletedProcess[str]:
        command = [str(install.debian("psql")), "-X", "-w", "-At", "-h", "127.0.0.1", "-p", str(self.port()), "-U", "prism", "-d", database]
        return subprocess.run([*command, "-v", "ON_ERROR_STOP=1", "-c", sql], env=os.environ | {"PGCONNECT_TIMEOUT": "5"}, capture_output=True, text=True)


class Redis(Server):
    name = "redis"
    ports = ("port", "tls_port")
    program = "redis-server"
    prefix = "PRISM_TEST_REDIS"

    def missing(self) -> str | None:
        return None if shutil.which(self.program) else f"{self.program} was not found; scripts/install-deps --servers installs it"

    def prepare(self) -> None:
        certificates = self.openssl_files()
        (self.data / "server.conf").write_text(
            f"""bind 127.0.0.1
port {self.port()}
tls-port {self.port("tls_port")}
tls-cert-file {certificates}/server.pem
tls-key-file {certificates}/server.key
tls-ca-cert-file {certificates}/ca.pem
tls-auth-clients optional
dir {self.data}
appendonly yes
save ""
user default on nopass ~* &* +@all
user secure on >{PASSWORD} ~* &* +@all
user limited on >{LIMITED_PASSWORD} ~limited:* resetchannels -@all +@connection +get
"""
        )

    def command(self) -> list[str]:
        return [self.program, str(self.data / "server.conf")]

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port()), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # -LOADING while it reads its data

    def variables(self) -> dict[str, str]:
        return {
            self.prefix: f"127.0.0.1:{self.port()}",  # no password
            f"{self.prefix}_TLS": f"127.0.0.1:{self.port('tls_port')}",
            f"{self.prefix}_USER": "secure",  # may do everything
            f"{self.prefix}_PASSWORD": PASSWORD,
            f"{self.prefix}_LIMITED_USER": "limited",  # may read limited:*
            f"{self.prefix}_LIMITED_PASSWORD": LIMITED_PASSWORD,
        }


class Valkey(Redis):
    name = "valkey"
    program = "valkey-server"
    prefix = "PRISM_TEST_VALKEY"
    optional = True


class S3(Server):
    """versitygw on a folder."""

    name = "s3"
    prefix = "PRISM_TEST_S3"
    tls = False

    def missing(self) -> str | None:
        return _needs(install.VERSITYGW)

    def prepare(self) -> None:
        for folder in ("objects", "versions", "users"):
            (self.data / folder).mkdir(exist_ok=True)
        limited = {"access": "limited", "secret": LIMITED_PASSWORD, "role": "user", "userID": 0, "groupID": 0, "projectID": 0}
        (self.data / "users" / "users.json").write_text(json.dumps({"accessAccounts": {"limited": limited}}))

    def command(self) -> list[str]:
        tls = ["--cert", f"{self.openssl_files()}/server.pem", "--key", f"{self.openssl_files()}/server.key"] if self.tls else []
        return [str(install.VERSITYGW.path), "--port", f"127.0.0.1:{self.port()}", "--access", "prism", "--secret", PASSWORD, "--quiet",
                "--keep-alive", "--health", "/health", "--virtual-domain", "s3.localhost", "--iam-dir", str(self.data / "users"), *tls,
                "posix", "--versioning-dir", str(self.data / "versions"), str(self.data / "objects")]  # fmt: skip

    def answers(self) -> bool:
        return _http(self.port(), "/health", authority=self.openssl_files() / "ca.pem" if self.tls else None) == 200

    def variables(self) -> dict[str, str]:
        shared = {
            f"{self.prefix}_REGION": "us-east-1",
            f"{self.prefix}_ACCESS_KEY": "prism",
            f"{self.prefix}_SECRET_KEY": PASSWORD,
            f"{self.prefix}_LIMITED_ACCESS_KEY": "limited",  # owns nothing
            f"{self.prefix}_LIMITED_SECRET_KEY": LIMITED_PASSWORD,
        }
        if self.tls:
            return {f"{self.prefix}_TLS": f"https://127.0.0.1:{self.port()}"} | shared
        return {
            self.prefix: f"http://127.0.0.1:{self.port()}",
            f"{self.prefix}_VIRTUAL_HOST": f"http://s3.localhost:{self.port()}",  # BUCKET.s3.localhost
        } | shared


class S3Tls(S3):
    name = "s3-tls"
    tls = True


class S3Minio(Server):
    """MinIO, which knows lifecycle rules."""

    name = "s3-minio"
    ports = ("port", "console")

    def missing(self) -> str | None:
        return _needs(install.MINIO)

    def command(self) -> list[str]:
        at = [f"--address=127.0.0.1:{self.port()}", f"--console-address=127.0.0.1:{self.port('console')}"]
        return [str(install.MINIO.path), "server", *at, str(self.data / "objects")]

    def environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": "prism", "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off", "HOME": str(self.data)}

    def answers(self) -> bool:
        return _http(self.port(), "/minio/health/ready") == 200

    def variables(self) -> dict[str, str]:
        return {
            "PRISM_TEST_S3_MINIO": f"http://127.0.0.1:{self.port()}",
            "PRISM_TEST_S3_MINIO_ACCESS_KEY": "prism",
            "PRISM_TEST_S3_MINIO_SECRET_KEY": PASSWORD,
        }


class Nats(Server):
    name = "nats"
    ports = ("port", "monitor")
    guarded = False

    def missing(self) -> str | None:
        return _needs(install.NATS)

    def prepare(self) -> None:
        certificates = self.openssl_files()
        limited = '{ publish: { deny: ">" }, subscribe: "_INBOX.>" }'
        guard = f"""
authorization {{
  users: [
    {{ user: secure, password: "{PASSWORD}" }}
    {{ user: limited, password: "{LIMITED_PASSWORD}", permissions: {limited} }}
  ]
}}
tls {{ cert_file: "{certificates}/server.pem", key_file: "{certificates}/server.key", ca_file: "{certificates}/ca.pem", verify: false }}
"""
        (self.data / "server.conf").write_text(
            f"""listen: 127.0.0.1:{self.port()}
http: 127.0.0.1:{self.port("monitor")}
server_name: {self.name}
max_payload: 8MB
jetstream {{ store_dir: "{self.data}", max_memory_store: 256MB, max_file_store: 8GB }}
{guard if self.guarded else ""}"""
        )

    def command(self) -> list[str]:
        return [str(install.NATS.path), "-c", str(self.data / "server.conf")]

    def answers(self) -> bool:
        return _http(self.port("monitor"), "/healthz") == 200

    def variables(self) -> dict[str, str]:
        if not self.guarded:
            return {"PRISM_TEST_NATS": f"nats://127.0.0.1:{self.port()}", "PRISM_TEST_NATS_MONITOR": f"http://127.0.0.1:{self.port('monitor')}"}
        return {
            "PRISM_TEST_NATS_SECURE": f"tls://127.0.0.1:{self.port()}",  # only with password and TLS
            "PRISM_TEST_NATS_USER": "secure",
            "PRISM_TEST_NATS_PASSWORD": PASSWORD,
            "PRISM_TEST_NATS_LIMITED_USER": "limited",  # may publish nothing
            "PRISM_TEST_NATS_LIMITED_PASSWORD": LIMITED_PASSWORD,
        }


class NatsSecure(Nats):
    name = "nats-secure"
    guarded = True


class Kafka(Server):
    """One broker that is its own controller. Users `secure` and `limited` by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512."""

    name = "kafka"
    ports = ("port", "proxied", "proxy", "sasl", "tls", "sasl_tls", "controller")
    lent = ("proxy",)
    start_time = 120.0

    def missing(self) -> str | None:
        if not shutil.which("java"):
            return "java was not found; scripts/install-deps --servers installs it"
        return _needs(install.KAFKA)

    def prepare(self) -> None:
        certificates = self.openssl_files()
        # Names of listeners, with their protocols. Clients are told the proxy's port by the listener for those behind a proxy.
        listeners = {"OPEN": "PLAINTEXT", "PROXIED": "PLAINTEXT", "SASL": "SASL_PLAINTEXT", "TLS": "SSL", "SASL_TLS": "SASL_SSL"}
        at = {name: self.port("port" if name == "OPEN" else name.lower()) for name in listeners}
        advertised = at | {"PROXIED": self.port("proxy")}
        plain = f'user_secure="{PASSWORD}" user_limited="{LIMITED_PASSWORD}"'
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.port('controller')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "OPEN",
            "listeners": ",".join([*(f"{name}://127.0.0.1:{port}" for name, port in at.items()), f"CONTROLLER://127.0.0.1:{self.port('controller')}"]),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in advertised.items()),
            "listener.security.protocol.map": ",".join([*(f"{name}:{kind}" for name, kind in listeners.items()), "CONTROLLER:PLAINTEXT"]),
            "log.dirs": self.data / "logs",
            "auto.create.topics.enable": "false",
            "num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 10,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 10,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "broker.session.timeout.ms": 2000,  # a broker that was killed may come back no sooner
            "broker.heartbeat.interval.ms": 400,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.data / "server.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": certificates / "ca.pem",
            "ssl.client.auth": "requested",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:secure;User:CN=prism",  # limited may do nothing
        }
        for name in ("sasl", "sasl_tls"):
            module = "org.apache.kafka.common.security"
            settings[f"listener.name.{name}.plain.sasl.jaas.config"] = f"{module}.plain.PlainLoginModule required {plain};"
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                settings[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = f"{module}.scram.ScramLoginModule required;"
        (self.data / "server.pem").write_text((certificates / "server.key").read_text() + (certificates / "server.pem").read_text())
        (self.data / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.data / "log4j2.properties").write_text(
            "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
            "appender.out.layout.pattern=%d %p %m (%c)%n\nrootLogger.level=WARN\nrootLogger.appenderRef.out.ref=out\n"
            "logger.server.name=kafka.server\nlogger.server.level=INFO\n"
        )
        if not (self.data / "logs" / "meta.properties").exists():
            shutil.rmtree(self.data / "logs", ignore_errors=True)
            scram = [
                f"--add-scram={mechanism}=[name={user},password={password}]"
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
                for user, password in (("secure", PASSWORD), ("limited", LIMITED_PASSWORD))
            ]
            cluster = str(uuid.uuid4())
            done = subprocess.run(
                self._java("-Xmx128m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.data / "server.properties"), *scram),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise ServerError(f"kafka: formatting failed:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        return self._java("-Xmx512m", "kafka.Kafka", str(self.data / "server.properties"))

    def answers(self) -> bool:
        """Which brokers it knows: itself, once it has joined. Then whether it keeps groups: it makes a topic for that when first asked."""
        with socket.create_connection(("127.0.0.1", self.port()), timeout=10) as connection:
            metadata = self._ask(connection, 3, 1, struct.pack(">i", 0))
            if struct.unpack_from(">i", metadata)[0] < 1:
                return False
            for n in range(20):  # of all of that topic's partitions
                group = b"ready-%d" % n
                coordinator = self._ask(connection, 10, 0, struct.pack(f">h{len(group)}s", len(group), group))
                if struct.unpack_from(">h", coordinator)[0] != 0:
                    return False
                offsets = self._ask(connection, 9, 2, struct.pack(f">h{len(group)}si", len(group), group, -1))
                if struct.unpack_from(">ih", offsets)[1] != 0:
                    return False
        return True

    @staticmethod
    def _ask(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
        request = struct.pack(">hhih5s", api, version, 1, 5, b"ready") + body
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            (size,) = struct.unpack(">i", answer.read(4).ljust(4, b"\0"))
            read = answer.read(size)
        if len(read) < 8:
            raise ConnectionError("the broker hung up")
        return read[4:]  # without the number of the request

    def variables(self) -> dict[str, str]:
        at = {name: f"127.0.0.1:{self.port(name)}" for name in self.ports}
        return {
            "PRISM_TEST_KAFKA": at["port"],
            "PRISM_TEST_KAFKA_SASL": at["sasl"],  # SASL_PLAINTEXT
            "PRISM_TEST_KAFKA_TLS": at["tls"],
            "PRISM_TEST_KAFKA_SASL_TLS": at["sasl_tls"],
            "PRISM_TEST_KAFKA_USER": "secure",  # may do everything
            "PRISM_TEST_KAFKA_PASSWORD": PASSWORD,
            "PRISM_TEST_KAFKA_LIMITED_USER": "limited",  # may do nothing
            "PRISM_TEST_KAFKA_LIMITED_PASSWORD": LIMITED_PASSWORD,
            # A proxy that listens at the first and goes to the second keeps the clients, who ask the broker for its address.
            "PRISM_TEST_KAFKA_PROXY_LISTEN": at["proxy"],
            "PRISM_TEST_KAFKA_PROXY_UPSTREAM": at["proxied"],
        }

    def _java(self, memory: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.data}/log4j2.properties"
        return ["java", memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", logging, "-cp", f"{install.KAFKA.path}/*", *arguments]


class Toxiproxy(Server):
    """Stands between a client and a server, and does the network's worst."""

    name = "toxiproxy"

    def missing(self) -> str | None:
        return _needs(install.TOXIPROXY)

    def command(self) -> list[str]:
        return [str(install.TOXIPROXY.path), "-host", "127.0.0.1", "-port", str(self.port())]

    def answers(self) -> bool:
        return _http(self.port(), "/version") == 200

    def variables(self) -> dict[str, str]:
        return {"PRISM_TEST_TOXIPROXY": f"http://127.0.0.1:{self.port()}"}


KINDS: dict[str, type[Server]] = {
    kind.name: kind for kind in (Postgres, Redis, Valkey, S3, S3Tls, S3Minio, Nats, NatsSecure, Kafka, Toxiproxy)
}

# What each is made of, beyond the distribution's packages.
PROGRAMS: dict[str, install.Program] = {
    "s3": install.VERSITYGW,
    "s3-tls": install.VERSITYGW,
    "s3-minio": install.MINIO,
    "nats": install.NATS,
    "nats-secure": install.NATS,
    "kafka": install.KAFKA,
    "toxiproxy": install.TOXIPROXY,
}
