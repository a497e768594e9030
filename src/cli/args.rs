//! What may stand on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::row::Shape;
use crate::config::{Backend, Driver, LogLevel, Node, Override, rows};

/// A caching API proxy: answers from memory and disk for an HTTP API that is slow, metered or
/// fragile.
///
/// Serves /api/* from the upstream (the prefix is stripped), and /health, /cache/stats,
/// POST /cache/clear and /metrics of its own. Without a command it does what `run` does.
#[derive(Debug, Parser)]
#[command(
    name = "apiproxyd",
    bin_name = "apiproxyd",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = SHORT_HELP,
    after_long_help = LONG_HELP
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) choices: Choices,
}

const SHORT_HELP: &str = "\
Try it:  apiproxyd demo
More:    apiproxyd --help (examples, files, environment, exit codes)";

const LONG_HELP: &str = "\
Examples:
  apiproxyd demo
      An example API and the proxy in front of it, with calls to try.
  apiproxyd --entry-point https://api.example.com
      Caches that API on http://127.0.0.1:9002/api/...
  apiproxyd run --entry-point http://127.0.0.1:8000 --allow-private-upstream
      The same for an API on this machine or network.
  apiproxyd config init my.json && apiproxyd check --config my.json
      Writes a file with every field and its default, then checks it.
  apiproxyd run --config my.json --set cache.ttl=60
      One field otherwise than in the file.

Configuration, strongest first:
  command line, environment (secrets), file, defaults.
  File: --config, else $APIPROXYD_CONFIG, else ~/.apiproxy/config.json if it exists.
  `apiproxyd config fields` explains every field.

Environment:
  APIPROXYD_CONFIG                                    the file
  APIPROXYD_API_KEY                                   api_key
  APIPROXYD_ADMIN_TOKEN                               security.admin_token
  APIPROXYD_METRICS_AUTH_TOKEN                        security.metrics_auth_token
  APIPROXYD_CLIENT_API_KEYS                           security.client_api_keys, with commas
  APIPROXYD_POSTGRES_DSN                              cache.postgres_dsn
  Each of these fields has a *_file sibling that names a file to read it from.

Exit codes:
  0 success, 64 wrong arguments or configuration, 70 failure to start or run";

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve until SIGTERM or SIGINT (the default command).
    Run(Choices),
    /// Check a configuration: every fault with its place and what to write instead.
    ///
    /// Exits with 0 and one line that begins with "ok", or with 64 and one line for each fault.
    Check(Choices),
    /// Write, show or explain configurations.
    #[command(subcommand, arg_required_else_help = false)]
    Config(ConfigCommand),
    /// Ask the running daemon what it would do with a request, and why.
    ///
    /// Prints the canonical key, what is stored under it and where, its age and lifetime, and the
    /// decision. Reads the configuration to find the daemon; the upstream is not contacted.
    Explain {
        /// Path and query, with or without the API prefix, such as "/v1/items?page=2".
        target: String,
        /// The method.
        #[arg(long, short = 'X', default_value = "GET")]
        method: String,
        /// A request field, such as "Accept-Language: en"; may be repeated.
        #[arg(long, short = 'H', value_name = "NAME: VALUE")]
        header: Vec<String>,
        /// The request's body, for methods that are cached by it.
        #[arg(long, default_value = "")]
        body: String,
        #[command(flatten)]
        choices: Choices,
    },
    /// Start an example API and the proxy in front of it, with calls to try.
    Demo {
        /// Port to listen on.
        #[arg(long, short, default_value_t = 9002)]
        port: u16,
    },
}

/// The commands below `config`.
// One of them exists, for the time of one function call.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Write a file with every field and its default; never overwrites.
    Init {
        /// Where; "-" for standard output [default: ~/.apiproxy/config.json].
        path: Option<PathBuf>,
    },
    /// Print every field's effective value and what decided it, secrets masked.
    Show {
        #[command(flatten)]
        choices: Choices,
        /// Print as a configuration file instead.
        #[arg(long)]
        json: bool,
    },
    /// Print a table of all fields: default, unit, range, meaning (Markdown).
    Fields,
}

