//! What came of a case.

use super::load::Told;
use super::site::number;

/// Of the files of a case only those that are removed may end without a copy.
const REMOVED: u64 = 2;
/// The scrub's kinds of findings.
const FINDINGS: [&str; 10] = [
    "missing",
    "changed",
    "unmapped",
    "unwatched",
    "found",
    "expiring",
    "noncurrent",
    "orphans",
    "uploads",
    "unknown",
];

#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Outcome {
    /// Actions that the node had when it happened.
    in_hand: u64,
    /// Readers whose files had to be restored, and those of them that got an error or nothing.
    reads: u32,
    failed_reads: u32,
    /// Seconds that a reader waited whose restore was under way when it happened, and of one that came after that.
    longest: f64,
    longest_late: f64,
    asked_again: u32,
    wrong: usize,
    lost: u64,
    orphans: u64,
    hung: usize,
    pub(super) taken_over: u64,
    pub(super) given_up: u64,
    problems: Vec<String>,
}

impl Outcome {
    pub(super) fn new(in_hand: u64, early: &Told, late: &Told) -> Self {
        let mut outcome = Self {
            in_hand,
            longest: early.longest,
            longest_late: late.longest,
            asked_again: early.asked_again + late.asked_again,
            ..Self::default()
        };
        for (who, told) in [("under way", early), ("asked for late", late)] {
            let failed = u32::try_from(told.unread.len()).unwrap_or(u32::MAX);
            let wrong = u32::try_from(told.wrong.len()).unwrap_or(u32::MAX);
            outcome.reads += told.read + failed + wrong;
            outcome.failed_reads += failed;
            outcome.read_by(who, told);
            outcome.left(told);
        }
        outcome
    }

    /// What somebody found in the files.
    pub(super) fn read_by(&mut self, who: &str, told: &Told) {
        self.wrong += told.wrong.len();
        for name in &told.wrong {
            self.problems.push(format!("{who}: {name} has wrong bytes"));
        }
        for read in &told.unread {
            self.problems.push(format!("{who}: {read}"));
        }
    }

    /// What was not over in time.
    pub(super) fn left(&mut self, told: &Told) {
        self.hung += told.left.len();
        self.problems.extend(told.left.iter().cloned());
    }

    /// So many actions did not end.
    pub(super) fn unended(&mut self, actions: usize) {
        self.hung += actions;
        if actions > 0 {
            self.problems.push(format!("{actions} actions do not end"));
        }
    }

    /// What a scrub said.
    pub(super) fn scrubbed(&mut self, when: &str, said: &str) {
        let count = |line: &str, key| number(line, key).unwrap_or_default();
        let Some(line) = said
            .lines()
            .find(|line| line.starts_with('{') && line.contains("\"good\":"))
        else {
            self.problems
                .push(format!("{when}: the scrub said '{}'", said.trim_end()));
            return;
        };
        let (files, without) = (count(line, "files"), count(line, "unarchived"));
        let findings: u64 = FINDINGS.iter().map(|kind| count(line, kind)).sum();
        self.orphans += count(line, "orphans");
        self.lost += count(line, "missing") + count(line, "changed") + count(line, "unmapped");
        if findings > 0 {
            let found: Vec<&str> = said.lines().filter(|other| *other != line).take(8).collect();
            self.problems.push(format!(
                "{when}: the scrub has {findings} findings: {line}; {}",
                found.join("; ")
            ));
        }
        // What a late write has done, and the next restore finds out.
        let known = findings + count(line, "mislaid");
        if without > REMOVED || count(line, "good") + without + known < files || files == 0 {
            self.problems
                .push(format!("{when}: not every file has its copy: {line}"));
        }
    }

    /// `None`: all is well.
    pub(super) fn problem(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    pub(super) fn json(&self, case: &str) -> String {
        let Self {
            in_hand,
            reads,
            failed_reads,
            longest,
            longest_late,
            asked_again,
            wrong,
            lost,
            orphans,
            hung,
            taken_over,
            given_up,
            problems,
        } = self;
        format!(
            "{{\"case\":\"{case}\",\"in_hand\":{in_hand},\"reads\":{reads},\"failed_reads\":{failed_reads},\"corrupt\":{wrong},\"lost\":{lost},\
             \"orphans\":{orphans},\"hung\":{hung},\"asked_again\":{asked_again},\"taken_over\":{taken_over},\
             \"given_up\":{given_up},\"longest_wait_s\":{:.1},\"longest_wait_under_way_s\":{longest:.1},\
             \"longest_wait_late_s\":{longest_late:.1},\"problems\":{}}}",
            longest.max(*longest_late),
            problems.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = r#"{"bytes":0,"changed":0,"expiring":0,"files":32,"foreign":0,"found":0,"good":30,"mended":0,"missing":0,"noncurrent":0,"notes":[],"objects":30,"orphans":0,"seconds":1.0,"unarchived":2,"unknown":0,"unmapped":0,"unwatched":0,"uploads":0,"young":0}"#;

    fn outcome() -> Outcome {
        Outcome::new(0, &Told::default(), &Told::default())
    }

    #[test]
    fn a_clean_scrub_is_no_problem() {
        let mut outcome = outcome();
        outcome.scrubbed("end", &format!("it began\n{CLEAN}\nit ended with 0\n"));
        outcome.unended(0);
        assert_eq!(outcome.problem(), None);
    }

    #[test]
    fn each_finding_is_one_and_names_itself() {
        let mut outcome = outcome();
        let said = CLEAN
            .replace("\"missing\":0", "\"missing\":1")
            .replace("\"good\":30", "\"good\":29");
        outcome.scrubbed(
            "end",
            &format!("{said}\nit ended with 1\n{{\"what\":\"missing\",\"name\":\"f07\"}}"),
        );
        assert_eq!(outcome.lost, 1);
        assert!(outcome.problem().unwrap().contains("f07"));
    }

    #[test]
    fn a_file_without_its_copy_is_a_problem() {
        let mut outcome = outcome();
        let said = CLEAN
            .replace("\"unarchived\":2", "\"unarchived\":3")
            .replace("\"good\":30", "\"good\":29");
        outcome.scrubbed("end", &said);
        assert!(outcome.problem().is_some());
    }

    #[test]
    fn a_scrub_that_says_nothing_is_a_problem() {
        let mut outcome = outcome();
        outcome.scrubbed("end", "the mount is away\nit ended with 2");
        assert!(outcome.problem().unwrap().contains("the mount is away"));
    }

    #[test]
    fn the_line_has_the_longest_of_all_waits() {
        let early = Told {
            read: 10,
            longest: 26.04,
            ..Told::default()
        };
        let late = Told {
            read: 4,
            longest: 101.0,
            unread: vec!["f20: ENODATA after 3.0 s".into()],
            ..Told::default()
        };
        let outcome = Outcome::new(3, &early, &late);
        let line = outcome.json("killed");
        assert!(line.contains("\"reads\":15,\"failed_reads\":1"), "{line}");
        assert!(
            line.contains("\"longest_wait_s\":101.0,\"longest_wait_under_way_s\":26.0"),
            "{line}"
        );
        assert!(outcome.problem().unwrap().contains("ENODATA"));
    }
}
