//! The statements about jobs. Each that changes a job's row names whose it is: of two processes one has it.

use std::io;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::LedgerError;
use super::super::link::Link;
use super::{JobNotice, JobRow, JobState, TakenJob};

/// Of jobs that are shown.
const MOST: i64 = 1000;
/// Bytes of what a job is to do, and of its names, that go into a row.
const LONGEST_SPEC: usize = 1 << 20;
const LONGEST_LIST: u64 = 8 << 20;

/// What is read of a row.
macro_rules! columns {
    () => {
        "id, owner, node, mover, renewals, state, CASE WHEN length(told) <= 65536 THEN told END, cancel, \
         GREATEST(EXTRACT(EPOCH FROM now() - renewed), 0)::float8"
    };
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM lhsmtool_s3.job WHERE id = $1");
/// Those that somebody is at come first.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lhsmtool_s3.job WHERE state = ANY ($1) ORDER BY (state = 1) DESC, renewed DESC LIMIT $2"
);
const LOOK: &str = concat!(
    "UPDATE lhsmtool_s3.job SET looks = looks + 1 WHERE id = $1 RETURNING ",
    columns!()
);
const KEPT: &str = "\
SELECT j.spec, l.names FROM lhsmtool_s3.job j LEFT JOIN lhsmtool_s3.job_list l ON l.job = j.id WHERE j.id = $1";
const INSERT: &str = "\
INSERT INTO lhsmtool_s3.job (id, spec, owner, node, mover, renewals, state, told) VALUES ($1, $2, $3, $4, $5, 1, $6, $7)
ON CONFLICT (id) DO NOTHING";
const INSERT_LIST: &str = "INSERT INTO lhsmtool_s3.job_list (job, names) VALUES ($1, $2) ON CONFLICT (job) DO NOTHING";
/// Nobody goes on with what has ended, and names are the most of what jobs have.
const FORGET_LIST: &str = "DELETE FROM lhsmtool_s3.job_list WHERE job = $1";
const RENEW: &str = "\
UPDATE lhsmtool_s3.job SET renewals = renewals + 1, renewed = now(), state = $3, told = COALESCE($4, told)
WHERE id = $1 AND owner = $2 RETURNING cancel";
/// As it was seen, so that of two who want it one gets it, and none if its process has told of it meanwhile.
const TAKE: &str = "\
UPDATE lhsmtool_s3.job SET owner = $2, node = $3, mover = $4, state = $5, cancel = false, renewals = renewals + 1,
    renewed = now()
WHERE id = $1 AND owner = $6 AND renewals = $7 AND state = $8";
const STOP: &str = "UPDATE lhsmtool_s3.job SET cancel = true WHERE id = $1 AND owner = $2 AND state = 1";
/// Of a process that is over.
const SETTLE: &str = "\
UPDATE lhsmtool_s3.job SET state = $3, told = COALESCE($4, told) WHERE id = $1 AND owner = $2 AND state = ANY ($5)";
/// By the ledger's own clock, on which nothing else depends. Who is at a job tells of it all the time.
const PRUNE: &str = "DELETE FROM lhsmtool_s3.job WHERE renewed < now() - interval '30 days'";

fn row(link: &Link, row: &Row) -> Result<JobRow, LedgerError> {
    let age: f64 = link.get(row, 8)?;
    Ok(JobRow {
        id: link.get(row, 0)?,
        owner: link.get(row, 1)?,
        node: link.get(row, 2)?,
        mover: link.get(row, 3)?,
        renewals: link.get(row, 4)?,
        state: JobState::of(link.get(row, 5)?),
        told: link.get(row, 6)?,
        is_to_stop: link.get(row, 7)?,
        age: Duration::try_from_secs_f64(age).unwrap_or_default(),
    })
}

/// One job.
pub(super) async fn find(link: &Link, id: &str) -> Result<Option<JobRow>, LedgerError> {
    let rows = link.query(FIND, &[(&id, Type::TEXT)]).await?;
    rows.first().map(|found| row(link, found)).transpose()
}

/// The same, by a change: whoever can make it has a ledger in which the job's process could tell of it as well.
pub(super) async fn look(link: &Link, id: &str) -> Result<Option<JobRow>, LedgerError> {
    let rows = link.query(LOOK, &[(&id, Type::TEXT)]).await?;
    rows.first().map(|found| row(link, found)).transpose()
}

/// Jobs in these states: those that run, and of the others those that were told of last.
pub(super) async fn list(link: &Link, states: &[JobState]) -> Result<Vec<JobRow>, LedgerError> {
    let states: Vec<_> = states.iter().map(|state| state.number()).collect();
    let rows = link
        .query(LIST, &[(&states, Type::INT2_ARRAY), (&MOST, Type::INT8)])
        .await?;
    rows.iter().map(|found| row(link, found)).collect()
}

