//! The floor: what a server must cost on this machine that parses each request and answers with
//! canned bytes. A process of its own, so that its CPU time is its own.

use std::net::TcpListener;
use std::rc::Rc;

use apiproxyd::net::runtime::{ENTRIES_DEFAULT, Runtime, pin_to};
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

/// Names the file of canned bytes, and makes this binary a floor.
pub const VARIABLE: &str = "APIPROXYD_BENCH_FLOOR";
/// Its CPU.
pub const CPU_VARIABLE: &str = "APIPROXYD_BENCH_FLOOR_CPU";

/// Serves until the process is ended.
pub fn serve(file: &str) {
    let canned = std::fs::read(file).unwrap();
    let cpu = std::env::var(CPU_VARIABLE).unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    println!("floor listening on http://{}", listener.local_addr().unwrap());
    // The account looks for this name, as for the server's cores.
    let core = std::thread::Builder::new().name("core-0".to_owned());
    let thread = core.spawn(move || {
        pin_to(cpu).unwrap();
        let mut runtime = Runtime::build(super::driver(), ENTRIES_DEFAULT).unwrap();
        runtime.block_on(accept(listener, canned.into()));
    });
    // Ends with its parent, however that ends.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
    drop(thread);
    std::process::exit(0);
}

async fn accept(listener: TcpListener, canned: Rc<[u8]>) {
    let listener = monoio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        drop(monoio::spawn(connection(stream, Rc::clone(&canned))));
    }
}

async fn connection(mut stream: TcpStream, canned: Rc<[u8]>) {
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::with_capacity(16 * 1024);
    loop {
        let start = input.len();
        let (read, room) = stream.read(input.slice_mut(start..)).await;
        input = room.into_inner();
        if !matches!(read, Ok(1..)) {
            return;
        }
        let mut used = 0;
        while let Some(bytes) = parse(&input[used..]) {
            used += bytes;
            output.extend_from_slice(&canned);
        }
        input.drain(..used);
        let (written, full) = stream.write_all(output).await;
        output = full;
        output.clear();
        if written.is_err() {
            return;
        }
    }
}

/// Bytes of the first complete request.
fn parse(input: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    match httparse::Request::new(&mut fields).parse(input) {
        Ok(httparse::Status::Complete(bytes)) => Some(bytes),
        _ => None,
    }
}
