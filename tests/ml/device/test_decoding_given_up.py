"""Decoding on a device that one thread gives up while another is in the middle of it."""

from device.test_decoding import PATCH, equal, no_cache, own_cache, source_of  # noqa: F401

from radiobject.ml import DatasetConfig, VolumeCollectionDataset


def test_a_group_under_way_is_finished_when_another_thread_gives_up(shelf, caplog):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    source = source_of(dataset)
    source._homes.find = lambda locator: source._decoding._give_up("another thread's reason")
    plans = [dataset.plan([number], 0) for number in range(3)]
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert "another thread's reason" in caplog.text
    assert source.report().decoded == 3
    assert not source.decodes()
