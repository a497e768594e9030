//! The layers of a configuration, and the reading of one field out of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::decode::{Decode, Scope, expanded};
use crate::config::fault::{Fault, Faults, Note, Place};
use crate::config::headers;
use crate::config::keys;
use crate::config::legacy;
use crate::config::nearest::nearest;
use crate::config::node::Node;
use crate::config::row::{Row, Shape};
use crate::config::settings::rows;

/// Where a configuration comes from. The closures keep this layer pure.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Text of the configuration file; `None` for none.
    pub text: Option<&'a str>,
    /// The environment variable of that name.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file (secrets and certificates), or why it can't be read.
    pub read_file: &'a dyn Fn(&Path) -> Result<String, String>,
    /// What `~` stands for.
    pub home: Option<&'a Path>,
    /// Values of the command line, later ones stronger.
    pub overrides: &'a [Override],
}

/// A value given on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Path of the field: `server.port`.
    pub path: String,
    /// The value.
    pub node: Node,
    /// What the operator wrote, for faults: `--port`.
    pub flag: String,
}

/// What decided a field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: the default.
    Default,
    /// The configuration file.
    File,
    /// The configuration file, under this older name.
    Older(String),
    /// This file, named by a `*_file` field.
    SecretFile(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This argument.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Older(name) => write!(f, "file, as {name}"),
            Self::SecretFile(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::CommandLine(flag) => f.write_str(flag),
        }
    }
}

/// The effective value of one field, secrets masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// JSON path.
    pub path: String,
    /// Value; `"***"` for a secret that is set.
    pub node: Node,
    /// What decided it.
    pub origin: Origin,
}

/// The layers below the defaults' level, laid over one another; consumed field by field.
pub(super) struct Reader<'a> {
    sources: Sources<'a>,
    /// By path. `null` never gets in.
    given: BTreeMap<String, Given>,
    /// Index that stands for `[]` in the paths of rows.
    index: Option<usize>,
    faults: Vec<Fault>,
    notes: Vec<Note>,
    shown: Vec<Shown>,
}

#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) node: Node,
    pub(super) origin: Origin,
}

impl<'a> Reader<'a> {
    /// Lays the layers over one another. Fails alone when the text is no JSON object.
    pub(super) fn open(sources: &Sources<'a>) -> Result<Self, Faults> {
        let mut reader = Self {
            sources: *sources,
            given: BTreeMap::new(),
            index: None,
            faults: Vec::new(),
            notes: Vec::new(),
            shown: Vec::new(),
        };
        if let Some(text) = sources.text {
            match Node::parse(text).map_err(Faults::one)? {
                Node::Object(members) => {
                    let older = reader.walk("", "", members);
                    legacy::map(older, &mut reader.given, &mut reader.notes);
                }
                other => {
                    let what = format!("expected an object, found {}", other.found());
                    return Err(Faults::one(Fault::at("(file)", what, "write {} around it")));
                }
            }
        }
        for item in sources.overrides {
            reader.lay_over(item);
        }
        Ok(reader)
    }

    /// Takes the members of one object in; returns the older names among them.
    fn walk(&mut self, at: &str, schema_at: &str, members: Vec<(String, Node)>) -> legacy::Older {
        let mut older = legacy::Older::new();
        let mut seen = BTreeMap::new();
        for (name, node) in members {
            let (path, schema) = (format!("{at}{name}"), format!("{schema_at}{name}"));
            if seen.insert(name.clone(), ()).is_some() {
                self.note(&path, "given more than once; the last one counts");
                self.forget(&path);
            }
            if node == Node::Null || name.starts_with('_') || name == "$schema" {
                continue;
            }
            if schema == "routes" {
                self.walk_routes(node);
            } else if let Some(row) = rows().find(|row| row.path == schema) {
                debug_assert!(row.shape != Shape::Objects);
                self.given.insert(path, Given { node, origin: Origin::File });
            } else if rows().any(|row| row.group() == schema) {
                self.walk_group(&path, &schema, node);
            } else if schema_at.is_empty() && legacy::is_older(&name) {
                older.insert(name, node);
            } else {
                self.unknown(&path, schema_at, &name);
            }
        }
        older
    }

    fn walk_group(&mut self, path: &str, schema: &str, node: Node) {
        if let Node::Object(members) = node {
            self.walk(&format!("{path}."), &format!("{schema}."), members);
        } else {
            let what = format!("expected an object, found {}", node.found());
            self.fault(path, what, format!("write {path}: {{\"name\": value, ...}}"));
        }
    }

