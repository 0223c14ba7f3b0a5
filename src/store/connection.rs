//! The HTTP side of one thread: connections live on the runtime that opened them.

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls;

use super::CaBundle;

/// A pool for each kind of connection; archives with the same one share it.
#[derive(Debug, Default)]
pub struct Connections(Vec<(Security, SharedHttpClient)>);

/// How the other side is trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Security {
    /// Not at all: plain HTTP. No thread then reads and keeps the system's certificates.
    Plain,
    /// By the system's certificates.
    System,
    /// By these.
    Private(CaBundle),
}

impl Connections {
    pub(super) fn to(&mut self, security: &Security) -> SharedHttpClient {
        if let Some((_, client)) = self.0.iter().find(|(known, _)| known == security) {
            return client.clone();
        }
        let client = connect(security);
        self.0.push((security.clone(), client.clone()));
        client
    }
}

fn connect(security: &Security) -> SharedHttpClient {
    let trust = match security {
        Security::Plain => return aws_smithy_http_client::Builder::new().build_http(),
        Security::System => tls::TrustStore::default(),
        Security::Private(ca) => tls::TrustStore::empty().with_pem_certificate(ca.pem()),
    };
    let mut builder = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
    // Building a context only stores what it is given.
    if let Ok(context) = tls::TlsContext::builder().with_trust_store(trust).build() {
        builder = builder.tls_context(context);
    }
    builder.build_https()
}
