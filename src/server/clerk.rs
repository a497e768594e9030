//! The thread that does what no core should: it runs their errands (`net::errands`), and looks once
//! a second whether the certificate's files have changed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::net::errands::Errand;
use crate::server::certificate::{Certificate, Watched};

/// Starts it. It ends when nobody can send it errands any more.
///
/// # Errors
/// No thread could be started.
pub fn start(errands: Receiver<Errand>, certificate: Option<Arc<Certificate>>) -> io::Result<()> {
    let watched = certificate.map(Watched::new);
    let builder = std::thread::Builder::new().name("clerk".to_owned());
    builder.spawn(move || run(&errands, watched)).map(drop)
}

fn run(errands: &Receiver<Errand>, mut watched: Option<Watched>) {
    let mut due = Instant::now() + LOOK_SPAN;
    loop {
        match errands.recv_deadline(due) {
            // Whoever waits is told: the errand's own end does that.
            Ok(errand) => drop(catch_unwind(AssertUnwindSafe(errand))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= due {
            due = Instant::now() + LOOK_SPAN;
            if let Some(watched) = &mut watched {
                watched.look();
            }
        }
    }
}

/// Between two looks at files.
const LOOK_SPAN: Duration = Duration::from_secs(1);
