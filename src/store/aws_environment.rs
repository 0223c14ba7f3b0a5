//! What the process's surroundings say of how S3 is reached: AWS's variables, and the profile of the shared AWS files
//! with its `services` and `s3` sections. Each value comes with where it is from, so that nobody has to guess.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::property::PropertiesKey;
use aws_runtime::env_config::section::EnvConfigSections;
use aws_runtime::env_config::source;
use aws_types::os_shim_internal::{Env, Fs};

/// A value, and where it is from: `$VARIABLE`, or which key of the AWS files.
pub type SourcedValue = (String, String);

/// As they were when they were read.
#[derive(Default)]
pub struct AwsEnvironment {
    variables: HashMap<String, String>,
    /// The shared files; they may have keys in them.
    files: EnvConfigSections,
}

impl std::fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Surroundings(profile {})", self.files.selected_profile())
    }
}

impl AwsEnvironment {
    /// By these variables of the environment. `profile`: the one of the shared files, else `$AWS_PROFILE`'s. A file
    /// that can't be read is as good as none: whoever needs credentials of it says so.
    #[must_use]
    pub fn read(variables: HashMap<String, String>, profile: Option<&str>) -> Self {
        // Without any there is no home, either.
        if variables.is_empty() {
            return Self::default();
        }
        let env = Env::from(variables.clone());
        let files = read_files(&env, profile).unwrap_or_default();
        Self { variables, files }
    }

    /// Of another store than AWS. A variable goes before the files, what is said of S3 alone before what is said of
    /// all services.
    #[must_use]
    pub fn endpoint_url(&self) -> Option<SourcedValue> {
        let ignored = self.either("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls");
        if ignored.is_some_and(|(value, _)| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        self.variable("AWS_ENDPOINT_URL_S3")
            .or_else(|| self.variable("AWS_ENDPOINT_URL"))
            .or_else(|| self.of_services("endpoint_url"))
            .or_else(|| self.of_profile("endpoint_url"))
    }

    /// Where the bucket is. `beside_aws`: another store is asked, for which a profile's region was hardly written.
    #[must_use]
    pub fn region(&self, beside_aws: bool) -> Option<SourcedValue> {
        let variable = self.variable("AWS_REGION");
        let variable = variable.or_else(|| self.variable("AWS_DEFAULT_REGION"));
        variable.or_else(|| if beside_aws { None } else { self.of_profile("region") })
    }

    /// `true` or `false`, as it was written.
    #[must_use]
    pub fn use_fips_endpoint(&self) -> Option<SourcedValue> {
        self.either("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")
    }

    /// `true` or `false`, as it was written.
    #[must_use]
    pub fn use_dualstack_endpoint(&self) -> Option<SourcedValue> {
        self.variable("AWS_USE_DUALSTACK_ENDPOINT")
            .or_else(|| self.of_s3("use_dualstack_endpoint"))
            .or_else(|| self.of_profile("use_dualstack_endpoint"))
    }

    /// `true` or `false`, as it was written.
    #[must_use]
    pub fn use_accelerate_endpoint(&self) -> Option<SourcedValue> {
        self.of_s3("use_accelerate_endpoint")
    }

    /// `true` for a bucket in the URL's path, `false` for one in its host name; nothing for `auto`.
    #[must_use]
    pub fn path_style(&self) -> Option<SourcedValue> {
        let (style, origin) = self.of_s3("addressing_style")?;
        match style.as_str() {
            "path" => Some(("true".into(), origin)),
            "virtual" => Some(("false".into(), origin)),
            _ => None,
        }
    }

    /// `true` or `false`, as it was written.
    #[must_use]
    pub fn sign_payload(&self) -> Option<SourcedValue> {
        self.of_s3("payload_signing_enabled")
    }

    /// A file of certificates.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<SourcedValue> {
        self.either("AWS_CA_BUNDLE", "ca_bundle")
    }

    fn either(&self, variable: &str, key: &str) -> Option<SourcedValue> {
        self.variable(variable).or_else(|| self.of_profile(key))
    }

