import numpy as np
import pytest

from lumifield.errors import DataError
from lumifield.runtime.optical_flow import read_flow, write_flow

FLOW = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)


def test_what_is_written_is_read(tmp_path):
    write_flow(tmp_path / "a.flo", FLOW)
    assert np.array_equal(read_flow(tmp_path / "a.flo"), FLOW)
    content = (tmp_path / "a.flo").read_bytes()
    # Middlebury's magic number, width, height, and the first row of (u, v).
    assert content[:4] == b"PIEH"
    assert np.frombuffer(content[4:12], "<i4").tolist() == [5, 3]
    assert np.array_equal(np.frombuffer(content[12 : 12 + 40], "<f4"), FLOW[0].ravel())


def test_damaged_files(tmp_path):
    path = tmp_path / "a.flo"
    write_flow(path, FLOW)
    whole = path.read_bytes()
    for content, message in (
        (b"", r"content: found another format"),
        (
            b"PIEH" + bytes(8),
            "size: found 0x0 in 12 bytes",
        ),
        (b"FLOW" + whole[4:], r"content: found another format"),
        (whole[:-1], "size: found 5x3 in 131 bytes"),
        (whole[:-4] + np.float32(np.nan).tobytes(), "flow: found NaN or infinity"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_flow(path)
