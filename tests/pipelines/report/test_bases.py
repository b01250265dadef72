"""The report's table and curves of what students started from."""

from typing import Any

import pytest

from helpers.charts import charts
from helpers.run_folder import make_run
from limbeck.corpus.parts import read_object, write_json
from limbeck.pipelines.report.build import write_report

BASE: dict[str, Any] = {
    "kept": [0, 2], "dropped": [1], "parameters": 1_234_567, "vocabulary": {"tokens": 5782, "of": 49152},
    "nats_per_token_teacher": 3.25, "nats_per_token_start": 4.5, "nats_per_token_healed": 3.75, "nats_per_byte_teacher": 0.75,
    "nats_per_byte_start": 1.0, "nats_per_byte_healed": 0.875,
    "healing": {
        "text": {"tokens": 8192}, "stopped": "healing stopped <early>",
        "curve": [{"step": step, "tokens": step * 100, "nats_per_token": 4.5 - step / 10} for step in range(4)],
    },
}  # fmt: skip


def _page(folder: Any, base: Any) -> str:
    run = make_run(folder / "run", rounds=1)
    file = run / "rounds/000/evaluation.json"
    found = read_object(file)
    write_json(file, {**found, "training": {**(found.get("training") or {}), "base": base}}, replace=True)
    return write_report(run).html.read_text()


def test_a_row_and_a_curve(tmp_path: Any) -> None:
    page = _page(tmp_path, BASE)
    for cell in ("2 of 3", "1,234,567", "5,782 of 49,152", "8,192", "3.250 → 4.500 → 3.750", "0.750 → 1.000 → 0.875"):
        assert f"<td>{cell}</td>" in page
    assert "Round 0: Healing stopped &lt;early&gt;." in page
    assert "Round 0: loss while healing" in page and len(charts(page)) > len(charts(_page(tmp_path / "plain", {})))


@pytest.mark.parametrize(
    "base", [{}, {"healing": None, "kept": 3}, {"healing": {"curve": "none", "text": [], "stopped": 4}, "parameters": "x"}]
)
def test_what_is_missing_or_malformed_is_left_out(tmp_path: Any, base: Any) -> None:
    page = _page(tmp_path, base)
    assert "What students start from" in page and "– → – → –" in page and "loss while healing" not in page


def test_a_run_without_a_made_base_has_no_section(tmp_path: Any) -> None:
    assert "What students start from" not in _page(tmp_path, None)
