//! How a ledger is reached: a URL as PostgreSQL's own tools take it, less what would weaken it in silence.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// For a connection, of each address.
const CONNECT: Duration = Duration::from_secs(5);
/// For bytes that nobody acknowledges, and before one that is silent is asked whether it is there.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Where the ledger is, and what goes for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerOptions {
    /// Where, without a password.
    pub address: LedgerAddress,
    /// Whose first line is the password; `None`: PostgreSQL asks for none.
    pub password_file: Option<PathBuf>,
    /// Certificates that are trusted instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// This mover's name; `None`: its node's and its mount point.
    pub name: Option<String>,
    /// A mover whose row is not renewed for so long may be dead.
    pub lease: Duration,
    /// From then on its archives and removes are taken over.
    pub takeover_archives: Duration,
    /// Whether it holds where copies are whose object can't be told from the FID.
    pub copies: bool,
}

/// A server, or several of which one takes changes, and a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerAddress {
    pub(super) config: Config,
    /// For people.
    pub(super) place: String,
}

impl LedgerAddress {
    /// From `postgresql://USER@HOST:PORT/DATABASE?sslmode=…`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(url: &str) -> Result<Self, String> {
        if !["postgresql://", "postgres://"]
            .iter()
            .any(|start| url.starts_with(start))
        {
            return Err("must begin with postgresql://".into());
        }
        let (rest, mode) = take_sslmode(url);
        let mut config: Config = rest.parse().map_err(|error| super::error::words(&error))?;
        if config.get_password().is_some() {
            return Err("must not have the password in it: write that to a file of its own, `password_file`".into());
        }
        let Some(database) = config.get_dbname().map(str::to_owned) else {
            return Err("names no database: postgresql://USER@HOST/DATABASE".into());
        };
        if config.get_user().is_none() {
            return Err("names no user: postgresql://USER@HOST/DATABASE".into());
        }
        if config.get_hosts().is_empty() {
            return Err("names no host: postgresql://USER@HOST/DATABASE".into());
        }
        let is_here = config.get_hosts().iter().all(is_this_node);
        config.ssl_mode(match mode.as_deref() {
            Some("disable") => SslMode::Disable,
            None if is_here => SslMode::Disable,
            // A certificate that nobody looks at keeps nobody out: both are looked at.
            None | Some("require" | "verify-full") => SslMode::Require,
            Some(other) => {
                return Err(format!(
                    "has sslmode={other}: \"verify-full\" (as without it; the certificate is verified with \"require\", \
                     too) or \"disable\""
                ));
            }
        });
        config
            .application_name("lhsmtool-s3")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .keepalives_idle(UNACKNOWLEDGED)
            // A standby takes no changes; of several servers the one that does is the ledger.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        let place = place(&config, &database);
        Ok(Self { config, place })
    }

    /// Host, port and database.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn has_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }
}

/// The URL without its `sslmode`, of which the client knows only some.
fn take_sslmode(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let mut mode = None;
    let rest: Vec<_> = query
        .split('&')
        .filter(|pair| match pair.strip_prefix("sslmode=") {
            Some(found) => {
                mode = Some(found.to_owned());
                false
            }
            None => true,
        })
        .collect();
    if rest.is_empty() {
        return (base.to_owned(), mode);
    }
    (format!("{base}?{}", rest.join("&")), mode)
}

fn is_this_node(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        Host::Unix(_) => true,
    }
}

fn place(config: &Config, database: &str) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| {
        let port = ports.get(n).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> LedgerAddress {
        LedgerAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn tls_is_the_rule_except_on_this_node_and_where_it_is_said() {
        let far = "postgresql://lhsm@db1.example.org/lhsm";
        assert!(parsed(far).has_tls());
        assert!(parsed(&format!("{far}?sslmode=require")).has_tls());
        assert!(parsed(&format!("{far}?sslmode=verify-full&connect_timeout=3")).has_tls());
        assert!(!parsed(&format!("{far}?sslmode=disable")).has_tls());
        assert!(!parsed("postgresql://lhsm@127.0.0.1:5433/lhsm").has_tls());
        assert!(!parsed("postgresql://lhsm@%2Frun%2Fpostgresql/lhsm").has_tls());
        assert!(parsed("postgresql://lhsm@127.0.0.1,db2/lhsm").has_tls());
    }

    #[test]
    fn several_servers_are_one_place() {
        let address = parsed("postgresql://lhsm@db1:5433,db2:5434/lhsm");
        assert_eq!(address.place, "db1:5433,db2:5434/lhsm");
        assert_eq!(address.config.get_hosts().len(), 2);
    }

    #[test]
    fn what_can_not_be_or_would_be_weak_is_refused_in_words() {
        for (url, said) in [
            ("mysql://a@b/c", "postgresql://"),
            ("host=a dbname=b", "postgresql://"),
            ("postgresql://lhsm:secret@db1/lhsm", "password_file"),
            ("postgresql://lhsm@db1", "database"),
            ("postgresql://db1/lhsm", "user"),
            ("postgresql:///lhsm?user=lhsm", "host"),
            ("postgresql://lhsm@db1/lhsm?sslmode=prefer", "verify-full"),
            ("postgresql://lhsm@db1/lhsm?nonsense=1", "nonsense"),
        ] {
            let error = LedgerAddress::parse(url).unwrap_err();
            assert!(error.contains(said), "{url}: {error}");
        }
    }
}
