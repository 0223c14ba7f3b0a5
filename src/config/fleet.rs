//! Section `[fleet]`.

use std::time::Duration;

use super::document::Section;
use super::settings::{SECOND, is_host_and_port};
use crate::ledger::FenceOptions;

/// For a fence command, unless it is said.
const FENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// What it says.
#[derive(Debug, Default)]
pub(super) struct FleetSettings {
    /// Where movers serve their metrics; `None`: it does not say.
    pub(super) movers: Option<Vec<String>>,
    /// This node's NIDs; `None`: those that LNet tells.
    pub(super) nids: Option<Vec<String>>,
    pub(super) fence: Option<FenceOptions>,
}

pub(super) fn read(section: Section<'_>, has_ledger: bool) -> FleetSettings {
    let movers = section.strings("movers");
    if let Some(bad) = movers.iter().flatten().find(|mover| !is_host_and_port(mover)) {
        section.complain(
            "movers",
            &format!("\"{bad}\" must be a host and a port, such as \"mover1:9818\""),
        );
    }
    let nids = section.strings("nids");
    if let Some(bad) = nids.iter().flatten().find(|nid| !is_nid(nid)) {
        section.complain(
            "nids",
            &format!("\"{bad}\" must be a NID as lctl list_nids shows it, such as \"10.0.0.7@tcp\""),
        );
    }
    let command = section.string("fence");
    let timeout = section.duration("fence_timeout", SECOND..=3600 * SECOND);
    if command.as_deref().is_some_and(|command| command.trim().is_empty()) {
        section.complain(
            "fence",
            "`fence` must be a command for sh; leave it out to fence nothing",
        );
    } else if command.is_some() && !has_ledger {
        section.complain(
            "fence",
            "`fence` has no meaning without `url` in section [ledger], by which movers find out who is dead",
        );
    }
    section.finish();
    FleetSettings {
        movers,
        nids,
        fence: command.map(|command| FenceOptions {
            command,
            timeout: timeout.unwrap_or(FENCE_TIMEOUT),
        }),
    }
}

fn is_nid(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    text.split_once('@')
        .is_some_and(|(address, network)| is_word(address) && is_word(network))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::parse;

    const MINIMAL: &str = "[lustre]\nmount = '/mnt/lustre'\n[[archive]]\nid = 1\nbucket = 'lab'\n[fleet]\n";
    const LEDGER: &str = "[ledger]\nurl = 'postgresql://lhsm@db1/lhsm'\n";

    #[test]
    fn a_fence_is_a_command_with_a_time_and_there_is_none_by_default() {
        assert_eq!(parse(MINIMAL, None).unwrap().fence, None);
        let text = format!("{MINIMAL}fence = '/etc/lhsmtool-s3/fence --now'\nnids = ['10.0.0.7@tcp']\n{LEDGER}");
        let settings = parse(&text, None).unwrap();
        let fence = settings.fence.unwrap();
        assert_eq!(
            (fence.command.as_str(), fence.timeout),
            ("/etc/lhsmtool-s3/fence --now", Duration::from_secs(60))
        );
        assert_eq!(settings.nids, Some(vec!["10.0.0.7@tcp".to_owned()]));
    }

    #[test]
    fn what_can_not_be_is_said_with_its_line() {
        for (text, said) in [
            (
                "fence = 'true'\n".to_owned(),
                "7: [fleet]: `fence` has no meaning without `url`",
            ),
            (
                format!("fence = ' '\n{LEDGER}"),
                "7: [fleet]: `fence` must be a command",
            ),
            ("fence_timeout = '20ms'\n".to_owned(), "7: fence_timeout = '20ms'"),
            (
                "nids = ['10.0.0.7']\n".to_owned(),
                "7: [fleet]: \"10.0.0.7\" must be a NID",
            ),
        ] {
            let problems = parse(&format!("{MINIMAL}{text}"), None).unwrap_err();
            let first = &problems[0];
            let found = format!("{}: {}", first.line.unwrap_or(0), first.what);
            assert!(found.starts_with(said), "{text}: {found}");
        }
    }
}
