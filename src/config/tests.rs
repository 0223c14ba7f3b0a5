use std::path::Path;
use std::time::Duration;

use super::*;
use crate::store::{ChecksumKind, KeyLayout};

const MINIMAL: &str = "[lustre]\nmount = '/mnt/lustre'\n[[archive]]\nid = 1\nbucket = 'lab'\n";

fn problems(text: &str) -> Vec<String> {
    match parse(text, None) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            .map(|p| format!("{}: {}", p.line.map_or("-".into(), |n| n.to_string()), p.what))
            .collect(),
    }
}

#[test]
fn a_minimal_configuration_is_enough() {
    let settings = parse(MINIMAL, None).unwrap();
    assert_eq!(settings.mount, Path::new("/mnt/lustre"));
    assert_eq!(settings.targets.len(), 1);
    assert_eq!(settings.targets[0].layout, KeyLayout::Path);
    assert_eq!(settings.targets[0].checksum, ChecksumKind::Crc64Nvme);
    assert!(!settings.targets[0].path_style);
    assert_eq!(settings.threads, 32);
    assert_eq!(settings.restore_threads, 8);
}

#[test]
fn the_shipped_configurations_load_and_the_complete_one_states_the_defaults() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let complete = load(&dir.join("lhsmtool-s3.toml"), None).unwrap();
    let minimal = load(&dir.join("minimal.toml"), None).unwrap();
    let debug = |settings: &Settings| {
        format!(
            "{:?}",
            Settings {
                targets: Vec::new(),
                ..settings.clone()
            }
        )
    };
    assert_eq!(debug(&complete), debug(&minimal));
}

#[test]
fn the_argument_goes_before_the_files_mount() {
    let settings = parse(MINIMAL, Some(Path::new("/lustre/b"))).unwrap();
    assert_eq!(settings.mount, Path::new("/lustre/b"));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    let text = format!("{MINIMAL}buckt = 'x'\n");
    assert_eq!(
        problems(&text),
        ["6: unknown key 'buckt' in [[archive]]; did you mean 'bucket'?"]
    );
    assert_eq!(
        problems(&format!("{MINIMAL}[worker]\nthreads = 4\n")),
        ["6: unknown key 'worker'; did you mean 'workers'?"]
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "[lustre]\nmonut = '/x'\nheartbeat = '1y'\n[workers]\nthreads = 0\n[transfer]\npart_size = 16\n\
                [[archive]]\nid = 0\nlayout = 'flat'\nendpoint_url = 'minio:9000'\n[[archive]]\nid = 2\nbucket = 'a'\n\
                [[archive]]\nid = 2\nbucket = 'b'\n";
    let found = problems(text);
    let lines: Vec<_> = found.iter().map(|p| p.split(':').next().unwrap()).collect();
    assert_eq!(
        lines,
        ["2", "3", "5", "7", "8", "9", "9", "10", "11", "16", "-"],
        "{found:#?}"
    );
}

#[test]
fn broken_toml_is_an_error_with_its_line() {
    let found = problems("[lustre\nmount = '/x'\n");
    assert!(found[0].starts_with("1: "), "{found:?}");
}

#[test]
fn restore_threads_must_leave_some_for_archives() {
    let found = problems(&format!("{MINIMAL}[workers]\nthreads = 4\nrestore_threads = 4\n"));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("8: "), "{found:?}");
}

#[test]
fn times_and_sizes_are_written_with_their_units() {
    let text = format!("{MINIMAL}[workers]\ndrain_timeout = '2m'\n[transfer]\npart_size = '8MiB'\n");
    let settings = parse(&text, None).unwrap();
    assert_eq!(settings.drain_timeout, Duration::from_secs(120));
    assert_eq!(settings.transfer.plan.part_size, 8 << 20);
}