/// Where the configuration comes from, and what is otherwise than there.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Choices {
    /// Configuration file (JSON).
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// URL of the upstream API, such as `https://api.example.com/v2`.
    #[arg(long, value_name = "URL")]
    entry_point: Option<String>,
    /// Allow upstreams on private and loopback addresses.
    #[arg(long)]
    allow_private_upstream: bool,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, 0 for any free one [default: 9002].
    #[arg(long, short)]
    port: Option<u16>,
    /// Cores that serve: auto, a number, or a list such as 0-3,6 [default: auto].
    #[arg(long)]
    cores: Option<String>,
    /// What waits for sockets [default: auto].
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Driver::WORDS))]
    driver: Option<String>,
    /// Second cache tier [default: sqlite].
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Backend::WORDS))]
    cache_backend: Option<String>,
    /// SQLite file [default: ~/.apiproxy/cache.db].
    #[arg(long, value_name = "FILE")]
    cache_path: Option<String>,
    /// File that holds the upstream's API key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<String>,
    /// File that holds the admin token.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// Least severe level that is logged [default: info].
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(LogLevel::WORDS))]
    log_level: Option<String>,
    /// Any other field, such as cache.ttl=60 or cache.methods=["GET"]; may be repeated.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl Choices {
    /// As values for [`config::parse`](crate::config::parse), later ones stronger.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let mut all = Vec::new();
        for (path, text) in &self.set {
            let node = assigned(path, text);
            all.push(Override { path: path.clone(), node, flag: format!("--set {path}") });
        }
        let texts = [
            ("entry_point", "--entry-point", &self.entry_point),
            ("server.host", "--host", &self.host),
            ("server.cores", "--cores", &self.cores),
            ("server.driver", "--driver", &self.driver),
            ("cache.backend", "--cache-backend", &self.cache_backend),
            ("cache.path", "--cache-path", &self.cache_path),
            ("api_key_file", "--api-key-file", &self.api_key_file),
            ("security.admin_token_file", "--admin-token-file", &self.admin_token_file),
            ("log.level", "--log-level", &self.log_level),
        ];
        for (path, flag, text) in texts {
            if let Some(text) = text {
                all.push(value(path, flag, Node::Text(text.clone())));
            }
        }
        if let Some(port) = self.port {
            all.push(value("server.port", "--port", Node::Whole(u64::from(port))));
        }
        if self.allow_private_upstream {
            let node = Node::Flag(false);
            all.push(value("security.block_private_ips", "--allow-private-upstream", node));
        }
        all
    }
}

fn value(path: &str, flag: &str, node: Node) -> Override {
    Override { path: path.to_owned(), node, flag: flag.to_owned() }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("write FIELD=VALUE, such as cache.ttl=60")?;
    Ok((path.trim().to_owned(), value.to_owned()))
}

/// JSON where it is JSON of the field's kind, else the text itself: no quotes are needed.
fn assigned(path: &str, text: &str) -> Node {
    let plain = Node::Text(text.to_owned());
    let Ok(node) = Node::parse(text) else { return plain };
    let shape = rows().find(|row| row.path == path).map(|row| row.shape);
    let is_text = matches!(
        shape,
        Some(Shape::Text | Shape::TextOrEmpty | Shape::Path | Shape::Choice(_) | Shape::Cores)
    );
    if is_text && !matches!(node, Node::Text(_)) { plain } else { node }
}

/// A usage error on one line, with clap's tip where it has one.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let joined = |it: &str| it.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = joined(paragraphs.next().unwrap_or_default());
    let what = first.strip_prefix("error: ").unwrap_or(&first);
    let tip = paragraphs.map(joined).find_map(|it| it.strip_prefix("tip: ").map(str::to_owned));
    match tip {
        Some(tip) => format!("{what}; {tip}"),
        None => format!("{what}; see `apiproxyd --help`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_names_a_field() {
        let line = "apiproxyd --entry-point u --allow-private-upstream --host h --port 1 --cores 1 \
                    --driver epoll --cache-backend none --cache-path p --api-key-file f \
                    --admin-token-file f --log-level warn --set cache.ttl=1";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let overrides = parsed.choices.overrides();
        assert_eq!(overrides.len(), 12);
        for item in overrides {
            assert!(rows().any(|row| row.path == item.path), "{}", item.path);
        }
    }

    #[test]
    fn an_assigned_value_needs_no_quotes() {
        assert_eq!(assigned("cache.ttl", "60"), Node::Whole(60));
        assert_eq!(assigned("cache.path", "60"), Node::Text("60".into()));
        assert_eq!(assigned("server.cores", "2"), Node::Text("2".into()));
        assert_eq!(assigned("cache.path", "/x y"), Node::Text("/x y".into()));
        assert_eq!(assigned("server.host", "\"::1\""), Node::Text("::1".into()));
        assert_eq!(assigned("cache.methods", "[]"), Node::List(Vec::new()));
    }

    #[test]
    fn a_usage_error_is_one_line() {
        for line in
            ["--prot 1", "--port x", "--port 70000", "frob", "--set x", "config", "--config"]
        {
            let words = std::iter::once("apiproxyd").chain(line.split_whitespace());
            let error = Arguments::try_parse_from(words).unwrap_err();
            let text = one_line(&error);
            assert!(!text.contains('\n') && !text.is_empty(), "{line}: {text}");
        }
    }

    #[test]
    fn every_secrets_variable_is_in_the_help() {
        for variable in rows().filter_map(crate::config::Row::environment) {
            assert!(LONG_HELP.contains(&variable), "{variable}");
        }
    }
}