    fn variable(&self, name: &str) -> Option<SourcedValue> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        Some((value.clone(), format!("${name}")))
    }

    fn of_profile(&self, key: &str) -> Option<SourcedValue> {
        let value = self.files.get(key).filter(|value| !value.is_empty())?;
        Some((value.to_owned(), self.of_files(key)))
    }

    /// A key below the profile's `s3 =`.
    fn of_s3(&self, key: &str) -> Option<SourcedValue> {
        let lines = self.files.get("s3")?.lines();
        let mut pairs = lines.filter_map(|line| line.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(key))?;
        Some((value.trim().to_owned(), self.of_files(&format!("s3.{key}"))))
    }

    /// A key of S3 in the section that the profile's `services` names.
    fn of_services(&self, key: &str) -> Option<SourcedValue> {
        let services = self.files.get("services")?;
        let place = PropertiesKey::builder()
            .section_key("services")
            .section_name(services)
            .property_name("s3")
            .sub_property_name(key)
            .build()
            .ok()?;
        let value = self.files.other_sections().get(&place)?;
        Some((value.clone(), self.of_files(&format!("services {services} s3.{key}"))))
    }

    fn of_files(&self, key: &str) -> String {
        format!("AWS profile {}: {key}", self.files.selected_profile())
    }
}

fn read_files(env: &Env, profile: Option<&str>) -> Option<EnvConfigSections> {
    let reading = async {
        let mut found = source::load(env, &Fs::real(), &EnvConfigFiles::default()).await.ok()?;
        if let Some(profile) = profile {
            found.profile = Cow::Owned(profile.to_owned());
        }
        EnvConfigSections::parse(found).ok()
    };
    // Its reads are the C library's, which never have to be waited for.
    match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(files) => files,
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(variables: &[(&str, &str)], config: &str, profile: Option<&str>) -> AwsEnvironment {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let credentials = dir.path().join("none").display().to_string();
        let files = [
            ("AWS_CONFIG_FILE", file.as_str()),
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ];
        let all = files.iter().chain(variables);
        let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        AwsEnvironment::read(all.collect(), profile)
    }

    const FILE: &str = "[default]\nregion = eu-north-1\nendpoint_url = http://all\n\
        [profile lab]\nservices = ours\nendpoint_url = http://general\nca_bundle = /ca.pem\nuse_fips_endpoint = true\n\
        s3 =\n  addressing_style = path\n  use_accelerate_endpoint = true\n\
        [services ours]\ns3 =\n  endpoint_url = http://special\n";

    #[test]
    fn a_variable_goes_before_the_files_and_what_is_said_of_s3_before_what_is_said_of_all() {
        let url = |variables: &[(&str, &str)], profile| around(variables, FILE, profile).endpoint_url();
        let value = |around: Option<SourcedValue>| around.map(|(value, _)| value);
        assert_eq!(value(url(&[], None)).as_deref(), Some("http://all"));
        assert_eq!(value(url(&[], Some("lab"))).as_deref(), Some("http://special"));
        assert_eq!(
            value(url(&[("AWS_PROFILE", "lab")], None)).as_deref(),
            Some("http://special")
        );
        let general = [("AWS_ENDPOINT_URL", "http://e")];
        assert_eq!(
            url(&general, Some("lab")),
            Some(("http://e".into(), "$AWS_ENDPOINT_URL".into()))
        );
        let both = [("AWS_ENDPOINT_URL", "http://e"), ("AWS_ENDPOINT_URL_S3", "http://s3")];
        assert_eq!(value(url(&both, None)).as_deref(), Some("http://s3"));
        let ignored = [
            ("AWS_ENDPOINT_URL", "http://e"),
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ];
        assert_eq!(url(&ignored, Some("lab")), None);
        assert_eq!(around(&[], "", None).endpoint_url(), None);
    }

    #[test]
    fn a_profile_and_its_s3_section_are_read_with_their_names() {
        let lab = around(&[], FILE, Some("lab"));
        assert_eq!(
            lab.path_style(),
            Some(("true".into(), "AWS profile lab: s3.addressing_style".into()))
        );
        assert_eq!(
            lab.use_accelerate_endpoint().map(|(value, _)| value).as_deref(),
            Some("true")
        );
        assert_eq!(lab.use_fips_endpoint().map(|(value, _)| value).as_deref(), Some("true"));
        assert_eq!(lab.ca_bundle().map(|(value, _)| value).as_deref(), Some("/ca.pem"));
        assert_eq!(lab.use_dualstack_endpoint(), None);
        assert_eq!(lab.region(false), None);
        let usual = around(&[], FILE, None);
        assert_eq!(
            usual.region(false).map(|(value, _)| value).as_deref(),
            Some("eu-north-1")
        );
        assert_eq!(usual.region(true), None, "it is AWS's");
    }

    #[test]
    fn what_the_files_hold_is_never_shown() {
        let around = around(&[], "[default]\naws_secret_access_key = hush\n", None);
        assert!(!format!("{around:?}").contains("hush"));
    }
}
