import time

import pytest

from radiobject.ml.device.report import DeviceReport
from radiobject.ml.loaders.report import LoaderReport, Meter


def reported(counted, *, busy_s=0.0, wait_s=0.01, workers=0, transform=False, device=None):
    """The report of two batches of 8 samples; the consumer works between them."""
    meter = Meter()
    meter.delivered(8, meter.begin())
    time.sleep(busy_s)
    asked = meter.begin()
    time.sleep(wait_s)
    meter.delivered(8, asked)
    return meter.report(counted, workers=workers, transform=transform, device=device)


WARM = {"tiles_cached": 90, "tiles_constant": 5, "tiles_decoded": 5}
COLD = {"tiles_cached": 10, "tiles_decoded": 90}


@pytest.mark.parametrize(
    ("counted", "more", "words"),
    [
        (WARM | {"fallback_reads": 3}, {}, "3 reads went through libtiledb"),
        (WARM, {"transform": True}, "pass num_workers"),
        (COLD, {}, "only 10% of tiles came from the cache"),
        (COLD, {"workers": 2, "transform": True}, "volumes_per_block"),
        (WARM, {}, "num_workers adds more"),
        (WARM, {"workers": 2}, "add workers"),
    ],
)
def test_the_hint_names_what_starves_the_model(counted, more, words):
    report = reported(counted, **more)
    assert report.wait_share > 0.1
    assert words in report.hint
    assert report.hint in str(report)


@pytest.mark.parametrize(
    ("registered", "words"),
    [(9, "device_cache_bytes keeps them on the device"), (0, "larger batches")],
)
def test_the_hint_of_a_device_that_has_every_volume_asks_for_no_workers(registered, words):
    device = DeviceReport("cuda:0", 9 - registered, registered, 0, 0, 0, 0, None)
    report = reported(WARM, device=device)
    assert words in report.hint
    assert "num_workers" not in report.hint


def test_a_loader_that_keeps_up_gets_no_hint():
    report = reported(COLD, busy_s=0.3, wait_s=0.0)
    assert report.wait_share < 0.1
    assert report.hint is None
    assert str(report).endswith("per byte delivered")


def test_figures():
    report = reported({"bytes_delivered": 100, "bytes_decoded": 250, "bytes_read": 60} | WARM)
    assert (report.batches, report.samples) == (2, 16)
    assert report.samples_per_second == pytest.approx(16 / report.seconds)
    assert 0.01 <= report.wait_seconds <= report.seconds
    assert report.read_amplification == 2.5
    assert report.cache_share == 0.95
    assert report.bytes_read == 60


def test_nothing_delivered_is_no_division_by_zero():
    report = Meter().report({}, workers=0, transform=False)
    assert isinstance(report, LoaderReport)
    assert (report.wait_share, report.samples_per_second, report.read_amplification) == (0, 0, 0)
    assert report.hint is None
