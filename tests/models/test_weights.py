from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from prelabel.errors import ConfigError, WeightsError
from prelabel.models import weights
from prelabel.models.weights import cache_folder, find_card, model_folders, read_card, resolve_weights, sha256_of

BODY = b"weights " * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"another file").hexdigest()
SHIPPED = Path(__file__).parents[2] / "models"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "gone" in self.path:
            self.send_error(404)
            return
        body = BODY[:100] if "cut" in self.path else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(body)
        self.server.num_requests += 1

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.num_requests = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and cache; what fails is tried again at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PRELABEL_MODELS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    at_once = replace(weights._LIMITS.backoff, sleep=lambda seconds: None)
    monkeypatch.setattr(weights, "_LIMITS", replace(weights._LIMITS, backoff=at_once))
    return tmp_path


def address(server: ThreadingHTTPServer, path: str = "net.pt") -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def write_card(folder: Path, name: str = "net", **keys: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"file": "net.pt", "licence": "MIT", "use": "ultralytics", **keys}))
    return path


def test_every_shipped_card_pins_its_file():
    cards = [read_card(path) for path in sorted(SHIPPED.glob("*.yaml"))]

    assert {"yolo11n", "fasterrcnn_resnet50_fpn_v2"} <= {card.name for card in cards}
    assert all(card.sha256 and card.licence and card.source for card in cards)
    assert all(card.url or (SHIPPED / card.file).is_file() for card in cards)


def test_published_torchvision_cards_agree_with_torchvision():
    from torchvision.models import get_model_weights

    for card in map(read_card, SHIPPED.glob("*.yaml")):
        if card.use == "torchvision" and card.url:
            assert card.url in [weights.url for weights in get_model_weights(card.builder)]
            assert card.file.endswith(f"-{card.sha256[:8]}.pth")


def test_card_fetches_its_file_once(home, server):
    write_card(home / "cards", url=address(server), sha256=SHA256)

    first = resolve_weights("net", folders=[home / "cards"])
    again = resolve_weights("net.pt", folders=[home / "cards"])

    assert first == again
    assert first.path == cache_folder() / "net.pt"
    assert (first.sha256, first.licence, first.path.read_bytes()) == (SHA256, "MIT", BODY)
    assert server.num_requests == 1


def test_file_in_a_models_folder_is_taken_before_the_network(home, server):
    write_card(home / "cards", url=address(server), sha256=SHA256)
    (home / "mine").mkdir()
    (home / "mine" / "net.pt").write_bytes(BODY)

    weights = resolve_weights("net", folders=[home / "mine", home / "cards"])

    assert weights.path == home / "mine" / "net.pt"
    assert server.num_requests == 0


def test_fetched_file_with_another_sha256_is_thrown_away(home, server):
    write_card(home / "cards", url=address(server), sha256=OTHER_SHA256)

    with pytest.raises(WeightsError, match=rf"sha256 {SHA256}, expected {OTHER_SHA256}"):
        resolve_weights("net", folders=[home / "cards"])
    assert not list(cache_folder().iterdir())


@pytest.mark.parametrize(("path", "reason"), [("cut/net.pt", "the connection broke"), ("gone/net.pt", "HTTP 404")])
def test_failed_fetch_says_what_to_put_where(home, server, path, reason):
    write_card(home / "cards", url=address(server, path), sha256=SHA256)

    with pytest.raises(WeightsError, match=reason) as caught:
        resolve_weights("net", folders=[home / "cards"])
    for needed in ("net.pt", address(server, path), SHA256, "models/net.pt", "PRELABEL_MODELS"):
        assert needed in str(caught.value)
    assert not list(cache_folder().iterdir())


def test_unreachable_host_says_what_to_put_where(home):
    write_card(home / "cards", url="http://127.0.0.1:9/net.pt", sha256=SHA256)

    with pytest.raises(WeightsError, match=r"net\.pt: cannot be fetched from http://127\.0\.0\.1:9/net\.pt"):
        resolve_weights("net", folders=[home / "cards"])


def test_placed_file_with_another_sha256_is_used_at_the_user_s_word_and_said(home, caplog):
    write_card(home / "cards", sha256=OTHER_SHA256)
    (home / "cards" / "net.pt").write_bytes(BODY)

    weights = resolve_weights("net", folders=[home / "cards"])

    assert (weights.sha256, weights.path) == (SHA256, home / "cards" / "net.pt")
    assert f"{SHA256}, the card 'net' says {OTHER_SHA256}" in caplog.text


