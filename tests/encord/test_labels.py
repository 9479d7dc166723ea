from __future__ import annotations

from prelabel.encord.project import labels_as_sent
from tests.encord_server.populated import Platform


def test_a_row_that_was_read_holds_no_labels_and_can_be_given_some(platform: Platform) -> None:
    row = platform.row()
    sent = labels_as_sent(row)
    assert "from_labels_dict" not in vars(row)
    assert not row.is_labelling_initialised
    row.from_labels_dict(sent)
    assert row.to_encord_dict()["data_hash"] == sent["data_hash"] == platform.clip.data_hash
