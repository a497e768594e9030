//! The metrics as Prometheus sees them: its own checker, its own rules, a server of its own.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Metrics, Origin, Proxy, Setup, eventually};

/// Something in most series.
fn mixed(proxy: &Proxy) {
    let mut client = proxy.connect();
    for target in ["/api/1", "/api/1", "/api/2", "/nowhere", "/health"] {
        for method in ["GET", "HEAD", "DELETE"] {
            client.ask(method, target, &[]);
        }
    }
}

/// A tool of Debian's package `prometheus`, which `tests/run` installs.
fn tool(name: &str) -> Command {
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/prometheus");
    let local = beside.join(name);
    Command::new(if local.exists() { local } else { name.into() })
}

#[track_caller]
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = tool("promtool");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is missing: see tests/run");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
    text
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    mixed(&proxy);
    let page = proxy.get("/metrics").text().to_owned();
    assert_eq!(promtool(&["check", "metrics"], &page), "");
}

#[test]
fn promtool_accepts_the_rules_their_tests_and_the_configuration() {
    let checked = promtool(&["check", "rules", "deploy/prometheus-rules.yml"], "");
    assert!(checked.contains("SUCCESS"), "{checked}");
    promtool(&["test", "rules", "deploy/prometheus-rules.test.yml"], "");
    let checked = promtool(&["check", "config", "deploy/prometheus.yml"], "");
    assert!(checked.contains("SUCCESS"), "{checked}");
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A GET of a program that is not under test; `None` while it does not answer.
fn fetch(port: u16, target: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: h\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn a_real_prometheus_scrapes_and_finds_every_rule_in_order() {
    let origin = Origin::counting("max-age=60");
    let token = "scraper-token";
    let proxy = Setup::over(&origin)
        .with("security.metrics_auth_enabled", true)
        .with("security.metrics_auth_token", token)
        .start();
    mixed(&proxy);
    let home = tempfile::tempdir().unwrap();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus-rules.yml");
    let config = format!(
        "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n\
         rule_files: [{rules}]\n\
         scrape_configs:\n- job_name: apiproxyd\n  authorization: {{credentials: {token}}}\n  \
         static_configs: [{{targets: ['{}']}}]\n",
        proxy.addr()
    );
    let file = home.path().join("prometheus.yml");
    fs::write(&file, config).unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut command = tool("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Ended(command.spawn().expect("prometheus is missing: see tests/run"));
    eventually("the target is up", || {
        let targets = fetch(port, "/api/v1/targets");
        let targets = targets.as_ref().map(|it| &it["data"]["activeTargets"][0]);
        targets.is_some_and(|it| it["health"] == "up" && it["lastError"] == "")
    });
    let query = |text: &str| {
        let answer = fetch(port, &format!("/api/v1/query?query={text}"))?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    let hits = Metrics::parse(
        proxy.ask("GET", "/metrics", &[("Authorization", "Bearer scraper-token")]).text(),
    );
    let hits = hits.sum("apiproxyd_requests_total", &["\"hit\""]);
    eventually("it has the numbers", || {
        query("sum(apiproxyd_requests_total%7Bcache%3D%22hit%22%7D)")
            .is_some_and(|it| it == hits.to_string())
    });
    // The time a scrape took, as the scraper sees it, connection and all.
    let took: f64 = query("scrape_duration_seconds").unwrap().parse().unwrap();
    assert!(took < 2.0, "{took}");
    eventually("every rule was evaluated without a fault", || {
        let Some(groups) = fetch(port, "/api/v1/rules") else { return false };
        let groups = groups["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> = groups
            .iter()
            .flat_map(|it| it["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        rules.len() > 10 && rules.iter().all(|it| it["health"] == "ok")
    });
}
