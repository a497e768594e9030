//! The same request over many connections at the same moment.
//!
//! One thread is enough: small answers wait in the kernel until they are read.

use std::net::SocketAddr;

use super::client::Client;

/// Opens `count` connections, none of which has sent anything yet.
#[track_caller]
pub fn connect_all(addr: SocketAddr, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(addr)).collect()
}

/// Sends the same bytes on every connection, without waiting for any answer.
#[track_caller]
pub fn send_all(clients: &mut [Client], bytes: &[u8]) {
    for client in clients {
        client.send(bytes);
    }
}
