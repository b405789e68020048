"""What every command has in common: failures, interrupts, pipes, help, colours."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from engine.cli import output
from engine.cli.failures import mistake
from engine.cli.session import Session
from engine.model.errors import AppliedInPartError, Fault, InvalidManifestError
from engine.model.home import Home

COMMAND = [sys.executable, "-c", "import sys; from engine.cli.main import main; sys.exit(main())"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean 'status'? See: engine --help"),
        (["status", "--nonsense"], "No such option: --nonsense. See: engine status --help"),
        (["status", "--home", "x"], "--home goes before the command: engine --home DIR COMMAND"),
        (["call"], "Missing argument 'USER/NAME'. See: engine call --help"),
        (["users", "token"], "Missing argument 'USER'. See: engine users token --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, arguments, message):
    assert run(*arguments) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    "arguments", [["status", "-o", "xml"], ["call", "a/b", "--timeout", "soon"]]
)
def test_a_wrong_value_of_an_option_is_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: Invalid value for ")


def test_engine_alone_shows_its_commands(run):
    code, out, _ = run()
    assert code == 2
    assert all(f"\n  {name} " in out for name in ("apply", "status", "core", "users"))


def test_help_and_version(run):
    assert run("--help")[0] == 0
    assert run("apply", "--help")[0] == 0
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("engine ")


def test_a_home_that_cannot_be_written_is_one_line(run):
    code, _, err = run("--home", "/proc/engine", "status")
    assert code == 2
    assert err.startswith("error: ENGINE_HOME /proc/engine cannot be written")
    assert err.count("\n") == 1


def test_the_option_home_goes_before_the_environment(run, tmp_path):
    assert f"{tmp_path}/other" in run("--home", f"{tmp_path}/other", "status")[1]


def test_a_bug_is_said_to_be_one_and_its_trace_is_kept_in_the_home(run, home, monkeypatch):
    monkeypatch.setattr(Session, "client", lambda self: 1 / 0)
    code, out, err = run("status")
    assert (code, out) == (1, "")
    assert "This is a bug in the engine: ZeroDivisionError: division by zero" in err
    assert "Traceback" not in err
    (log,) = home.logs.glob("crash-*.log")
    assert str(log) in err
    assert "1 / 0" in log.read_text()


def test_a_bug_without_a_home_shows_its_trace(run, monkeypatch):
    monkeypatch.setattr(Session, "client", lambda self: 1 / 0)
    code, _, err = run("--home", "/proc/engine", "status")
    assert code == 1
    assert "Traceback" in err


def test_ctrl_c_is_quiet_and_says_what_becomes_of_the_call(run, engine, monkeypatch):
    def interrupted(self, *arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.daemon.client.ControlClient.post", interrupted)
    code, out, err = run("call", "user0/ep")
    assert (code, out) == (130, "")
    assert "The call is given up" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_following_logs_with_130(home: Home):
    log = home.worker_log("user0", "dispatch-0")
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    with subprocess.Popen(
        [*COMMAND, "logs", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ENGINE_HOME": str(home.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "user0/dispatch-0 | first\n"
        with log.open("a") as file:
            file.write("second\n")
        assert process.stdout.readline() == "user0/dispatch-0 | second\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == ""


def test_a_reader_that_leaves_early_is_no_error(home: Home):
    log = home.worker_log("user0", "dispatch-0")
    log.parent.mkdir(parents=True)
    log.write_text("line\n" * 100_000)
    done = subprocess.run(
        ["bash", "-c", '"$@" logs | head -1; exit ${PIPESTATUS[0]}', "bash", *COMMAND],
        capture_output=True,
        text=True,
        env=os.environ | {"ENGINE_HOME": str(home.path)},
    )
    assert (done.stdout, done.stderr) == ("user0/dispatch-0 | line\n", "")
    assert done.returncode == 141


def test_all_faults_of_a_manifest_are_told():
    faults = [
        Fault("a.yaml", 3, 5, "users.x", "Unknown key.", "Did you mean y?"),
        Fault("b.yaml", 0, 0, "", "The file is empty."),
    ]
    assert mistake(InvalidManifestError(faults)).splitlines() == [
        "a.yaml:3:5: users.x: Unknown key. Did you mean y?",
        "b.yaml: The file is empty.",
        "error: 2 faults in a.yaml, b.yaml; nothing was changed.",
    ]


def test_failed_steps_are_told_one_a_line():
    text = mistake(AppliedInPartError(["flow/user0/ep: no", "mount/user0/m: no"]))
    assert text.splitlines()[1:] == ["  flow/user0/ep: no", "  mount/user0/m: no"]


class Terminal:
    def isatty(self):
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.coloured(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not output.coloured(Terminal())


def test_states_are_painted_and_names_that_look_like_them_are_not():
    painted = output.paint("Ready  Ready-made  user/Failed  Failed")
    assert painted.count("\x1b[32mReady\x1b[0m") == 1
    assert "Ready-made  user/Failed" in painted


def test_what_others_wrote_cannot_steer_the_terminal():
    assert output.printable("a\x1b[2J\x07\r\x9bb\tc\nd") == "a\\x1b[2J\\x07\\x0d\\x9bb\tc\nd"


def test_a_log_keeps_its_colours_at_a_terminal_but_cannot_steer_it(monkeypatch, capsys):
    line = "\x1b[31mred\x1b[0m \x1b[2J"
    output.show_lines([line])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    output.show_lines([line])
    assert capsys.readouterr().out == f"{line}\n\x1b[31mred\x1b[0m \\x1b[2J\n"


def test_at_a_terminal_there_are_colours_and_json_over_many_lines(home: Home):
    def at_terminal(*arguments: str) -> str:
        ours, theirs = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        subprocess.run(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"ENGINE_HOME": str(home.path), "TERM": "xterm"},
        )
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        os.close(ours)
        return shown

    assert '{\r\n  "core": {\r\n' in at_terminal("status", "-o", "json")
    assert "\x1b[31merror:\x1b[0m" in at_terminal("users")
