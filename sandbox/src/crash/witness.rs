//! What is known of a file that something is wrong with: its record, the coordinator's actions, and the ledger's rows.

use std::fmt::Write as _;

use lhsm_sandbox::protocol::Fid;

use crate::world::World;

/// Of a file's actions, the last ones.
const ACTIONS: usize = 6;

impl World {
    /// Says on stderr what is wrong with a file, and what everybody knows of it.
    pub(crate) fn tell(&mut self, what: &str, fid: Fid) {
        let name = self.files.iter().find(|file| file.fid == fid);
        let name = name.map_or_else(
            || "no file of the run's".to_owned(),
            |file| file.path.display().to_string(),
        );
        let seconds = self.began.elapsed().as_secs_f64();
        let mut said = format!("{what}: {name} {fid}, {seconds:.1} s after the beginning\n");
        self.describe(&mut said, fid);
        eprint!("{said}");
    }

    fn describe(&mut self, said: &mut String, fid: Fid) {
        let record = match self.client.xattr(fid, "trusted.lhsm_s3") {
            Ok(record) => String::from_utf8_lossy(&record).into_owned(),
            Err(error) => format!("none ({error})"),
        };
        let state = match self.client.state(fid) {
            Ok(state) => format!("{:#x}", state.states),
            Err(error) => error.to_string(),
        };
        // Writing to a String does not fail.
        let _infallible = writeln!(said, "  state {state}; record: {record}");
        match self.client.actions() {
            Ok(actions) => {
                let mut of_file: Vec<_> = actions.iter().filter(|action| action.fid == fid).collect();
                for action in of_file.split_off(of_file.len().saturating_sub(ACTIONS)) {
                    let _infallible = writeln!(said, "  {action:?}");
                }
            }
            Err(error) => {
                let _infallible = writeln!(said, "  the coordinator does not say its actions: {error}");
            }
        }
        if let Some(ledger) = &self.ledger {
            for statement in [actions_of(fid), copies_of(fid)] {
                let rows = ledger.rows(&statement).unwrap_or_else(|error| vec![error.to_string()]);
                for row in rows {
                    let _infallible = writeln!(said, "  ledger: {row}");
                }
            }
        }
    }
}

/// As its rows have it: sequence, object, version, the most significant byte first.
fn key(fid: Fid) -> String {
    format!("'\\x{:016x}{:08x}{:08x}'::bytea", fid.seq, fid.oid, fid.ver)
}

fn actions_of(fid: Fid) -> String {
    format!(
        "SELECT 'action', 'cookie ' || to_hex(a.cookie), 'verb ' || coalesce(a.verb::text, '-'), \
         'of ' || coalesce(m.name, a.owner::text), 'state ' || coalesce(m.state::text, '-'), \
         'answered ' || a.answered, 'key ' || coalesce(a.object_key, '-'), 'writer ' || coalesce(a.writer, '-'), \
         'upload ' || coalesce(a.upload_id, '-') \
         FROM lhsmtool_s3.action a LEFT JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner WHERE a.fid = {}",
        key(fid)
    )
}

fn copies_of(fid: Fid) -> String {
    format!(
        "SELECT 'copy', stamp, convert_from(record, 'UTF8') FROM lhsmtool_s3.copy WHERE fid = {}",
        key(fid)
    )
}
