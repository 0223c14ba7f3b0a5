//! The HTTP side of one thread: connections live on the runtime that opened them.

use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

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
    /// By the system's and these.
    Both(CaBundle),
}

/// Where a node or a container asks for its own credentials: never through a proxy, which would ask in its own name.
const LOCAL: [&str; 5] = [
    "169.254.169.254",
    "[fd00:ec2::254]",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::23]",
];
/// Variables that name another one of them.
const LOCAL_VARIABLES: [&str; 2] = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

impl Connections {
    pub(super) fn to(&mut self, security: &Security, proxy: Option<&str>) -> SharedHttpClient {
        let known = self
            .0
            .iter()
            .find(|(known, through, _)| known == security && through.as_deref() == proxy);
        if let Some((_, _, client)) = known {
            return client.clone();
        }
        // Checked when it was read; one that is not there goes by the environment.
        let through = proxy
            .and_then(|url| ProxyConfig::all(url).ok())
            .unwrap_or_else(ProxyConfig::from_env);
        let client = connect(security, &through);
        self.0
            .push((security.clone(), proxy.map(str::to_owned), client.clone()));
        client
    }
}

/// For calls that fetch credentials.
pub(super) fn to_credentials(security: &Security, proxy: Option<&str>) -> SharedHttpClient {
    let through = Connections::default().to(security, proxy);
    let mut local: Vec<String> = LOCAL.map(str::to_owned).to_vec();
    let named = LOCAL_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    local.extend(named.filter_map(|url| Some(host(&url)?.to_ascii_lowercase())));
    SharedHttpClient::new(Fork {
        direct: connect(security, &ProxyConfig::disabled()),
        through,
        local,
    })
}

/// Goes straight to some hosts.
#[derive(Clone, Debug)]
struct Fork<C> {
    direct: C,
    through: C,
    local: Vec<String>,
}

impl HttpClient for Fork<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Fork {
            direct: self.direct.http_connector(settings, components),
            through: self.through.http_connector(settings, components),
            local: self.local.clone(),
        })
    }
}

impl HttpConnector for Fork<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_local =
            host(request.uri()).is_some_and(|host| self.local.iter().any(|own| host.eq_ignore_ascii_case(own)));
        if is_local {
            self.direct.call(request)
        } else {
            self.through.call(request)
        }
    }
}

/// Of a URL, without its port.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.find(']') {
        Some(end) => authority.get(..=end),
        None => authority.split(':').next(),
    }
}

fn connect(security: &Security, proxy: &ProxyConfig) -> SharedHttpClient {
    let trust = match security {
        Security::Plain => None,
        Security::System => Some(tls::TrustStore::default()),
        Security::Private(ca) => Some(tls::TrustStore::empty().with_pem_certificate(ca.pem())),
        Security::Both(ca) => Some(tls::TrustStore::default().with_pem_certificate(ca.pem())),
    };
    let proxy = proxy.clone();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_host_is_what_stands_between_user_and_port() {
        assert_eq!(host("http://169.254.169.254/latest"), Some("169.254.169.254"));
        assert_eq!(host("http://[fd00:ec2::254]:80/latest"), Some("[fd00:ec2::254]"));
        assert_eq!(
            host("https://user:word@sts.amazonaws.com:443?x"),
            Some("sts.amazonaws.com")
        );
        assert_eq!(host("/latest"), None);
    }
}
