"""The proxies of the environment hold, never for this machine, never with passwords of others."""

import asyncio
import base64
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from support.raw_server import PNG, RawServer, answer, in_thread, task

from piapi_async import RetryPolicy, Session, Txt2Img
from piapi_async._client.transport import is_loopback
from piapi_async.errors import ConfigurationError, ConnectError
from piapi_async.task import Image

API = "http://api.internal.invalid"
ONCE = RetryPolicy(attempts=1)
BEAR = Txt2Img(prompt="a bear")

TRUSTED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPy1WYe/PKdaYwLap
LPzWO9IZ36uz+OREoS5QkGS86KKhRANCAAQmxDA7oaG555hi66bnTMvNBiRUyisD
FozfW4kJ+Gu1SY4tbnqV/ZluqY0jwX2Q2VxrCCaesSmL45k8EJSbyCnW
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBgjCCASigAwIBAgIBATAKBggqhkjOPQQDAjAfMR0wGwYDVQQDDBRhcGkuaW50
ZXJuYWwuaW52YWxpZDAgFw0yNDAxMDEwMDAwMDBaGA8yMTI0MDEwMTAwMDAwMFow
HzEdMBsGA1UEAwwUYXBpLmludGVybmFsLmludmFsaWQwWTATBgcqhkjOPQIBBggq
hkjOPQMBBwNCAAQmxDA7oaG555hi66bnTMvNBiRUyisDFozfW4kJ+Gu1SY4tbnqV
/ZluqY0jwX2Q2VxrCCaesSmL45k8EJSbyCnWo1MwUTAfBgNVHREEGDAWghRhcGku
aW50ZXJuYWwuaW52YWxpZDAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBSq2+Iv
8qDcuo6h68XJG6yf2Myp6DAKBggqhkjOPQQDAgNIADBFAiBnqpkGLhRYGQn2t9ea
+Z86edjVE+V3t6llPh8EgbDv2gIhAJ6c1pl1jbPqe4KEZfLYCEk1JbnU+9ruUT7y
5NdSuRnk
-----END CERTIFICATE-----
"""
"""A certificate of its own authority, for api.internal.invalid, and its key."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the proxies of whoever runs the tests out of the way."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def proxy_of(server: RawServer, *, user: str = "") -> str:
    """A server as a proxy's URL."""
    return server.url.replace("://", f"://{user}@") if user else server.url


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("spelling", ["http://", "HTTP://", ""])
async def test_a_proxy_of_the_environment_is_used(name: str, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is sent goes by it, whether it costs money or not, and results too; it may lack the scheme."""
    if name == "HTTP_PROXY" and sys.platform == "win32":
        pytest.skip("names have no case there")
    async with RawServer(task(), task(), answer(PNG)) as server:
        monkeypatch.setenv(name, server.url.replace("http://", spelling))
        async with Session("k", base_url=API, retry=ONCE) as session:
            await session.submit(BEAR)
            await session.get_task("t-1")
            await session.fetch(Image("http://results.invalid/a.png"))
        lines = [received.line for received in server.received]
    assert lines == [f"POST {API}/api/v1/task", f"GET {API}/api/v1/task/t-1", "GET http://results.invalid/a.png"]


async def test_a_proxys_password_goes_to_the_proxy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent as the proxy wants it, also where it has signs that a URL spells, and follows no redirect."""
    async with RawServer(answer(PNG)) as other:
        elsewhere = answer(status=302, headers={"Location": f"{other.url}/b.png"})
        async with RawServer(task(), elsewhere) as server:
            monkeypatch.setenv("HTTP_PROXY", proxy_of(server, user="me:p%40ss"))
            async with Session("k", base_url=API, retry=ONCE) as session:
                await session.submit(BEAR)
                await session.fetch(Image("http://results.invalid/a.png"))
            sent = [dict(received.headers).get("Proxy-Authorization") for received in server.received]
        (direct,) = other.received
    assert sent == ["Basic " + base64.b64encode(b"me:p@ss").decode()] * 2
    assert not {"Proxy-Authorization", "Authorization"} & set(dict(direct.headers))


@pytest.mark.parametrize("excepted", ["api.internal.invalid", ".invalid", "*", "api.internal.invalid:80"])
async def test_no_proxy_holds(excepted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that `NO_PROXY` names is asked directly: this one does not exist."""
    async with RawServer(task()) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("NO_PROXY", excepted)
        async with Session("k", base_url=API, retry=ONCE) as session:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await session.submit(BEAR)
        assert server.received == []


@pytest.mark.parametrize("given", [{"trust_env": False}, {"http": None}])
async def test_proxies_can_be_left_aside(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`trust_env=False` asks nobody's environment; a client session of the user's has its own settings."""
    async with RawServer(task()) as server, aiohttp.ClientSession() as http:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        given = {"http": http} if "http" in given else given
        async with Session("k", base_url=API, retry=ONCE, **given) as session:
            with pytest.raises(ConnectError):
                await session.submit(BEAR)
        assert server.received == []


async def test_this_machine_is_never_asked_by_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator, and whatever else is on loopback, is reached directly."""
    async with RawServer(task()) as proxy, RawServer(task()) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            async with Session("k", base_url=url) as session:
                await session.submit(BEAR)
        assert (proxy.received, len(server.received)) == ([], 2)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_hosts_that_are_this_machine(host: str) -> None:
    """Names and addresses of loopback, in any spelling."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "10.0.0.1", "2001:db8::1", ""])
def test_hosts_that_are_elsewhere(host: str) -> None:
    """Other names and addresses, those that begin alike included."""
    assert not is_loopback(host)


@pytest.mark.parametrize("proxy", ["socks5://me:hush@127.0.0.1:1080", "http://", "http://a b"])
async def test_a_proxy_that_cannot_be_used_is_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent past it in silence; the error says what to set, and shows no password."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    async with Session("k", base_url=API, retry=ONCE) as session:
        with pytest.raises(ConfigurationError, match=r"proxy.*trust_env=False") as caught:
            await session.submit(BEAR)
    assert "hush" not in str(caught.value)
    assert caught.value.safe_to_resubmit


async def test_a_proxy_that_cannot_be_used_does_no_harm_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, and hosts in `NO_PROXY`, are reached without it."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    async with RawServer(task()) as server, Session("k", base_url=server.url, retry=ONCE) as session:
        await session.submit(BEAR)
        assert len(server.received) == 1


async def test_no_password_of_netrc_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login for the service's host, or the proxy's, in `~/.netrc` goes nowhere."""
    file = tmp_path / "netrc"
    file.write_text("machine api.internal.invalid login me password hush\nmachine 127.0.0.1 login me password hush\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    async with RawServer(task()) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        for url in (API, server.url):
            async with Session("k", base_url=url, retry=ONCE) as session:
                await session.submit(BEAR)
        for received in server.received:
            assert not {"Authorization", "Proxy-Authorization"} & set(dict(received.headers))


class Tunnel:
    """A proxy that opens one way to a TLS server, whatever host it is asked for."""

    def __init__(self, certificate: Path, *, status: bytes = b"200 OK") -> None:
        self.heads: list[bytes] = []
        self.url = ""
        self._status = status
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        self._servers = [
            await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context),
            await asyncio.start_server(self._connect, "127.0.0.1", 0),
        ]
        inner, outer = (server.sockets[0].getsockname()[1] for server in self._servers)
        self._inner, self.url = inner, f"http://127.0.0.1:{outer}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(task("t-1", "completed").replace(b"Content-Length", b"Connection: close\r\nContent-Length", 1))
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + self._status + b"\r\n\r\n")
        if not self._status.startswith(b"200"):
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._inner)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while piece := await source.read(2**16):
                sink.write(piece)
            sink.close()

        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)


PROGRAM = """
import asyncio, sys
from piapi_async import Session, Txt2Img, errors

async def main():
    async with Session("the-key", base_url="https://api.internal.invalid") as session:
        try:
            print((await session.submit(Txt2Img(prompt="a bear"))).task_id, (await session.get_task("t-1")).task_id)
        except errors.ConnectError as error:
            print(error)

asyncio.run(main())
"""


def run(proxy: str, *, certificate: Path | None) -> str:
    """What a fresh interpreter prints that has these settings in its environment."""
    trusted = {} if certificate is None else {"SSL_CERT_FILE": str(certificate)}
    environment = os.environ | {"HTTPS_PROXY": proxy} | trusted
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a server's certificate and its key."""
    path = tmp_path / "server.pem"
    path.write_text(TRUSTED)
    return path


def test_https_goes_through_a_proxy_and_trusts_whom_the_environment_says(certificate: Path) -> None:
    """`HTTPS_PROXY` makes a tunnel, the proxy never sees the key; `SSL_CERT_FILE` names an authority of one's own."""
    with in_thread(Tunnel(certificate)) as tunnel:
        assert run(tunnel.url.replace("://", "://me:hush@"), certificate=certificate) == "t-1 t-1"
        assert b"X-API-Key: the-key" in tunnel.heads[1]
        assert tunnel.heads[0].startswith(b"CONNECT api.internal.invalid:443 ")
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:hush") in tunnel.heads[0]
        assert b"the-key" not in tunnel.heads[0]
        assert b"Proxy-Authorization" not in tunnel.heads[1]
        assert "certificate verify failed" in run(tunnel.url, certificate=None)


def test_a_proxy_that_refuses_is_a_connection_that_did_not_come_about(certificate: Path) -> None:
    """Its 407 is told, nothing was sent to the service, and its password is not shown."""
    with in_thread(Tunnel(certificate, status=b"407 Proxy Authentication Required")) as tunnel:
        told = run(tunnel.url.replace("://", "://me:hush@"), certificate=certificate)
    assert "407" in told
    assert "nothing was sent" in told
    assert "hush" not in told


async def test_a_tunnel_that_is_refused_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked for a way to the service, and for nothing else."""
    async with RawServer(answer(status=502)) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy_of(server, user="me:hush"))
        async with Session("k", base_url="https://api.internal.invalid", retry=ONCE) as session:
            with pytest.raises(ConnectError, match="502"):
                await session.submit(BEAR)
        assert [received.line for received in server.received] == ["CONNECT api.internal.invalid:443"]
