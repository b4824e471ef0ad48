"""Charts are drawn by notebooks: their bundle, their spec, and as files."""

from __future__ import annotations

import json

import pytest
import vl_convert

from fedbench import Chart, ConfigError, RunResult
from fedbench.interface.charts import MIME


@pytest.fixture
def chart(small: RunResult) -> Chart:
    return small.chart("rounds")


def test_a_bundle_has_a_spec_a_picture_and_a_text(chart: Chart) -> None:
    bundle = chart._repr_mimebundle_(include=None, exclude=None)
    assert list(bundle) == [MIME, "image/svg+xml", "text/plain"]
    assert bundle["text/plain"] == "<chart rounds: Accuracy over rounds>"
    assert bundle["image/svg+xml"].startswith("<svg")
    json.dumps(bundle)


def test_its_spec_is_one_of_the_version_that_its_type_names(chart: Chart) -> None:
    major = MIME.removeprefix("application/vnd.vegalite.v").removesuffix("+json")
    assert f"/v{major}.json" in chart.spec["$schema"]
    newest = [v for v in vl_convert.get_vegalite_versions() if v.startswith(f"{major}.")][-1]
    assert vl_convert.vegalite_to_svg(chart.spec, vl_version=newest).startswith("<svg")
    assert "tooltip" in json.dumps(chart.spec)
    assert "var(--" not in json.dumps(chart.spec)  # colours, where no style sheet is


def test_its_data_are_the_runs_numbers(small: RunResult, chart: Chart) -> None:
    (name,) = [n for n in chart.spec["datasets"] if n == "curves-0"]
    shown = [row["m"] for row in chart.spec["datasets"][name]]
    means = [one.scores["classifier"]["accuracy"].mean for one in small.rounds]
    assert shown == pytest.approx(means, rel=1e-5)  # six digits


def test_it_is_saved_as_the_end_of_the_name_says(chart: Chart, tmp_path) -> None:
    chart.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    chart.save(str(tmp_path / "a.svg"))
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    with pytest.raises(ConfigError, match=r"a\.pdf: a chart is saved as \.png or \.svg"):
        chart.save(tmp_path / "a.pdf")


def test_a_wrong_name_is_answered_with_the_nearest(small: RunResult) -> None:
    with pytest.raises(ConfigError, match=r"no chart 'domain' .did you mean 'domains'"):
        small.chart("domain")
