//! How an archive's bucket is reached: what its section says, else what the process's surroundings say; and what of it
//! can't go together, told before anything begins.

use std::collections::HashMap;
use std::path::Path;

use super::document::Section;
use crate::store::{AwsEnvironment, CaBundle, SourcedValue};

/// Endpoint, region and their like of one section.
#[derive(Debug)]
pub(super) struct EndpointSettings {
    pub(super) endpoint_url: Option<String>,
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) path_style: bool,
    pub(super) sign_payload: bool,
    pub(super) ca_bundle: Option<CaBundle>,
    pub(super) use_fips_endpoint: bool,
    pub(super) use_dualstack_endpoint: bool,
    pub(super) use_accelerate_endpoint: bool,
}

impl EndpointSettings {
    /// `variables`: of the environment.
    pub(super) fn read(section: &Section<'_>, bucket: &str, variables: &HashMap<String, String>) -> Self {
        let profile = section.string("profile");
        let around = AwsEnvironment::read(variables.clone(), profile.as_deref());
        let endpoint = around.endpoint_url();
        let endpoint_origin = section.origin_of("endpoint_url", endpoint.as_ref());
        let endpoint_url = section.string_or("endpoint_url", endpoint);
        if let Some(url) = &endpoint_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            section.complain(
                "endpoint_url",
                &format!(
                    "endpoint_url = \"{url}\" must start with http:// or https://{}",
                    aside(&endpoint_origin)
                ),
            );
        }
        let of_aws = |key: &'static str, around: Option<SourcedValue>| {
            let origin = section.origin_of(key, around.as_ref());
            let wanted = section.bool_or(key, around).unwrap_or(false);
            if wanted && endpoint_url.is_some() {
                section.complain(
                    key,
                    &format!(
                        "{key} = true{} and {endpoint_origin} exclude each other: only AWS has such endpoints. Set \
                         {key} = false here, or leave the endpoint to AWS",
                        aside(&origin)
                    ),
                );
            }
            wanted
        };
        let use_fips_endpoint = of_aws("use_fips_endpoint", around.use_fips_endpoint());
        let use_dualstack_endpoint = of_aws("use_dualstack_endpoint", around.use_dualstack_endpoint());
        let use_accelerate_endpoint = of_aws("use_accelerate_endpoint", around.use_accelerate_endpoint());
        if use_accelerate_endpoint && use_fips_endpoint {
            section.complain(
                "use_accelerate_endpoint",
                "use_accelerate_endpoint and use_fips_endpoint exclude each other: AWS accelerates nothing with FIPS",
            );
        }
        // Only AWS resolves a host name for each bucket.
        let path_style = section.bool_or("path_style", around.path_style());
        let path_style = path_style.unwrap_or(endpoint_url.is_some());
        if let Some(reason) = misplaced(
            bucket,
            endpoint_url.as_deref().map(|_| endpoint_origin.as_str()),
            path_style,
        ) {
            section.complain("bucket", &format!("bucket = \"{bucket}\" {reason}"));
        }
        let ca_bundle = section.string_or("ca_bundle", around.ca_bundle()).and_then(|path| {
            CaBundle::read(Path::new(&path))
                .inspect_err(|error| section.complain("ca_bundle", &format!("ca_bundle: {error}")))
                .ok()
        });
        Self {
            region: section.string_or("region", around.region(endpoint_url.is_some())),
            profile,
            path_style,
            sign_payload: section.bool_or("sign_payload", around.sign_payload()).unwrap_or(false),
            ca_bundle,
            use_fips_endpoint,
            use_dualstack_endpoint,
            use_accelerate_endpoint,
            endpoint_url,
        }
    }
}

/// Where a value is from, where that is not the section itself.
fn aside(origin: &str) -> String {
    origin
        .split_once(", from ")
        .map(|(_, from)| format!(" (from {from})"))
        .unwrap_or_default()
}

/// Why a bucket of that name can't be used, where that is known beforehand. `endpoint`: which key sets one.
fn misplaced(bucket: &str, endpoint: Option<&str>, path_style: bool) -> Option<String> {
    if bucket.ends_with("--x-s3") || bucket.ends_with("--xa-s3") {
        return Some(
            "is a directory bucket, which this copytool was not made for: no versions, no tags, no listing in order. \
             Use a general purpose bucket"
                .into(),
        );
    }
    let arn = bucket.strip_prefix("arn:")?;
    if let Some(endpoint) = endpoint {
        return Some(format!(
            "is an ARN, which only AWS's own endpoints know, but there is another one ({endpoint}): give the \
             bucket's name, or leave the endpoint to AWS"
        ));
    }
    if path_style {
        return Some("is an ARN, which stands in a host name: leave `path_style` out".into());
    }
    // partition:service:region:account:resource
    let parts: Vec<_> = arn.splitn(5, ':').collect();
    let [_, service, region, _, resource] = parts.as_slice() else {
        return Some("is no complete ARN (arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME)".into());
    };
    if *service == "s3-object-lambda" {
        return Some("is an Object Lambda access point, to which nothing can be written: give its bucket's own".into());
    }
    if region.is_empty() {
        return Some(
            "is a multi-region access point, whose signatures (SigV4A) are not built in: give a bucket of one region"
                .into(),
        );
    }
    if !(resource.starts_with("accesspoint") || resource.starts_with("outpost")) {
        return Some("is not the ARN of an access point: give the bucket's name".into());
    }
    None
}
