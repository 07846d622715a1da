"""Suites and gates: what a file may ask for, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import config
from edgekit.errors import DataError, EdgekitError
from edgekit.measurements import Gates, Suite


@pytest.mark.parametrize("name", config.names("benchmarks/suites"))
def test_each_shipped_suite_carries_the_percentiles_that_it_promises(name: str) -> None:
    suite = config.load_suite(name)
    assert set(suite.percentiles) >= {50, 90}
    assert suite.description


def test_mlperf_mobile_has_the_run_lengths_of_its_rules() -> None:
    """mlcommons.org, Inference: Mobile: single stream 1,024 queries and 60 s; 5 minutes of rest; 98 % of FP32."""
    suite = config.load_suite("mlperf-mobile")
    assert (suite.min_queries, suite.min_s, suite.offline_s, suite.cooldown_s) == (1024, 60, 60, 300)
    assert suite.scenarios == ("single_stream", "offline")
    assert suite.gates == Gates(min_accuracy=98.0)


def test_a_file_has_scenarios_percentiles_and_gates(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'scenarios = ["single_stream", "offline"]\npercentiles = [50, 99]\nmin_queries = 700\n'
        "[gates]\nmax_drop = 1\nmin_speedup = 1.5\n"
    )
    suite = config.load_suite(str(path))
    assert suite.gates == Gates(max_drop=1.0, min_speedup=1.5)
    assert (suite.scenarios, suite.percentiles) == (("single_stream", "offline"), (50, 99))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('scenarios = ["server", "single_stream"]', "unknown scenario 'server'"),
        ('scenarios = ["offline"]', "must include single_stream"),
        ("percentiles = [99]\nmin_queries = 661", "p99 needs 662 queries, min_queries is 661"),
        ("percentiles = [75]", "unknown percentile '75'"),
        ("cooldown_s = -1", "0 to 86400"),
        ("offline_s = 1e9", "0 to 86400"),
        ("min_s = 60\nmax_s = 1", "min_s is 60, above max_s, which is 1"),
        ("[gates]\nmax_drops = 1", "unknown key 'max_drops'"),
        ("[gates]\nmax_drop = nan", "max_drop must be a number"),
        ("[gates]\nmax_p90_ms = inf", "max_p90_ms must be a number"),
        ("[gates]\nmin_speedup = -2", "min_speedup must be 0 or greater, not -2"),
        ('[gates]\nmax_drop = "1"', "must be float"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(EdgekitError, match=says):
        config.load_suite(str(path))


def test_a_drop_may_be_asked_to_be_a_gain() -> None:
    assert Gates(max_drop=-1.0).max_drop == -1
    with pytest.raises(DataError):
        Suite("mine", min_queries=0)