def test_cached_file_that_has_changed_since_it_was_fetched_is_refused(home):
    write_card(home / "cards", sha256=OTHER_SHA256)
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "net.pt").write_bytes(BODY)

    with pytest.raises(WeightsError, match=f"{SHA256}, the card 'net' says {OTHER_SHA256}"):
        resolve_weights("net", folders=[home / "cards"])


def test_card_without_sha256_is_not_fetched(home, server):
    write_card(home / "cards", url=address(server))

    with pytest.raises(WeightsError, match="no sha256"):
        resolve_weights("net", folders=[home / "cards"])
    assert server.num_requests == 0


def test_address_of_a_pickle_needs_its_sha256(server):
    with pytest.raises(WeightsError, match="#sha256="):
        resolve_weights(address(server))
    assert server.num_requests == 0


def test_address_with_its_sha256_is_fetched_once(server):
    asked = f"{address(server)}#sha256={SHA256}"

    assert resolve_weights(asked).path.read_bytes() == BODY
    assert resolve_weights(asked).sha256 == SHA256
    assert server.num_requests == 1


def test_address_of_a_graph_needs_no_sha256(server):
    assert resolve_weights(address(server, "net.onnx")).name == "net"


def test_address_does_not_leak_what_is_secret_in_it(server):
    with pytest.raises(WeightsError) as caught:
        resolve_weights(address(server, f"gone/net.pt?token=hush#sha256={SHA256}"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("fragment", ["sha256=12ab", "md5=12ab", SHA256])
def test_broken_fragment_is_named(server, fragment):
    with pytest.raises(ConfigError, match=r"^weights: got #.*64 lower-case"):  # a classifier's or a detector's
        resolve_weights(f"{address(server)}#{fragment}")


def test_path_needs_no_card(home):
    path = home / "best.pt"
    path.write_bytes(BODY)

    weights = resolve_weights(str(path))

    assert (weights.path, weights.name, weights.sha256, weights.card) == (path, "best", SHA256, None)


def test_file_is_found_by_name_in_the_folders_of_the_environment(home, monkeypatch):
    (home / "mine").mkdir()
    (home / "mine" / "best.pt").write_bytes(BODY)
    monkeypatch.setenv("PRELABEL_MODELS", f"{home / 'nothing'}:{home / 'mine'}")

    assert resolve_weights("best.pt").path == home / "mine" / "best.pt"


def test_file_here_is_meant_before_a_card_of_that_file_name(home):
    write_card(home / "cards", sha256=OTHER_SHA256)
    Path("net.pt").write_bytes(BODY)

    assert find_card("net.pt", [home / "cards"]) is None
    assert resolve_weights("net.pt", folders=[home / "cards"]).path == home / "work" / "net.pt"


def test_unknown_name_names_the_nearest():
    with pytest.raises(WeightsError, match="did you mean 'yolo11n'"):
        resolve_weights("yolo11nn")


def test_missing_path_is_named():
    with pytest.raises(WeightsError, match=r"'runs/best\.pt': no such file"):
        resolve_weights("runs/best.pt")


def test_working_folder_comes_before_the_shipped_cards(home):
    assert model_folders()[0] == home / "work" / "models"
    assert SHIPPED in model_folders()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [({"sha256": "12ab"}, "sha256"), ({"url": "ftp://host/x"}, "url"), ({"file": "../net.pt"}, "file")],
)
def test_wrong_card_names_file_and_key(home, keys, complaint):
    path = write_card(home / "cards", **keys)

    with pytest.raises(WeightsError, match=f"{path}: {complaint}: "):
        read_card(path)


def test_yaml_that_is_no_card_is_named(home):
    path = write_card(home / "cards")
    path.write_text("just text")

    with pytest.raises(WeightsError, match="is not a model card"):
        read_card(path)


def test_folder_of_openvino_is_hashed_by_names_and_contents(home):
    folder = home / "net_openvino_model"
    folder.mkdir()
    (folder / "net.xml").write_text("<net/>")
    (folder / "net.bin").write_bytes(BODY)
    before = resolve_weights(str(folder)).sha256

    (folder / "net.bin").write_bytes(BODY[:-1])

    assert sha256_of(folder) != before