    fn walk_routes(&mut self, node: Node) {
        let Node::List(items) = node else {
            let what = format!("expected a list of objects, found {}", node.found());
            let remedy = "write [{\"prefix\": \"/v1\", \"entry_point\": \"https://...\"}]";
            return self.fault("routes", what, remedy);
        };
        self.given.insert("routes".to_owned(), Given { node: count(&items), origin: Origin::File });
        for (index, item) in items.into_iter().enumerate() {
            if let Node::Object(members) = item {
                self.walk(&format!("routes[{index}]."), "routes[].", members);
            } else {
                let what = format!("expected an object, found {}", item.found());
                self.fault(&format!("routes[{index}]"), what, "write {\"prefix\": \"/v1\", ...}");
            }
        }
    }

    /// Drops what an earlier member of the same name brought.
    fn forget(&mut self, path: &str) {
        self.given.retain(|it, _| {
            let rest = it.strip_prefix(path);
            !rest.is_some_and(|it| it.is_empty() || it.starts_with(['.', '[']))
        });
    }

    fn unknown(&mut self, path: &str, schema_at: &str, name: &str) {
        let siblings = rows().filter_map(|row| row.path.strip_prefix(schema_at));
        let siblings = siblings.map(|it| it.split('.').next().unwrap_or(it));
        let prefix = path.strip_suffix(name).unwrap_or_default();
        let elsewhere = || rows().find(|row| row.name() == name).map(|row| row.path.to_owned());
        let meant = nearest(name, siblings).map(|it| format!("{prefix}{it}")).or_else(elsewhere);
        let text = match meant {
            Some(meant) => format!("unknown field, ignored; did you mean `{meant}`?"),
            None => "unknown field, ignored".to_owned(),
        };
        self.note(path, &text);
    }

    fn lay_over(&mut self, item: &Override) {
        let Some(row) = rows().find(|row| row.path == item.path) else {
            let known = nearest(&item.path, rows().map(|row| row.path));
            let remedy = match known {
                Some(known) => format!("did you mean {known}?"),
                None => "`apiproxyd config show` lists all fields".to_owned(),
            };
            return self.fault(&item.flag, "no such field", remedy);
        };
        if row.is_secret() {
            let variable = row.environment().unwrap_or_default();
            let remedy = format!("use {}_file or ${variable}", row.path);
            return self.fault(&item.flag, "a secret must not stand in the process list", remedy);
        }
        if row.shape == Shape::Objects || row.path.contains('[') {
            return self.fault(&item.flag, "a list of objects", "write it in the file");
        }
        if item.node == Node::Null {
            self.given.remove(&item.path);
            return;
        }
        let origin = Origin::CommandLine(item.flag.clone());
        self.given.insert(item.path.clone(), Given { node: item.node.clone(), origin });
    }

    /// Reads `each` once for every object of the list `row`.
    pub(super) fn each<T>(&mut self, row: &Row, each: fn(&mut Self) -> T) -> Vec<T> {
        let given = self.given.remove(row.path);
        let origin = given.as_ref().map_or(Origin::Default, |it| it.origin.clone());
        let count = match given.map(|it| it.node) {
            Some(Node::List(items)) => items.len(),
            _ => 0,
        };
        let place = self.shown.len();
        let list = (0..count)
            .map(|index| {
                self.index = Some(index);
                each(self)
            })
            .collect();
        self.index = None;
        if count == 0 {
            let node = Node::List(Vec::new());
            self.shown.insert(place, Shown { path: row.path.to_owned(), node, origin });
        }
        list
    }

    /// Reads one field. A fault is noted and the default returned, so that reading goes on.
    pub(super) fn read<T: Decode + Default>(&mut self, row: &Row) -> T {
        let path = self.path(row);
        let given = if row.is_secret() { self.secret(row, &path) } else { self.take(row, &path) };
        let scope = Scope { row, home: self.sources.home };
        let Some(Given { mut node, origin }) = given else {
            let node = row.preset.node();
            let value = T::decode(&node, &scope).unwrap_or_default();
            if row.preset.node() != Node::Null || self.index.is_none() {
                self.shown.push(Shown { path, node, origin: Origin::Default });
            }
            return value;
        };
        if row.shape == Shape::Headers {
            node = headers::merged(&row.preset.node(), node);
        }
        let value = match T::decode_all(&node, &scope) {
            Ok(value) => value,
            Err(wrongs) => {
                let place = given_at(&path, &origin);
                self.faults.extend(wrongs.into_iter().map(|wrong| Fault {
                    place: Place::Path(place.clone()),
                    what: wrong.what,
                    remedy: wrong.remedy,
                }));
                T::decode(&row.preset.node(), &scope).unwrap_or_default()
            }
        };
        let node = masked(row, node);
        self.shown.push(Shown { path, node, origin });
        value
    }

    /// Path with the index of the present object in it.
    fn path(&self, row: &Row) -> String {
        match self.index {
            Some(index) => row.path.replacen("[]", &format!("[{index}]"), 1),
            None => row.path.to_owned(),
        }
    }

