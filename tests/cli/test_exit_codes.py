import pytest

from engine.cli.exit_codes import EXIT_CODES, ExitCode, exit_code
from engine.model import errors


def leaves(kind: type) -> set[type]:
    below = [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    return {leaf for sub in below for leaf in leaves(sub)} or {kind}


def test_each_leaf_of_the_error_tree_has_an_exit_code_of_its_own():
    assert leaves(errors.EngineError) <= set(EXIT_CODES)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("m"), 2),
        (errors.InvalidManifestError([]), 3),
        (errors.FlowFailedError("m"), 1),
        (errors.AppliedInPartError(["m"]), 4),
        (errors.DeadlineExceededError("m"), 5),
        (errors.LockHeldError("m"), 6),
        (errors.EngineNotRunningError("m"), 1),
        (errors.PermanentError("m"), 1),
        (errors.TransientError("m"), 1),
    ],
)
def test_the_exit_codes_that_scripts_rely_on(error, code):
    assert exit_code(error) == code


def test_changes_and_wrong_usage_share_a_code_as_documented():
    assert ExitCode.CHANGES is ExitCode.USAGE
