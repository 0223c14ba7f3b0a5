//! The tables of docs/stores.md: from what runs of the tests in `tests/stores/` found, and of dialects, which the run of
//! all verbs over them makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

const PAGE: &str = "docs/stores.md";
const BEGIN: &str = "<!-- made by cargo xtask stores-table -->\n";
const END: &str = "<!-- end -->\n";

/// Replaces the page's table by one of these reports.
pub(super) fn write(root: &Path, reports: &[String]) -> ExitCode {
    match made(root, reports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of the run over all dialects: `--write` names the page.
pub(super) fn of_dialects(root: &Path, arguments: Vec<String>) -> Vec<String> {
    let passed = arguments.into_iter().filter(|argument| argument != "--dialects");
    passed
        .flat_map(|argument| match argument.as_str() {
            "--write" => vec!["--page".to_owned(), root.join(PAGE).display().to_string()],
            _ => vec![argument],
        })
        .collect()
}

fn made(root: &Path, reports: &[String]) -> Result<(), String> {
    if reports.is_empty() {
        return Err(
            "usage: cargo xtask stores-table REPORT… (what LHSM_STORES_REPORT=REPORT cargo test --test stores wrote)"
                .into(),
        );
    }
    let mut text = String::new();
    for report in reports {
        text += &std::fs::read_to_string(report).map_err(|error| format!("'{report}': {error}"))?;
    }
    let date = Command::new("date")
        .arg("-I")
        .output()
        .map_err(|error| format!("date: {error}"))?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let path = root.join(PAGE);
    let page = std::fs::read_to_string(&path).map_err(|error| format!("'{PAGE}': {error}"))?;
    let page =
        replaced(&page, &format!("On {date}:\n\n{}", table(&text)?)).ok_or(format!("{PAGE} has no place for it"))?;
    std::fs::write(&path, page).map_err(|error| format!("'{PAGE}': {error}"))
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// A line for each row, a column for each store in the order in which they came.
fn table(reports: &str) -> Result<String, String> {
    let (mut stores, mut rows) = (Vec::new(), Vec::new());
    let mut cells = BTreeMap::new();
    let mut then = BTreeMap::new();
    for line in reports.lines() {
        let [store, row, finding, what] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("not a line of a report: '{line}'"));
        };
        for (all, name) in [(&mut stores, store), (&mut rows, row)] {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        cells.insert((row, store), finding);
        if !what.is_empty() {
            then.insert(row, what);
        }
    }
    // Tests end in another order each time.
    rows.sort_unstable();
    let mut table = format!(
        "| | {} | where not |\n|---|{}---|\n",
        stores.join(" | "),
        "---|".repeat(stores.len())
    );
    for row in rows {
        let found = stores
            .iter()
            .map(|store| *cells.get(&(row, *store)).unwrap_or(&"not tried"));
        let found: Vec<_> = found.collect();
        let what = then.get(row).copied().unwrap_or_default();
        table += &format!("| {row} | {} | {what} |\n", found.join(" | "));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_is_said_and_a_lack_has_its_remedy() {
        let reports = "one\tput\tyes\t\none\tcopy\tyes\t\ntwo\tput\tyes\t\ntwo\ttls\t**no**\tplain HTTP\n";
        assert_eq!(
            table(reports).unwrap(),
            "| | one | two | where not |\n|---|---|---|---|\n| copy | yes | not tried |  |\n| put | yes | yes |  |\n\
             | tls | not tried | **no** | plain HTTP |\n"
        );
        assert!(table("put yes").is_err());
    }

    #[test]
    fn the_run_over_dialects_is_told_the_page_only_where_it_is_to_be_written() {
        let arguments = |given: &[&str]| {
            let given = given.iter().map(|&argument| argument.to_owned()).collect();
            of_dialects(Path::new("/root"), given)
        };
        assert_eq!(arguments(&["--dialects", "--json"]), ["--json"]);
        assert_eq!(
            arguments(&["--write", "--dialects"]),
            ["--page", "/root/docs/stores.md"]
        );
    }

    #[test]
    fn only_the_table_of_a_page_is_replaced() {
        let page = format!("head\n{BEGIN}old{END}tail");
        assert_eq!(
            replaced(&page, "new\n").unwrap(),
            format!("head\n{BEGIN}new\n{END}tail")
        );
        assert_eq!(replaced("head", "new"), None);
    }
}
