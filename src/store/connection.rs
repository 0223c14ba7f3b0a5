//! The HTTP side of one thread: connections live on the runtime that opened them.

use aws_sdk_s3::config::{RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};

use super::CaBundle;

/// A pool for each kind of connection; archives with the same one share it.
#[derive(Debug, Default)]
pub struct Connections(Vec<(Security, Option<String>, SharedHttpClient)>);

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
    pub(super) fn to(&mut self, security: &Security, proxy: Option<&str>) -> SharedHttpClient {
        let known = self
            .0
            .iter()
            .find(|(known, through, _)| known == security && through.as_deref() == proxy);
        if let Some((_, _, client)) = known {
            return client.clone();
        }
        let client = connect(security, proxy);
        self.0
            .push((security.clone(), proxy.map(str::to_owned), client.clone()));
        client
    }
}

fn connect(security: &Security, proxy: Option<&str>) -> SharedHttpClient {
    let trust = match security {
        Security::Plain => None,
        Security::System => Some(tls::TrustStore::default()),
        Security::Private(ca) => Some(tls::TrustStore::empty().with_pem_certificate(ca.pem())),
    };
    // Checked when it was read; one that is not there goes by the environment.
    let proxy = proxy
        .and_then(|url| ProxyConfig::all(url).ok())
        .unwrap_or_else(ProxyConfig::from_env);
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        let Some(trust) = trust.clone() else {
            return builder.build_http();
        };
        let mut builder = builder.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
        // Building a context only stores what it is given.
        if let Ok(context) = tls::TlsContext::builder().with_trust_store(trust).build() {
            builder = builder.tls_context(context);
        }
        builder.build()
    })
}

/// Whether a text can be a proxy's address.
///
/// # Errors
/// Why not.
pub fn check_proxy(url: &str) -> Result<(), String> {
    ProxyConfig::all(url).map(drop).map_err(|error| error.to_string())
}
