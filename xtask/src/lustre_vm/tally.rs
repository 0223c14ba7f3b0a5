//! One line a case, and the sum.

use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    pub(super) fn pass(&mut self, case: &str, took: Duration) {
        self.passed += 1;
        println!("ok {case} ({} s)", took.as_secs());
    }

    pub(super) fn fail(&mut self, case: &str, why: &str) {
        self.failed += 1;
        println!("not ok {case}: {why}");
    }

    pub(super) fn skip(&mut self, case: &str, why: &str) {
        self.skipped += 1;
        println!("ok {case} # SKIP {why}");
    }

    pub(super) const fn is_whole(self) -> bool {
        self.failed == 0
    }

    pub(super) fn json(self) -> String {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        format!(
            "{{\"cases\":{},\"passed\":{passed},\"failed\":{failed},\"skipped\":{skipped}}}",
            passed + failed + skipped
        )
    }

    pub(super) fn text(self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_case_is_a_failed_run() {
        let mut tally = Tally::default();
        tally.pass("one", Duration::ZERO);
        tally.skip("two", "why");
        assert!(tally.is_whole());
        tally.fail("three", "why");
        assert!(!tally.is_whole());
        assert_eq!(tally.json(), r#"{"cases":3,"passed":1,"failed":1,"skipped":1}"#);
    }
}
