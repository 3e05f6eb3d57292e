"""Trials of the common start itself."""


def test_the_common_start_trains_and_evaluates(finished_run, command):
    result = command("evaluate", finished_run)
    assert result.status == 0
    assert '"score"' in result.out