    /// What is given; an empty text stands for the default where empty means nothing.
    fn take(&mut self, row: &Row, path: &str) -> Option<Given> {
        let given = self.given.remove(path)?;
        let empty = given.node == Node::Text(String::new());
        let names = matches!(
            row.shape,
            Shape::Text | Shape::Path | Shape::Choice(_) | Shape::Secret | Shape::Cores
        );
        (!(empty && names)).then_some(given)
    }

    /// A secret: from a file named on the command line, the environment, the configuration file
    /// or the file it names.
    fn secret(&mut self, row: &Row, path: &str) -> Option<Given> {
        let inline = self.take(row, path);
        let file_path = format!("{path}_file");
        let file = self.given.get(&file_path).filter(|it| it.node != Node::Text(String::new()));
        let file = file.cloned();
        let forced = matches!(&file, Some(it) if matches!(it.origin, Origin::CommandLine(_)));
        if forced {
            return self.secret_file(row, &file_path, file?);
        }
        let variable = row.environment();
        if let Some(name) = variable.filter(|_| self.index.is_none()) {
            let text = (self.sources.environment)(&name).filter(|it| !it.is_empty());
            if let Some(text) = text {
                let node = secret_node(row, &text, ',');
                return Some(Given { node, origin: Origin::Environment(name) });
            }
        }
        match (inline, file) {
            (Some(inline), Some(_)) => {
                self.fault(&file_path, format!("{path} is set too"), "keep one of the two");
                Some(inline)
            }
            (Some(inline), None) => Some(inline),
            (None, Some(file)) => self.secret_file(row, &file_path, file),
            (None, None) => None,
        }
    }

    fn secret_file(&mut self, row: &Row, file_path: &str, file: Given) -> Option<Given> {
        let Node::Text(name) = &file.node else {
            return None; // Reported when the `*_file` field itself is read.
        };
        let place = given_at(file_path, &file.origin);
        let name = expanded(name, self.sources.home);
        let remedy = "name a readable text file that holds the secret and nothing else";
        match (self.sources.read_file)(&name) {
            Err(why) => {
                // The name is not echoed: somebody may have put the secret itself there.
                self.fault(&place, format!("cannot read the file: {why}"), remedy);
                None
            }
            Ok(text) if text.trim().is_empty() => {
                self.fault(&place, "the file is empty", remedy);
                None
            }
            Ok(text) => {
                let node = secret_node(row, text.trim(), '\n');
                Some(Given { node, origin: Origin::SecretFile(name) })
            }
        }
    }

    pub(super) fn fault(&mut self, at: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault::at(at, what, remedy));
    }

    pub(super) fn note(&mut self, path: &str, text: &str) {
        self.notes.push(Note { path: path.to_owned(), text: text.to_owned() });
    }

    /// Whether the field at this path has no fault yet: cross checks stay silent otherwise.
    pub(super) fn is_sound(&self, path: &str) -> bool {
        let origin = self.shown.iter().find(|it| it.path == path).map(|it| &it.origin);
        let place = origin.map_or_else(|| path.to_owned(), |origin| given_at(path, origin));
        !self.faults.iter().any(|it| matches!(&it.place, Place::Path(at) if *at == place))
    }

    /// Where the operator wrote the value of this field.
    pub(super) fn written_at(&self, path: &str) -> String {
        let origin = self.shown.iter().find(|it| it.path == path).map(|it| &it.origin);
        origin.map_or_else(|| path.to_owned(), |origin| given_at(path, origin))
    }

    pub(super) fn close(self) -> (Vec<Fault>, Vec<Note>, Vec<Shown>) {
        debug_assert!(self.given.is_empty(), "fields that no group reads: {:?}", self.given.keys());
        (self.faults, self.notes, self.shown)
    }
}

/// What is shown of a value.
fn masked(row: &Row, node: Node) -> Node {
    let mask = || Node::Text("***".to_owned());
    match (row.shape, node) {
        (Shape::Secret, _) => mask(),
        (Shape::Keys, Node::List(items)) => Node::List(items.iter().map(|_| mask()).collect()),
        (Shape::Keys, _) => mask(),
        (_, node) => node,
    }
}

fn given_at(path: &str, origin: &Origin) -> String {
    match origin {
        Origin::Older(name) => name.clone(),
        Origin::Environment(name) => format!("${name}"),
        Origin::CommandLine(flag) => flag.clone(),
        Origin::SecretFile(_) => format!("{path}_file"),
        Origin::Default | Origin::File => path.to_owned(),
    }
}

fn secret_node(row: &Row, text: &str, gap: char) -> Node {
    if row.shape == Shape::Keys { keys::listed(text, gap) } else { Node::Text(text.to_owned()) }
}

/// A list of as many nothings: only the length of an object list is read.
fn count(items: &[Node]) -> Node {
    Node::List(vec![Node::Null; items.len()])
}
