"""`validate(checksums=True)` looks at the stored bytes, not at what memory holds of them."""

from pathlib import Path

import numpy as np
import pytest

from radiobject import VolumeCollection
from radiobject.exceptions import IntegrityError
from radiobject.storage.read import reader


@pytest.mark.parametrize("constant", [False, True])
def test_a_flipped_byte_is_found_behind_a_warm_cache(tmp_path: Path, constant: bool) -> None:
    shape = (40, 40, 40)
    data = np.full(shape, 7, np.int16) if constant else np.arange(40**3, dtype=np.int16)
    volumes = {("s", "s_CT"): data.reshape(shape)}
    collection = VolumeCollection.from_numpy(str(tmp_path / "CT"), volumes)
    collection.validate(checksums=True)
    np.testing.assert_array_equal(collection.iloc[0].to_numpy(), volumes["s", "s_CT"])
    (tiles,) = (tmp_path / "CT" / "volumes").glob("*/__fragments/*/a0.tdb")
    content = bytearray(tiles.read_bytes())
    content[len(content) // 2] ^= 0x10
    tiles.write_bytes(content)
    reader.close_all()
    collection.validate()
    with pytest.raises(IntegrityError, match="s_CT"):
        collection.validate(checksums=True)