#[test]
fn what_is_asked_of_the_store_is_checked_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (no_pem, short) = (file("ca.pem", b"no certificate"), file("key", b"short"));
    for (line, expected) in [
        (format!("ca_bundle = '{no_pem}'"), "no certificate in it"),
        (
            "ca_bundle = '/nonexistent/ca.pem'".into(),
            "can't read '/nonexistent/ca.pem'",
        ),
        ("encryption = 'sse-c'".into(), "needs `customer_key_file`"),
        (
            format!("encryption = 'sse-c'\ncustomer_key_file = '{short}'"),
            "must hold a key of 32 bytes",
        ),
        ("encryption = 'aes'".into(), "expected one of \"bucket\", \"sse-s3\""),
        ("tags = 'project'".into(), "must be name=value"),
        ("thaw_tier = 'fast'".into(), "expected one of \"expedited\""),
        ("thaw_days = 0".into(), "from 1 to 365"),
        ("upload_bandwidth = '1KiB'".into(), "expected a size from \"64.0 KiB\""),
        ("proxy = 'not a url'".into(), "proxy = \"not a url\""),
        (
            format!("prefix = '{}/'", "p".repeat(1000)),
            "`prefix` leaves no room for keys: the object key would be",
        ),
    ] {
        let found = problems(&format!("{MINIMAL}{line}\n"));
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{line}: {found:?}"
        );
    }
    let key = file("good", &[7; 32]);
    let text = format!("{MINIMAL}encryption = 'sse-c'\ncustomer_key_file = '{key}'\ntags = 'a=b, c=d'\n");
    let settings = parse(&text, None).unwrap();
    let choices = &settings.targets[0].choices;
    assert!(matches!(choices.encryption, crate::store::Encryption::Customer(_)));
    assert_eq!(choices.tags.len(), 2);
}

#[test]
fn what_is_asked_of_a_store_has_safe_defaults_and_words() {
    use crate::store::{Conditions, VerifyImported};
    let target = |more: &str| parse(&format!("{MINIMAL}{more}"), None).unwrap().targets.remove(0);
    let usual = target("");
    assert_eq!(
        (usual.requester_pays, usual.conditions, usual.verify_imported),
        (false, Conditions::Auto, VerifyImported::Always)
    );
    let other = target("requester_pays = true\nconditions = 'require'\nverify_imported = 'if-free'\n");
    assert_eq!(
        (other.requester_pays, other.conditions, other.verify_imported),
        (true, Conditions::Require, VerifyImported::IfFree)
    );
    assert!(problems(&format!("{MINIMAL}conditions = 'maybe'\n"))[0].contains("expected one of \"auto\""));
}

#[test]
fn a_bandwidth_is_each_movers_or_the_fleets_which_needs_a_ledger() {
    use crate::store::{BandwidthLimit, LimitScope};
    let ledger = "[ledger]\nurl = 'postgresql://lhsm@db1/lhsm'\n";
    let settings = parse(
        &format!(
            "{MINIMAL}upload_bandwidth = {{ limit = '1MiB', scope = 'fleet' }}\ndownload_bandwidth = '2MiB'\n{ledger}"
        ),
        None,
    )
    .unwrap();
    let target = &settings.targets[0];
    let limit = |rate, scope| Some(BandwidthLimit { rate, scope });
    assert_eq!(
        (target.upload_bandwidth, target.download_bandwidth),
        (limit(1 << 20, LimitScope::Fleet), limit(2 << 20, LimitScope::Mover))
    );
    for (line, expected) in [
        (
            "{ limit = '1MiB', scope = 'fleet' }",
            "has no meaning without `url` in section [ledger]",
        ),
        (
            "{ scope = 'mover' }",
            "or { limit = \"16MiB\", scope = \"mover\" or \"fleet\" }",
        ),
        ("{ limit = '1MiB', scope = 'all' }", "scope = \"mover\" or \"fleet\""),
        ("{ limit = '1MiB', scoop = 'mover' }", "scope = \"mover\" or \"fleet\""),
        ("{ limit = '1KiB' }", "expected a size from \"64.0 KiB\""),
    ] {
        let found = problems(&format!("{MINIMAL}upload_bandwidth = {line}\n"));
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{line}: {found:?}"
        );
    }
    let usual = parse(&format!("{MINIMAL}upload_bandwidth = {{ limit = '1MiB' }}\n"), None).unwrap();
    assert_eq!(usual.targets[0].upload_bandwidth, limit(1 << 20, LimitScope::Mover));
}

