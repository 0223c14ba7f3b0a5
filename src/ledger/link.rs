//! A connection to the ledger's server on which every wait has its end: for the connection, and for each statement.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, Socket};

use super::error::words;
use super::tls::Tls;
use super::{LedgerError, LedgerOptions};

/// For a connection, with names, TLS and password, of all servers together.
const CONNECT: Duration = Duration::from_secs(12);
/// For a statement.
const STATEMENT: Duration = Duration::from_secs(10);
/// The same, on the server: what nobody waits for any more is not to be done later.
const LIMITS: &str = "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'";

/// Parameters of a statement with their types, so that it needs no preparation: one round trip, through a pooler too.
pub(super) type Parameters<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// The connection. Whoever has an error of it drops it: nothing is known of what it was about.
pub(super) struct Link {
    client: Client,
    /// Who reads and writes it.
    driver: AbortHandle,
    place: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        // A server that takes no bytes would keep it for ever.
        self.driver.abort();
    }
}

impl Link {
    /// Connects. In a runtime, which drives it.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn open(options: &LedgerOptions) -> Result<Self, LedgerError> {
        let mut config = options.address.config.clone();
        if let Some(path) = &options.password_file {
            // Anew each time: it may have been changed.
            let text = std::fs::read_to_string(path).map_err(|source| LedgerError::PasswordFile {
                path: path.clone(),
                source,
            })?;
            config.password(text.lines().next().unwrap_or_default());
        }
        let place = options.address.place.clone();
        let silent = || LedgerError::Silent {
            place: place.clone(),
            seconds: CONNECT.as_secs(),
        };
        let opened = if options.address.has_tls() {
            let tls = Tls::new(options.ca_bundle.as_deref()).map_err(|what| LedgerError::Certificates { what })?;
            tokio::time::timeout(CONNECT, Box::pin(connect(&config, tls))).await
        } else {
            tokio::time::timeout(CONNECT, Box::pin(connect(&config, NoTls))).await
        };
        let (client, driver) = opened.map_err(|_| silent())?.map_err(|error| refusal(&place, &error))?;
        let link = Self { client, driver, place };
        link.batch(LIMITS).await?;
        Ok(link)
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Statements without parameters.
    pub(super) async fn batch(&self, statements: &str) -> Result<(), LedgerError> {
        self.within(self.client.batch_execute(statements)).await
    }

    /// A change; how many rows it was of.
    pub(super) async fn execute(&self, statement: &str, parameters: &Parameters<'_>) -> Result<u64, LedgerError> {
        self.within(self.client.execute_typed(statement, parameters)).await
    }

    /// Rows.
    pub(super) async fn query(&self, statement: &str, parameters: &Parameters<'_>) -> Result<Vec<Row>, LedgerError> {
        self.within(self.client.query_typed(statement, parameters)).await
    }

    /// A column that must be there.
    pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
        &self,
        row: &'a Row,
        column: usize,
    ) -> Result<T, LedgerError> {
        row.try_get(column).map_err(|error| self.failed(&error))
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, LedgerError> {
        match tokio::time::timeout(STATEMENT, Box::pin(work)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(LedgerError::Silent {
                place: self.place.clone(),
                seconds: STATEMENT.as_secs(),
            }),
        }
    }

    fn failed(&self, error: &tokio_postgres::Error) -> LedgerError {
        LedgerError::Statement {
            place: self.place.clone(),
            what: words(error),
        }
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<(Client, AbortHandle), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    let driver = tokio::spawn(async move {
        // Whoever waits for an answer hears of it as well.
        if let Err(error) = connection.await {
            tracing::debug!(error = words(&error), "the connection to the ledger is over");
        }
    });
    Ok((client, driver.abort_handle()))
}

/// Why there is no connection: nobody there, or nobody is let in.
fn refusal(place: &str, error: &tokio_postgres::Error) -> LedgerError {
    let (place, what) = (place.to_owned(), words(error));
    // Class 28: invalid authorization. A server that wants a password where none is configured is the client's error.
    let is_refused = error.code().is_some_and(|code| code.code().starts_with("28"));
    if is_refused || what.contains("password missing") {
        return LedgerError::Refused { place, what };
    }
    LedgerError::Unreachable { place, what }
}
