"""The viewer over an object store."""

from __future__ import annotations

import httpx
import numpy as np
import pandas as pd
from viewer.voxel_codes import SHAPE, coded, ras

from radiobject import RadiObject
from radiobject.viewer.server import Server
from radiobject.writers import RadiObjectWriter


def test_planes_of_a_data_set_in_a_bucket_are_its_voxels(s3_bucket: str) -> None:
    uri = f"s3://{s3_bucket}/brains"
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["s1"], "age": [30]}))
        writer.add_collection("CT").write_volume(coded(1), "s1_CT", "s1", affine=ras())
    with Server(RadiObject(uri)) as running:
        running.serve_in_background()
        with httpx.Client(base_url=running.url, timeout=30) as client:
            assert client.get("api/subjects").json()["ids"] == ["s1"]
            assert client.get("api/overview").json()["subjects"] == 1
            for axis, sides in enumerate(SHAPE):
                for index in (0, sides // 2, sides - 1):
                    place = {"collection": "CT", "volume": "s1_CT", "axis": axis, "index": index}
                    answer = client.get("api/plane", params=place)
                    assert answer.status_code == 200, answer.text
                    shape = tuple(map(int, answer.headers["X-Shape"].split(",")))
                    plane = np.frombuffer(answer.content, answer.headers["X-Dtype"]).reshape(shape)
                    assert np.array_equal(plane, coded(1).take(index, axis))
            missing = client.get("api/plane", params={"collection": "CT", "volume": "nobody"})
            assert missing.status_code == 404