/// As `load` does it, with these variables.
fn among(text: &str, variables: &[(&str, &str)]) -> Result<(Settings, Vec<Lookup>), Vec<String>> {
    let layer = Layer {
        origin: "x.toml".into(),
        text: text.to_owned(),
    };
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse_layers(&[layer], None, &variables.collect())
        .map_err(|problems| problems.into_iter().map(|problem| problem.what).collect())
}

#[test]
fn the_surroundings_say_what_a_section_leaves_open_and_where_it_is_from() {
    let variables = [
        ("AWS_ENDPOINT_URL", "http://all:1"),
        ("AWS_ENDPOINT_URL_S3", "http://s3:2"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let (settings, lookups) = among(MINIMAL, &variables).unwrap();
    let target = &settings.targets[0];
    assert_eq!(target.endpoint_url.as_deref(), Some("http://s3:2"));
    assert_eq!(target.region.as_deref(), Some("eu-west-1"));
    assert!(target.path_style, "as with an endpoint of the section's own");
    let found = lookups.iter().find(|lookup| lookup.key == "endpoint_url").unwrap();
    let (written, origin, line) = found.found.clone().unwrap();
    assert_eq!(
        (written.as_str(), origin.as_path(), line),
        ("\"http://s3:2\"", Path::new("$AWS_ENDPOINT_URL_S3"), 0)
    );
    let (settings, _) = among(&format!("{MINIMAL}endpoint_url = 'http://own:3'\n"), &variables).unwrap();
    assert_eq!(settings.targets[0].endpoint_url.as_deref(), Some("http://own:3"));
    let (settings, _) = among(MINIMAL, &[("AWS_USE_FIPS_ENDPOINT", "TRUE")]).unwrap();
    assert!(settings.targets[0].use_fips_endpoint);
}

#[test]
fn endpoints_that_only_aws_has_are_refused_beside_another_one() {
    let fips = [("AWS_USE_FIPS_ENDPOINT", "true")];
    let own = format!("{MINIMAL}endpoint_url = 'http://own:3'\n");
    let said = among(&own, &fips).unwrap_err().concat();
    assert!(
        said.contains("use_fips_endpoint = true (from $AWS_USE_FIPS_ENDPOINT) and endpoint_url exclude each other"),
        "{said}"
    );
    assert!(among(&format!("{own}use_fips_endpoint = false\n"), &fips).is_ok());
    let said = among(MINIMAL, &[("AWS_USE_DUALSTACK_ENDPOINT", "perhaps")])
        .unwrap_err()
        .concat();
    assert!(said.contains("expected true or false"), "{said}");
}

#[test]
fn a_bucket_that_can_not_be_reached_so_is_refused_when_it_is_read() {
    let with = |bucket: &str, more: &str| {
        let text = format!("[lustre]\nmount = '/mnt/lustre'\n[[archive]]\nid = 1\nbucket = '{bucket}'\n{more}");
        problems(&text).concat()
    };
    let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/lab";
    assert_eq!(with(arn, ""), "");
    assert!(
        with(arn, "endpoint_url = 'http://minio:9000'\n").contains("is an ARN, which only AWS's own endpoints know")
    );
    assert!(with(arn, "path_style = true\n").contains("leave `path_style` out"));
    assert!(with("arn:aws:s3::123456789012:accesspoint/m.mrap", "").contains("SigV4A"));
    assert!(with("lab--use1-az4--x-s3", "").contains("is a directory bucket"));
    assert!(with("arn:aws:s3", "").contains("no complete ARN"));
}
