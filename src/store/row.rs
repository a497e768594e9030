//! What is stored: rows, and the purges that select them.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::Wall;

/// The 16-byte cryptographic digest of a cache key. The store never sees the key itself.
pub type Digest = [u8; 16];

/// One stored response. Cheap to clone: everything long is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Names the row; a put replaces the row of the same digest.
    pub digest: Digest,
    /// What path and prefix purges select by: the caller's normalised spelling, compared byte for
    /// byte. Several rows (variants, credentials) may share it.
    pub path: Arc<str>,
    /// Opaque to the store; the caller puts its own format version in it.
    pub meta: Bytes,
    /// Opaque to the store.
    pub body: Bytes,
    /// When the caller stored it; not interpreted.
    pub stored_at: Wall,
    /// A sweep at or after this instant removes the row; [`Wall::FOREVER`] keeps it.
    /// A look-up still finds a row that has passed it and was not swept yet.
    pub keep_until: Wall,
    /// When a purge expired the row: it must be validated before it is used again. Ignored in a
    /// put, which stores a row that is not expired.
    pub expired_at: Option<Wall>,
}

impl Row {
    /// A row of this size that nobody asks for, and that the next sweep removes.
    pub(crate) fn probe(bytes: usize) -> Self {
        Self {
            digest: *b"apiproxyd probe\0",
            path: "".into(),
            meta: Bytes::new(),
            body: vec![0; bytes].into(),
            stored_at: Wall::EPOCH,
            keep_until: Wall::EPOCH,
            expired_at: None,
        }
    }

    /// Bytes that the row's content takes, without any overhead.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let size = self.digest.len() + self.path.len() + self.meta.len() + self.body.len();
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    /// CRC-32 of all that a look-up returns unchanged, each part with its length.
    ///
    /// Neither SQLite nor a damaged disk is trusted to return whole what was written: a torn or
    /// mixed row is a miss.
    pub(crate) fn checksum(&self) -> u32 {
        checksum(&self.digest, self.path.as_bytes(), &self.meta, &self.body)
    }
}

/// [`Row::checksum`] of parts that are not a row yet.
pub(crate) fn checksum(digest: &Digest, path: &[u8], meta: &[u8], body: &[u8]) -> u32 {
    let mut crc = libdeflater::Crc::new();
    crc.update(digest);
    for part in [path, meta, body] {
        crc.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        crc.update(part);
    }
    crc.sum()
}

/// Which rows a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every row.
    All,
    /// Rows whose path is this one, byte for byte.
    Path(Arc<str>),
    /// Rows whose path starts with this text, byte for byte.
    Prefix(Arc<str>),
    /// Rows of these digests.
    Digests(Arc<[Digest]>),
    /// Rows that one of these selects: one order, where several would be as many commits.
    AnyOf(Arc<[Selection]>),
}

impl Selection {
    /// Whether it selects a row. Costs one comparison, or one for each listed digest.
    #[must_use]
    pub fn selects(&self, digest: &Digest, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Path(it) => **it == *path,
            Self::Prefix(it) => path.starts_with(&**it),
            Self::Digests(it) => it.contains(digest),
            Self::AnyOf(parts) => parts.iter().any(|it| it.selects(digest, path)),
        }
    }

    /// Whether it selects every row there can be.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => prefix.is_empty(),
            Self::AnyOf(parts) => parts.iter().any(Self::is_everything),
            Self::Path(_) | Self::Digests(_) => false,
        }
    }
}

/// What a purge does to the rows it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Removes them.
    Remove,
    /// Sets their [`Row::expired_at`].
    Expire,
}

/// An order to remove or expire rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Which rows.
    pub selection: Selection,
    /// What happens to them.
    pub effect: Effect,
}

impl Purge {
    /// The purge that empties the store.
    pub const CLEAR: Self = Self { selection: Selection::All, effect: Effect::Remove };

    /// Whether this purge selects a row; see [`Selection::selects`].
    #[must_use]
    pub fn selects(&self, digest: &Digest, path: &str) -> bool {
        self.selection.selects(digest, path)
    }
}

/// The smallest byte string above every string that starts with `prefix`; none if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        for (prefix, end) in [
            (&b"/a"[..], Some(&b"/b"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn checksum_tells_where_one_part_ends() {
        let digest = [7; 16];
        let split = checksum(&digest, b"/p", b"ab", b"c");
        assert_ne!(split, checksum(&digest, b"/p", b"a", b"bc"));
        assert_ne!(split, checksum(&[8; 16], b"/p", b"ab", b"c"));
        assert_eq!(split, checksum(&digest, b"/p", b"ab", b"c"));
    }

    #[test]
    fn everything_has_several_names() {
        for (selection, everything) in [
            (Selection::All, true),
            (Selection::Prefix("".into()), true),
            (Selection::Prefix("/".into()), false),
            (Selection::AnyOf([Selection::Path("".into()), Selection::All].into()), true),
            (Selection::AnyOf([Selection::Path("".into())].into()), false),
        ] {
            assert_eq!(selection.is_everything(), everything, "{selection:?}");
        }
    }

    #[test]
    fn selection_compares_bytes() {
        let purge = |selection| Purge { selection, effect: Effect::Remove };
        let digest = [1; 16];
        for (selection, path, selected) in [
            (Selection::All, "/x", true),
            (Selection::Path("/x".into()), "/x", true),
            (Selection::Path("/x".into()), "/x?a", false),
            (Selection::Prefix("/x".into()), "/x?a", true),
            (Selection::Prefix("/x".into()), "/X", false),
            (Selection::Digests([digest].into()), "/any", true),
            (Selection::Digests([[2; 16]].into()), "/any", false),
            (Selection::AnyOf([Selection::Path("/x".into())].into()), "/x", true),
            (Selection::AnyOf([Selection::Path("/x".into())].into()), "/y", false),
            (Selection::AnyOf([].into()), "/x", false),
        ] {
            assert_eq!(purge(selection.clone()).selects(&digest, path), selected, "{selection:?}");
        }
    }
}
