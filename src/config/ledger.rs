//! Section `[ledger]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::Section;
use super::settings::{DAY, SECOND};
use crate::ledger::{LedgerAddress, LedgerOptions};
use crate::store::CaBundle;

/// `None`: there is none, or what is there can't be used and is reported.
pub(super) fn read(section: Section<'_>) -> Option<LedgerOptions> {
    let url = section.string("url");
    let address = url.as_deref().and_then(|url| {
        LedgerAddress::parse(url)
            .inspect_err(|error| section.complain("url", &format!("`url` {error}")))
            .ok()
    });
    let password_file = section.string("password_file").map(PathBuf::from);
    let ca_bundle = section.string("ca_bundle").map(PathBuf::from);
    if let Some(path) = &ca_bundle {
        check(&section, path);
    }
    let name = section.string("name");
    if name
        .as_deref()
        .is_some_and(|name| name.is_empty() || name.contains(char::is_control))
    {
        section.complain("name", "`name` must be a name for this mover, such as \"mover1\"");
    }
    let lease = section.duration("lease", SECOND..=3600 * SECOND).unwrap_or(20 * SECOND);
    let takeover_archives = section
        .duration("takeover_archives", Duration::ZERO..=DAY)
        .unwrap_or(300 * SECOND);
    let copies = section.bool("copies").unwrap_or(true);
    if url.is_none() {
        // The others have defaults, which may be written without one.
        let of_no_use = [
            ("password_file", password_file.is_some()),
            ("ca_bundle", ca_bundle.is_some()),
            ("name", name.is_some()),
        ];
        for (key, _) in of_no_use.into_iter().filter(|(_, is_there)| *is_there) {
            section.complain(key, &format!("`{key}` has no meaning without `url`"));
        }
    }
    section.finish();
    Some(LedgerOptions {
        address: address?,
        password_file,
        ca_bundle,
        name,
        lease,
        takeover_archives,
        copies,
    })
}

fn check(section: &Section<'_>, path: &Path) {
    if let Err(error) = CaBundle::read(path) {
        section.complain("ca_bundle", &error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::parse;

    const MINIMAL: &str = "[lustre]\nmount = '/mnt/lustre'\n[[archive]]\nid = 1\nbucket = 'lab'\n[ledger]\n";

    fn problems(more: &str) -> Vec<String> {
        match parse(&format!("{MINIMAL}{more}"), None) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|problem| format!("{}: {}", problem.line.unwrap_or(0), problem.what))
                .collect(),
        }
    }

    #[test]
    fn a_ledger_has_its_url_and_usual_times() {
        let settings = parse(
            &format!("{MINIMAL}url = 'postgresql://lhsm@db1/lhsm'\nlease = '2s'\n"),
            None,
        )
        .unwrap();
        let ledger = settings.ledger.unwrap();
        assert_eq!(
            (ledger.lease, ledger.takeover_archives, ledger.copies),
            (Duration::from_secs(2), Duration::from_secs(300), true)
        );
        assert_eq!(parse(MINIMAL, None).unwrap().ledger, None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_key() {
        for (text, line, said) in [
            (
                "url = 'postgresql://lhsm:x@db1/lhsm'",
                7,
                "`url` must not have the password in it",
            ),
            ("url = 'postgresql://lhsm@db1/lhsm?sslmode=prefer'", 7, "sslmode=prefer"),
            (
                "password_file = '/x'",
                7,
                "`password_file` has no meaning without `url`",
            ),
            ("lease = '20ms'", 7, "lease = '20ms' in [ledger]"),
            ("ur = 'x'", 7, "did you mean 'url'?"),
            (
                "url = 'postgresql://lhsm@db1/lhsm'\nca_bundle = '/nonexistent/ca.pem'",
                8,
                "can't read '/nonexistent/ca.pem'",
            ),
        ] {
            let found = problems(text);
            assert!(
                found
                    .iter()
                    .any(|problem| problem.starts_with(&format!("{line}: ")) && problem.contains(said)),
                "{text}: {found:?}"
            );
        }
    }
}
