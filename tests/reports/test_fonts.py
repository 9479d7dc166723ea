from __future__ import annotations

from prelabel.reports.drawing import fit_text, text_width


def test_a_name_that_is_cut_keeps_its_ending():
    text = fit_text("an articulated lorry", " 0.91", 12, 90)
    assert text.startswith("an arti")
    assert text.endswith("… 0.91")
    assert text_width(text, 12) <= 90
