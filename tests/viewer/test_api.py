"""What the viewer answers, and whom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from viewer.voxel_codes import SHAPE, SPACING, coded

from radiobject.viewer.guard import SECURITY_HEADERS
from radiobject.viewer.server import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """Asks below the secret URL."""
    with httpx.Client(base_url=server.url) as asking:
        yield asking


@pytest.fixture(scope="module")
def outside(server: Server) -> Iterator[httpx.Client]:
    """Asks the same server, without the secret."""
    with httpx.Client(base_url=server.url.rsplit("/", 2)[0]) as asking:
        yield asking


def get(client: httpx.Client, name: str, **parameters: Any) -> Any:
    answer = client.get(f"api/{name}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def plane(client: httpx.Client, axis: int, index: int, t: int = 0, volume: str = "s1_CT") -> Any:
    place = {"collection": volume.rsplit("_", 1)[1], "volume": volume}
    if volume == "s1_float":
        place["collection"] = "CT"
    answer = client.get("api/plane", params={**place, "axis": axis, "index": index, "t": t})
    assert answer.status_code == 200, answer.text
    shape = tuple(map(int, answer.headers["X-Shape"].split(",")))
    return np.frombuffer(answer.content, answer.headers["X-Dtype"]).reshape(shape)


def test_planes_are_the_voxels(client: httpx.Client) -> None:
    expected = coded(0)
    for axis, n in enumerate(SHAPE):
        for index in range(n):
            assert np.array_equal(plane(client, axis, index), expected.take(index, axis))
    series = coded(3, (*SHAPE, 4))
    assert np.array_equal(plane(client, 1, 5, t=3, volume="s1_bold"), series[:, 5, :, 3])
    floats = plane(client, 2, 1, volume="s1_float")
    assert floats.dtype == np.float64
    assert np.array_equal(floats, np.linspace(0, 1, 64).reshape(4, 4, 4)[:, :, 1])


def test_subjects_are_paged_found_and_filtered(client: httpx.Client) -> None:
    assert get(client, "subjects") == {"total": 3, "offset": 0, "ids": ["odd/é <b>", "s1", "s2"]}
    assert get(client, "subjects", limit=1, offset=1)["ids"] == ["s1"]
    assert get(client, "subjects", text="S2")["ids"] == ["s2"]
    assert get(client, "subjects", filter="age > 35", text="s")["ids"] == ["s2"]
    bad = client.get("api/subjects", params={"filter": "__import__('os').system('x')"})
    assert bad.status_code == 400
    assert "Invalid filter expression" in bad.json()["error"]


def test_a_subject_has_its_row_and_volumes(client: httpx.Client) -> None:
    subject = get(client, "subject", id="odd/é <b>")
    assert subject["row"]["age"] == 50
    assert [v["obs_id"] for v in subject["volumes"]] == ["odd/é <b>_CT", "odd/é <b>_seg"]
    assert get(client, "overview")["subjects"] == 3


def test_a_volume_says_how_its_planes_lie(client: httpx.Client) -> None:
    volume = get(client, "volume", collection="CT", volume="s1_CT")
    assert volume["shape"] == list(SHAPE)
    assert volume["spacing"] == list(SPACING)
    (overlay,) = volume["overlays"]
    assert overlay == {"collection": "seg", "obs_id": "s1_seg", "names": {"1": "liver"}}
    axial = next(p for p in volume["planes"] if p["name"] == "axial")
    assert axial["letters"] == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert (axial["axis"], axial["across"], axial["down"]) == (2, 0, 1)
    assert (axial["flip_across"], axial["flip_down"]) == (True, True)
    assert axial["size_mm"] == [20.0, 24.0]
    turned = get(client, "volume", collection="CT", volume="s2_CT")
    axial = next(p for p in turned["planes"] if p["name"] == "axial")
    assert (axial["flip_across"], axial["flip_down"]) == (False, False)
    assert axial["letters"] == {"left": "R", "right": "L", "top": "A", "bottom": "P"}


def test_tiles_of_a_patch_are_counted(client: httpx.Client) -> None:
    place = {"collection": "CT", "volume": "s1_CT"}
    found = get(client, "tiles", **place, centre="0,0,0", size="8,8,8")
    assert (found["start"], found["stop"]) == ([0, 0, 0], [8, 8, 8])
    assert found["n_tiles"] == len(found["tiles"]) == 1
    assert found["n_decoded"] == 1
    assert found["compressed_bytes"] > 0
    large = get(client, "tiles", **place, centre="19,15,11", size="99,4,4")
    assert (large["start"], large["stop"]) == ([0, 12, 8], [20, 16, 12])


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("plane", {"collection": "CT", "volume": "s1_CT", "axis": 0, "index": 20}, 400),
        ("plane", {"collection": "CT", "volume": "s1_CT", "axis": 3, "index": 0}, 400),
        ("plane", {"collection": "CT", "volume": "s1_CT", "axis": "x", "index": 0}, 400),
        ("plane", {"collection": "CT", "volume": "s1_CT", "axis": 0, "index": 0, "t": 1}, 400),
        ("plane", {"collection": "CT", "volume": "nobody", "axis": 0, "index": 0}, 404),
        ("plane", {"collection": "PET", "volume": "s1_CT", "axis": 0, "index": 0}, 404),
        ("plane", {}, 404),
        ("tiles", {"collection": "CT", "volume": "s1_CT", "centre": "1", "size": "1,1,1"}, 400),
        ("subject", {"id": "nobody"}, 404),
        ("subjects", {"limit": "many"}, 400),
    ],
)
def test_a_wrong_question_is_an_answer(
    client: httpx.Client, name: str, parameters: dict[str, Any], status: int
) -> None:
    answer = client.get(f"api/{name}", params=parameters)
    assert answer.status_code == status
    assert answer.json()["error"]


# Who may ask


@pytest.mark.parametrize("path", ["/", "/api/overview", "/wrong/", "/wrong/api/overview", "/%00/"])
def test_without_the_token_nothing_is_given(
    outside: httpx.Client, server: Server, path: str
) -> None:
    answer = outside.get(path)
    assert answer.status_code == 403
    assert "s1" not in answer.text
    token = server.url.rsplit("/", 2)[1]
    assert token not in answer.text
    assert outside.get(f"/{token}x/").status_code == 403
    assert outside.get(f"//{token[:-1]}/").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:9999"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_is_refused_even_with_the_token(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    assert client.get("api/overview", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:PORT"},
        {"Origin": "http://127.0.0.1:PORT"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_page_is_served(client: httpx.Client, headers: dict[str, str]) -> None:
    port = str(client.base_url.port)
    ours = {name: value.replace("PORT", port) for name, value in headers.items()}
    assert client.get("api/overview", headers=ours).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_but_reading(client: httpx.Client, method: str) -> None:
    assert client.request(method, "api/overview").status_code == 405


@pytest.mark.parametrize(
    "path", ["", "static/main.js", "api/overview", "api/subject?id=nobody", "static/nothing"]
)
def test_every_answer_is_kept_private(
    client: httpx.Client, outside: httpx.Client, path: str
) -> None:
    answer = client.get(f"{path}")
    for name, value in SECURITY_HEADERS:
        assert answer.headers.get_list(name.decode()) == [value.decode()]
    assert "access-control-allow-origin" not in answer.headers
    assert "set-cookie" not in answer.headers
    refused = outside.get(f"/wrong/{path}")
    assert refused.headers["cache-control"] == "no-store"


def test_static_files_stay_in_their_folder(client: httpx.Client) -> None:
    for path in (
        "static/../app.py",
        "static/%2e%2e/app.py",
        "static/..%2fapp.py",
        "static//etc/passwd",
    ):
        assert client.get(f"static/{path}").status_code in (403, 404)


def test_the_page_asks_for_nothing_outside(client: httpx.Client) -> None:
    for name in ("", "static/main.js", "static/api.js", "static/plane.js", "static/viewer.css"):
        text = client.get(f"{name}").text
        assert "https://" not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0


def test_a_slice_comes_at_once(client: httpx.Client) -> None:
    plane(client, 2, 6, volume="s2_CT")
    before = time.process_time()
    plane(client, 2, 7, volume="s2_CT")
    assert time.process_time() - before < 0.3
