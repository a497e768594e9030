//! The certificate that is served, and its replacement while the daemon runs: on SIGHUP, and when
//! its files change.
//!
//! Files are looked at by their metadata once a second, by the clerk. Certificate and key are
//! written one after the other, so that a change counts once two looks in a row see the same; a
//! pair that can't be used is reported once and leaves the old one in place.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

/// How the files become settings; reads them.
pub type Build = Box<dyn Fn() -> Result<ServerConfig, String> + Send + Sync>;

/// The certificate in use, for all cores.
pub struct Certificate {
    build: Build,
    files: [PathBuf; 2],
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Certificate {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// In words, what is wrong with the files.
    pub fn load(files: [PathBuf; 2], build: Build) -> Result<Self, String> {
        let current = Arc::new(ArcSwap::from_pointee(build()?));
        Ok(Self { build, files, current })
    }

    /// What a new connection is to use.
    pub fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.current)
    }

    /// Reads it again; a bad one is reported and the old one stays.
    pub fn reload(&self) {
        match (self.build)() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("certificate reloaded");
            }
            Err(error) => tracing::error!(%error, "the old certificate stays"),
        }
    }
}

/// A certificate whose files are looked at.
pub struct Watched {
    certificate: Arc<Certificate>,
    /// Of the files when they were last read.
    used: Marks,
    /// Of the look before.
    seen: Marks,
}

/// What changes when a file is replaced or rewritten; `None` while it is not there.
type Marks = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Watched {
    /// Starts from the files as they are.
    pub fn new(certificate: Arc<Certificate>) -> Self {
        let seen = marks(&certificate.files);
        Self { certificate, used: seen, seen }
    }

    /// Looks, and reads them again when they have changed and come to rest.
    pub fn look(&mut self) {
        let marks = marks(&self.certificate.files);
        let rests = marks == self.seen && marks.iter().all(Option::is_some);
        self.seen = marks;
        if rests && marks != self.used {
            self.used = marks;
            self.certificate.reload();
        }
    }
}

fn marks(files: &[PathBuf; 2]) -> Marks {
    files.each_ref().map(|file| {
        // Follows links: some replace a link to a whole folder.
        let it = fs::metadata(file).ok()?;
        Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn config() -> Result<ServerConfig, String> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        crate::net::tls::server_config(&cert, &key, &[]).map_err(|it| it.to_string())
    }

    #[test]
    fn files_are_read_again_once_they_have_changed_and_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["cert", "key"].map(|it| dir.path().join(it));
        files.iter().for_each(|it| fs::write(it, "one").unwrap());
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let build: Build = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            config()
        });
        let certificate = Arc::new(Certificate::load(files.clone(), build).unwrap());
        let first = certificate.current().load_full();
        let mut watched = Watched::new(Arc::clone(&certificate));
        let mut look = || {
            watched.look();
            reads.load(Ordering::SeqCst)
        };
        assert_eq!([look(), look()], [1, 1]);
        fs::write(&files[0], "two, longer").unwrap();
        assert_eq!(look(), 1, "the key may be about to follow");
        fs::write(&files[1], "two, longer still").unwrap();
        assert_eq!([look(), look(), look()], [1, 2, 2]);
        assert!(!Arc::ptr_eq(&first, &certificate.current().load_full()));
        fs::remove_file(&files[1]).unwrap();
        assert_eq!([look(), look()], [2, 2], "nothing is read while a file is away");
        fs::write(&files[1], "three").unwrap();
        assert_eq!([look(), look()], [2, 3]);
    }

    #[test]
    fn a_bad_pair_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["cert", "key"].map(|it| dir.path().join(it));
        let turn = AtomicUsize::new(0);
        let build: Build = Box::new(move || match turn.fetch_add(1, Ordering::SeqCst) {
            0 => config(),
            _ => Err("no PEM".to_owned()),
        });
        let certificate = Certificate::load(files, build).unwrap();
        let before = certificate.current().load_full();
        certificate.reload();
        assert!(Arc::ptr_eq(&before, &certificate.current().load_full()));
    }
}