/// What a job is to do, and its names, as far as the ledger has them; `None`: there is no such job.
pub(super) async fn kept(link: &Link, id: &str) -> Result<Option<TakenJob>, LedgerError> {
    let rows = link.query(KEPT, &[(&id, Type::TEXT)]).await?;
    let kept = rows.first().map(|row| {
        Ok(TakenJob {
            spec: link.get(row, 0)?,
            names: link.get(row, 1)?,
        })
    });
    kept.transpose()
}

/// The names of a job that works off a list, where they are not too many.
pub(super) fn names(notice: &JobNotice) -> io::Result<Option<Vec<u8>>> {
    let Some(list) = &notice.list else {
        return Ok(None);
    };
    match std::fs::metadata(list)?.len() {
        0..=LONGEST_LIST => std::fs::read(list).map(Some),
        _ => Ok(None),
    }
}

/// Writes a job down that the ledger does not have, and takes away what has been over for long. Where it has it meanwhile, that
/// stays.
pub(super) async fn insert(
    link: &Link,
    notice: &JobNotice,
    names: Option<&[u8]>,
    (state, told): (JobState, Option<&str>),
) -> Result<(), LedgerError> {
    let spec = Some(notice.spec.as_str()).filter(|spec| spec.len() <= LONGEST_SPEC);
    link.execute(PRUNE, &[]).await?;
    link.batch("BEGIN").await?;
    let inserted = link
        .execute(
            INSERT,
            &[
                (&notice.id, Type::TEXT),
                (&spec, Type::TEXT),
                (&notice.owner, Type::INT8),
                (&notice.node, Type::TEXT),
                (&notice.mover, Type::TEXT),
                (&state.number(), Type::INT2),
                (&told, Type::TEXT),
            ],
        )
        .await?;
    if inserted == 1
        && state != JobState::Ended
        && let Some(names) = names
    {
        link.execute(INSERT_LIST, &[(&notice.id, Type::TEXT), (&names, Type::BYTEA)])
            .await?;
    }
    link.batch("COMMIT").await
}

/// Tells of a job; whether somebody wants it to stop. `None`: it is not this process's.
pub(super) async fn renew(
    link: &Link,
    notice: &JobNotice,
    (state, told): (JobState, Option<&str>),
) -> Result<Option<bool>, LedgerError> {
    let rows = link
        .query(
            RENEW,
            &[
                (&notice.id, Type::TEXT),
                (&notice.owner, Type::INT8),
                (&state.number(), Type::INT2),
                (&told, Type::TEXT),
            ],
        )
        .await?;
    let is_to_stop = rows.first().map(|row| link.get(row, 0)).transpose()?;
    if is_to_stop.is_some() && state == JobState::Ended {
        link.execute(FORGET_LIST, &[(&notice.id, Type::TEXT)]).await?;
    }
    Ok(is_to_stop)
}

/// Makes a job this process's, if it is as it was seen; whether it was.
pub(super) async fn take(link: &Link, notice: &JobNotice, seen: &JobRow) -> Result<bool, LedgerError> {
    let taken = link
        .execute(
            TAKE,
            &[
                (&notice.id, Type::TEXT),
                (&notice.owner, Type::INT8),
                (&notice.node, Type::TEXT),
                (&notice.mover, Type::TEXT),
                (&JobState::Running.number(), Type::INT2),
                (&seen.owner, Type::INT8),
                (&seen.renewals, Type::INT8),
                (&seen.state.number(), Type::INT2),
            ],
        )
        .await?;
    Ok(taken == 1)
}

/// Has whoever is at a job stop it; whether that one was.
pub(super) async fn stop(link: &Link, id: &str, owner: i64) -> Result<bool, LedgerError> {
    let told = link.execute(STOP, &[(&id, Type::TEXT), (&owner, Type::INT8)]).await?;
    Ok(told == 1)
}

/// Says of a job whose process is over where it is, if it is in one of those states.
pub(super) async fn settle(
    link: &Link,
    (id, owner): (&str, i64),
    from: &[JobState],
    (state, told): (JobState, Option<&str>),
) -> Result<bool, LedgerError> {
    let from: Vec<_> = from.iter().map(|state| state.number()).collect();
    let settled = link
        .execute(
            SETTLE,
            &[
                (&id, Type::TEXT),
                (&owner, Type::INT8),
                (&state.number(), Type::INT2),
                (&told, Type::TEXT),
                (&from, Type::INT2_ARRAY),
            ],
        )
        .await?;
    Ok(settled == 1)
}
