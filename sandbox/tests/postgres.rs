//! The PostgreSQL of tests and runs.

use lhsm_sandbox::postgres::Postgres;

#[test]
fn after_a_failover_what_was_written_behind_the_copy_is_gone_and_all_else_is_there() {
    let Some(mut postgres) = Postgres::start_if_there().unwrap() else {
        return;
    };
    assert!(postgres.fail_over().is_err(), "there is nothing to fail over to");
    postgres.rows("CREATE TABLE kept (n integer)").unwrap();
    for n in 0..3 {
        postgres.rows(&format!("INSERT INTO kept VALUES ({n})")).unwrap();
        postgres.copy().unwrap();
        postgres.rows("INSERT INTO kept VALUES (-1)").unwrap();
        postgres.fail_over().unwrap();
    }
    assert_eq!(postgres.rows("SELECT n FROM kept ORDER BY n").unwrap(), ["0", "1", "2"]);
    postgres.stop().unwrap();
    postgres.resume().unwrap();
    assert_eq!(postgres.rows("SELECT count(*) FROM kept").unwrap(), ["3"]);
}
