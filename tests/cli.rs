//! The command line of the real binary: what it prints, where, and with which exit code.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Runs the binary in a home of its own, with nothing of this process's environment.
fn apiproxyd(home: &TempDir, arguments: &[&str]) -> Output {
    command(home, arguments).output().unwrap()
}

fn command(home: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiproxyd"));
    command.args(arguments).env_clear().env("HOME", home.path()).current_dir(home.path());
    command
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn write(home: &TempDir, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_and_version_succeed_on_stdout() {
    let home = home();
    for arguments in [&["--help"][..], &["-h"], &["run", "--help"], &["config", "--help"]] {
        let output = apiproxyd(&home, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(out(&output).contains("apiproxyd") && err(&output).is_empty(), "{arguments:?}");
    }
    let version = apiproxyd(&home, &["--version"]);
    assert_eq!(out(&version), format!("apiproxyd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_stranger_finds_the_examples_in_the_help() {
    let output = apiproxyd(&home(), &["--help"]);
    for text in ["apiproxyd demo", "--allow-private-upstream", "Exit codes", "APIPROXYD_API_KEY"] {
        assert!(out(&output).contains(text), "{text}");
    }
}

#[test]
fn wrong_arguments_are_one_line_and_exit_64() {
    let home = home();
    for arguments in [
        &["--prot", "1"][..],
        &["frobnicate"],
        &["--port", "70000"],
        &["config"],
        &["--driver", "kqueue"],
        &["check", "--set", "x"],
        &["check", "--set", "cache.tll=1"],
        &["check", "--set", "api_key=hunter2"],
        &["run", "--config", "nowhere.json"],
        &["check", "--config", "."],
    ] {
        let output = apiproxyd(&home, arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{arguments:?}: {}", err(&output));
        assert!(out(&output).is_empty() && !err(&output).contains("hunter2"), "{arguments:?}");
    }
}

#[test]
fn check_prints_ok_or_every_fault() {
    let home = home();
    let good = write(&home, "good.json", r#"{"cache": {"ttl": 60}, "daemon_port": 8080}"#);
    let output = apiproxyd(&home, &["check", "--config", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with("ok: http://127.0.0.1:8080/api -> "), "{}", out(&output));
    assert!(err(&output).contains("note: daemon_port"), "{}", err(&output));

    let bad = write(
        &home,
        "bad.json",
        r#"{"cache": {"ttl": -1, "tll": 1}, "server": {"port": "x"}, "entry_point": "gopher://x"}"#,
    );
    let output = apiproxyd(&home, &["check", "--config", &bad]);
    assert_eq!(output.status.code(), Some(64));
    assert!(out(&output).is_empty());
    for path in ["cache.ttl: ", "server.port: ", "entry_point: ", "note: cache.tll: "] {
        let line = format!("{bad}: {path}");
        assert!(err(&output).lines().any(|it| it.starts_with(&line)), "{}", err(&output));
    }
    assert_eq!(err(&output).lines().count(), 4, "{}", err(&output));

    let broken = write(&home, "broken.json", "{\n  \"cache\": {},\n}\n");
    let output = apiproxyd(&home, &["check", "--config", &broken]);
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).starts_with(&format!("{broken}: line 3, column 1: ")), "{}", err(&output));
}

#[test]
fn run_with_a_bad_configuration_is_one_line_and_exits_64() {
    let home = home();
    let bad = write(&home, "bad.json", r#"{"cache": {"ttl": -1}, "server": {"port": "x"}}"#);
    let runs: [&[&str]; 3] = [
        &["run", "--config", &bad],
        &["--config", &bad],
        &["--entry-point", "http://127.0.0.1:9", "--port", "0"],
    ];
    for arguments in runs {
        let output = apiproxyd(&home, arguments);
        assert_eq!(output.status.code(), Some(64), "{}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    }
    let private = apiproxyd(&home, runs[2]);
    assert!(err(&private).contains("--allow-private-upstream"), "{}", err(&private));
}

#[test]
fn check_takes_the_options_of_run() {
    let home = home();
    let arguments = [
        "check",
        "--entry-point",
        "http://127.0.0.1:8000/v1",
        "--allow-private-upstream",
        "--port",
        "0",
        "--cores",
        "0-1",
        "--driver",
        "epoll",
        "--cache-backend",
        "none",
        "--set",
        "cache.ttl=90",
    ];
    let output = apiproxyd(&home, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let expected = "ok (no file: defaults): http://127.0.0.1:0/api -> http://127.0.0.1:8000/v1; \
                    cache: memory, ttl 90 s; cores: 0,1; driver: epoll\n";
    assert_eq!(out(&output), expected);
}

#[test]
fn init_writes_once_and_check_accepts_it() {
    let home = home();
    let output = apiproxyd(&home, &["config", "init"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let path = home.path().join(".apiproxy/config.json");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_to_string(&path).unwrap(), include_str!("../config.example.json"));

    fs::write(&path, r#"{"server": {"port": 81}}"#).unwrap();
    let again = apiproxyd(&home, &["config", "init"]);
    assert_eq!(again.status.code(), Some(64));
    assert_eq!(err(&again).lines().count(), 1, "{}", err(&again));
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"server": {"port": 81}}"#);

    // The file in the home directory is found without being named.
    let check = apiproxyd(&home, &["check"]);
    assert!(out(&check).starts_with("ok: http://127.0.0.1:81/api"), "{}", out(&check));
    let printed = apiproxyd(&home, &["config", "init", "-"]);
    assert_eq!(out(&printed), include_str!("../config.example.json"));
    let nowhere = apiproxyd(&home, &["config", "init", "/dev/null/x.json"]);
    assert_eq!(nowhere.status.code(), Some(70), "{}", err(&nowhere));
}

#[test]
fn show_masks_secrets_and_tells_who_decided() {
    let home = home();
    let file = write(&home, "c.json", r#"{"cache_ttl": 5, "api_key": "hunter2"}"#);
    let mut command = command(&home, &["config", "show", "--port", "1"]);
    command.env("APIPROXYD_CONFIG", &file).env("APIPROXYD_ADMIN_TOKEN", "hunter2-admin");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(!text.contains("hunter2"), "{text}");
    for (path, rest) in [
        ("server.port ", "1  <- --port"),
        ("cache.ttl ", "5  <- file, as cache_ttl"),
        ("api_key ", "\"***\"  <- file"),
        ("security.admin_token ", "\"***\"  <- $APIPROXYD_ADMIN_TOKEN"),
        ("log.level ", "\"info\""),
    ] {
        let line = text.lines().find(|it| it.starts_with(path)).unwrap();
        assert_eq!(line[path.len()..].trim_start(), rest, "{line}");
    }
    let json = apiproxyd(&home, &["config", "show", "--json"]);
    assert_eq!(out(&json), include_str!("../config.example.json"));
    let fields = apiproxyd(&home, &["config", "fields"]);
    assert!(out(&fields).contains("### cache"), "{}", out(&fields));
}

/// Whichever of its threads a signal may reach.
#[test]
fn demo_and_run_end_with_0_when_told_to() {
    let home = home();
    let run = ["run", "--port", "0", "--cache-backend", "none"];
    for arguments in [&["demo", "--port", "0"][..], &run] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut daemon = command(&home, arguments);
            let mut daemon = daemon.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut line = String::new();
            let mut out = BufReader::new(daemon.stdout.take().unwrap());
            out.read_line(&mut line).unwrap();
            assert!(line.contains("listening on"), "{arguments:?}: {line}");
            kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), signal).unwrap();
            assert_eq!(daemon.wait().unwrap().code(), Some(0), "{arguments:?} {signal}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = home();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command(&home, &["config", "fields"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
