"""Label Studio behind a proxy that ends TLS and serves it below a path, with a certificate of the house's own."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.serving import make_server

from backend import connection
from backend.app import create_app
from backend.label_studio import open_client
from backend.settings import Settings
from backend.worker import Worker
from demo.labelstudio import call
from demo.ports import any_port
from tasks.client import LabelStudioError
from tasks.project import SAMPLING
from tasks.store import Store
from tasks.tables import Task

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices></View>"""


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "clinic")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    certificate, private = folder / "clinic.pem", folder / "clinic.key"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@pytest.fixture
def proxy(label_studio: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of the session's Label Studio behind TLS, below /ls; and the certificate."""
    certificate, private = certify(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            below = self.path.startswith("/ls/")
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
            path = self.path.removeprefix("/ls")
            found = upstream.request(self.command, path, content=body, headers=headers)
            self.send_response(found.status_code if below else 404)
            self.send_header("Content-Type", found.headers.get("Content-Type", "text/plain"))
            content = found.content if below and self.command != "HEAD" else b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    upstream = httpx.Client(base_url=label_studio.url, timeout=60.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # a kept-alive connection must not hold the end up
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/ls", certificate
    server.shutdown()
    thread.join()
    server.server_close()
    upstream.close()


def test_set_up_and_reconciled_through_tls_below_a_path(
    label_studio: Any, proxy: tuple[str, Path], tmp_path: Path
) -> None:
    url, certificate = proxy
    project = call(label_studio.admin, "POST", "/api/projects", json={"title": "TLS", "label_config": CONFIG})["id"]
    call(label_studio.admin, "POST", f"/api/projects/{project}/import", json=[{"image": "/1.png"}, {"image": "/2.png"}])
    settings = Settings(
        label_studio_url=f"{url}/",
        label_studio_token=label_studio.token,
        ca_file=str(certificate),
        state_dir=tmp_path / "state",
        port=any_port(),
        password="a password",
    )
    store = Store.open(settings.database)
    server = make_server(settings.host, settings.port, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        client = open_client(settings)
        connection.set_up(store, client, settings, project)
        assert connection.set_up(store, client, settings, project) == []
        assert client.project(project)["sampling"] == SAMPLING
        client.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    worker = Worker(settings, store)
    assert worker.look_after(project, True) == []
    with store.begin() as session:
        assert session.query(Task).filter_by(project_id=project).count() == 2

    untrusting = open_client(settings.model_copy(update={"ca_file": ""}))
    with pytest.raises(LabelStudioError, match=r"certificate of https://127\.0\.0\.1.* SECOND_LOOK_CA_FILE"):
        untrusting.user()
    untrusting.close()
    above = open_client(settings.model_copy(update={"label_studio_url": url.removesuffix("/ls")}))
    with pytest.raises(LabelStudioError, match="404"):
        above.user()
    above.close()
