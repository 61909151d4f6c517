"""The benchmark of live answers runs: the requests it times are answered."""

from bench.live import results


def test_each_call_is_answered() -> None:
    names = [result.name for result in results(scale=0.001)]
    assert [name.split()[0] for name in names] == ["/predict", "/health", "/setup", "/predict"]
