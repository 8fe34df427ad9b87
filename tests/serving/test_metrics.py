"""Prometheus' text format."""

from ssd.serving.metrics import CodeCounter, Gauge, Histogram, render


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    seconds = Histogram("seconds", "Time.", (0.1, 1.0))
    for value in (0.1, 0.5, 7.0):
        seconds.observe(value)
    assert render([seconds]).splitlines() == [
        "# HELP seconds Time.",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 1',
        'seconds_bucket{le="1.0"} 2',
        'seconds_bucket{le="+Inf"} 3',
        "seconds_sum 7.6",
        "seconds_count 3",
    ]


def test_metrics_of_one_name_share_their_help_and_labels_are_escaped() -> None:
    metrics = [Histogram("images", "Sizes.", (1,), {"model": name}) for name in ("a", 'b"\\')]
    metrics[1].observe(2)
    text = render(metrics)
    assert text.count("# HELP") == text.count("# TYPE") == 1
    assert 'images_bucket{model="b\\"\\\\",le="1"} 0\n' in text
    assert 'images_count{model="b\\"\\\\"} 1\n' in text


def test_codes_are_counted_and_a_gauge_goes_down_again() -> None:
    requests, active = CodeCounter("requests", "All."), Gauge("active", "Now.")
    for code in (200, 503, 200):
        requests.add(code)
    active.value += 1
    assert 'requests{code="200"} 2\nrequests{code="503"} 1\n' in render([requests])
    assert render([active]).endswith("active 1\n")
