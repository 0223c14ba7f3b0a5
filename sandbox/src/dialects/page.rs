//! The table of dialects on a page of the documentation.

use std::io;
use std::path::Path;

use lhsm_sandbox_s3::Dialect;

use crate::table::{Row, expected};
use crate::verbs::Verb;

const BEGIN: &str = "<!-- made by cargo xtask stores --dialects --write -->\n";
const END: &str = "<!-- end of the dialects -->\n";

/// Puts the table in the place of the one that is there.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    let page = std::fs::read_to_string(path)?;
    let new = replaced(&page).ok_or_else(|| {
        io::Error::other(format!(
            "'{}' has no place for the table: a line {}and a line {}",
            path.display(),
            BEGIN,
            END
        ))
    })?;
    if new == page {
        return Ok(());
    }
    std::fs::write(path, new)
}

fn replaced(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", table()))
}

fn table() -> String {
    let mut table = String::from("| dialect | what the store does | what happens |\n|---|---|---|\n");
    for &dialect in Dialect::ALL {
        let row = expected(dialect);
        table += &format!(
            "| `{}` | {} | {} {} |\n",
            dialect.name(),
            dialect.about(),
            verdict(&row),
            row.note
        );
    }
    table
}

/// Which verbs work.
fn verdict(row: &Row) -> String {
    let names = |told: bool| {
        let verbs = Verb::ALL.iter().filter(|verb| row.told.contains(verb) == told);
        verbs.map(|verb| verb.name()).collect::<Vec<_>>().join(", ")
    };
    if row.told.is_empty() {
        return "**Everything works.**".into();
    }
    if row.told.len() == Verb::ALL.len() {
        return "**Everything is refused.**".into();
    }
    if row.told == [Verb::Check] {
        return "**Everything works**, and `check` tells of it.".into();
    }
    format!("**Refused:** {}. **Works:** {}.", names(true), names(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stores.md");

    #[test]
    fn the_page_tells_of_each_dialect_what_the_table_says() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        for dialect in Dialect::ALL {
            assert!(page.contains(&format!("| `{}` |", dialect.name())), "{dialect:?}");
        }
        let new = replaced(&page).unwrap();
        assert!(
            new == page,
            "cargo xtask stores --dialects --write makes docs/stores.md anew"
        );
    }

    #[test]
    fn only_the_table_is_replaced() {
        let page = format!("head\n{BEGIN}old{END}tail");
        let new = replaced(&page).unwrap();
        assert!(new.starts_with("head\n") && new.ends_with(&format!("{END}tail")) && !new.contains("old"));
        assert_eq!(replaced("head"), None);
    }
}
