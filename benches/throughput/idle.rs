//! What an idle keep-alive connection costs in resident memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::load;
use super::process::Process;

/// Connections of each step; the first step only warms the server up.
const STEP: usize = 500;
/// Longer than the server keeps the buffers of a silent connection.
const PAUSE: Duration = Duration::from_millis(2500);

/// Bytes for each connection, of a server that has served nothing else.
///
/// Connections come in `steps` steps, with pauses in which the server gives their buffers back:
/// what one step has used is there for the next, as with clients that come one after another.
pub fn bytes_per_connection(server: &Process, steps: usize) -> f64 {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, most, most).ok();
    }
    let mut connections = Vec::new();
    let mut first = 0;
    for step in 0..steps.max(2) {
        for _ in 0..STEP {
            connections.push(open(server));
        }
        std::thread::sleep(PAUSE);
        if step == 0 {
            first = server.rss_bytes();
        }
    }
    let grown = server.rss_bytes() as f64 - first as f64;
    grown / (connections.len() - STEP) as f64
}

/// A connection that has had one answer.
fn open(server: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.write_all(&load::request(server.addr, "/api/keep/1024/0")).unwrap();
    let (mut taken, mut part) = (0, [0; 4096]);
    while taken < 1024 {
        let bytes = stream.read(&mut part).unwrap();
        assert!(bytes > 0, "closed");
        taken += bytes;
    }
    stream
}
